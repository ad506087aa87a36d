//! SIGTERM in the middle of load: what was accepted is answered, and nothing else was done.

use std::time::Duration;

use crate::{
    crowd::EVERYBODY,
    promises,
    server::Ended,
    theatre::{Ending, Moment, Theatre, seed},
};

#[tokio::test]
async fn a_server_that_is_told_to_stop_answers_what_it_accepted_and_does_nothing_else() {
    let mut theatre = Theatre::open(seed("stops")).await;
    for answers in [20, 90, 170] {
        let moment = Moment {
            answers,
            then: Duration::from_micros(theatre.random().below(4_000)),
        };
        let ended = theatre
            .round(EVERYBODY, "", Ending::Terminate(moment))
            .await;
        assert_eq!(ended, Ended::Stopped);
        promises::nothing_was_done_unanswered(&theatre.ledger, theatre.path());
    }
    theatre.close().await;
}

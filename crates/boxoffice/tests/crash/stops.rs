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
    // Slow commits, or a slow gateway, so that many requests are under way.
    let slow = [
        "store.before_commit=sleep(25)",
        "sandbox.after_charge=sleep(60)",
    ];
    for (answers, failpoints) in [(20, ""), (60, slow[0]), (120, slow[1]), (170, "")] {
        let moment = Moment {
            answers,
            then: Duration::from_micros(theatre.random().below(4_000)),
        };
        let ended = theatre
            .round(EVERYBODY, failpoints, Ending::Terminate(moment))
            .await;
        assert_eq!(ended, Ended::Stopped);
        promises::nothing_was_done_unanswered(&theatre.ledger, theatre.path());
    }
    theatre.close().await;
}

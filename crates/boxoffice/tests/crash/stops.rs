//! SIGTERM under load: every accepted request is answered, and nothing else is done.

use std::time::Duration;

use test_support::process::ExitKind;

use crate::{
    buyers::ALL_KINDS,
    harness::{CrashHarness, Ending, Moment, seed},
    promises,
};

#[tokio::test]
async fn a_stopping_server_answers_every_accepted_request_and_does_nothing_else() {
    let mut harness = CrashHarness::open(seed("stops")).await;
    // Slow commits or a slow gateway, so that many requests are pending.
    let slow = [
        "store.before_commit=sleep(25)",
        "sandbox.after_charge=sleep(60)",
    ];
    for (answers, failpoints) in [(20, ""), (60, slow[0]), (120, slow[1]), (170, "")] {
        let moment = Moment {
            answers,
            then: Duration::from_micros(harness.random().below(4_000)),
        };
        let ended = harness
            .round(ALL_KINDS, failpoints, Ending::Terminate(moment))
            .await;
        assert_eq!(ended, ExitKind::Stopped);
        promises::nothing_was_done_unanswered(&harness.calls, harness.path());
    }
    harness.close().await;
}

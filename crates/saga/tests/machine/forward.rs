//! The way forward, rule by rule: replies, silence, parking, resuming.

use crate::story::{PURCHASE, Story, TRIP, abort, proceed, refuse, silence, undone};
use saga::{Command, Direction, Pending, SagaState};

#[test]
fn a_saga_starts_with_its_first_request_and_a_timer_for_it() {
    let story = Story::start(&PURCHASE);

    let (step, direction, attempt) = (0, Direction::Request, 1);
    assert_eq!(
        story.commands,
        [
            Command::Send {
                step,
                direction,
                attempt,
                topic: "check.active.request"
            },
            Command::SetTimer {
                step,
                direction,
                attempt,
                after_millis: 1_000
            },
        ]
    );
    assert_eq!(story.saga.current_step(), Some("check.active"));
    assert_eq!(
        story.saga.pending(),
        Some(Pending {
            step,
            direction,
            attempt
        })
    );
    assert_eq!(story.steps(), "STARTED");
}

#[test]
fn steps_are_requested_one_at_a_time_in_order_until_the_saga_completes() {
    let mut story = Story::start(&PURCHASE);

    assert_eq!(story.give(proceed(0)).sent(), ["reserve.points.request"]);
    assert_eq!(story.give(proceed(1)).sent(), ["check.fraud.request"]);
    assert_eq!(story.give(proceed(2)).sent(), ["create.payment.request"]);
    assert_eq!(story.saga.state, SagaState::Started);
    story.give(proceed(3));

    assert_eq!(
        story.commands,
        [
            Command::CancelTimer,
            Command::Finished {
                state: SagaState::Completed
            }
        ]
    );
    assert_eq!(story.saga.state, SagaState::Completed);
    assert_eq!(story.steps(), "SUCCEEDED SUCCEEDED SUCCEEDED SUCCEEDED");
    assert_eq!(
        (
            story.saga.current_step(),
            story.saga.pending(),
            story.saga.is_terminal()
        ),
        (None, None, true)
    );
}

#[test]
fn an_unanswered_request_is_sent_again_under_the_next_attempt() {
    let mut story = Story::after(&PURCHASE, [proceed(0)]);

    story.give(silence(1, 1));

    let (step, direction, attempt) = (1, Direction::Request, 2);
    assert_eq!(
        story.commands,
        [
            Command::Send {
                step,
                direction,
                attempt,
                topic: "reserve.points.request"
            },
            Command::SetTimer {
                step,
                direction,
                attempt,
                after_millis: 2_000
            },
        ]
    );
}

#[test]
fn a_reply_to_an_earlier_attempt_counts() {
    let story = Story::after(&PURCHASE, [proceed(0), silence(1, 1), proceed(1)]);
    assert_eq!(story.sent(), ["check.fraud.request"]);
}

#[test]
fn stale_timers_and_foreign_replies_change_nothing() {
    let story = Story::after(&PURCHASE, [proceed(0), silence(1, 1)]);

    for stale in [silence(0, 1), silence(1, 1), silence(1, 3), silence(2, 1)] {
        story.assert_ignores(stale);
    }
    for foreign in [
        proceed(0),
        refuse(0, "late"),
        proceed(2),
        refuse(3, "early"),
        undone(1),
        undone(3),
    ] {
        story.assert_ignores(foreign);
    }
    story.assert_ignores(crate::story::undoing_silent(1, 2));
    story.assert_ignores(saga::Input::Resume);
}

#[test]
fn a_refused_step_is_failed_and_names_the_reason() {
    let story = Story::after(&PURCHASE, [refuse(0, "inactive")]);

    assert_eq!(story.saga.failure.as_deref(), Some("inactive"));
    assert_eq!(story.saga.steps[0].refusal.as_deref(), Some("inactive"));
    assert_eq!(story.steps(), "FAILED");
    assert_eq!(
        story.commands,
        [
            Command::CancelTimer,
            Command::Finished {
                state: SagaState::Compensated
            }
        ]
    );
}

#[test]
fn lasting_silence_names_the_step_and_the_attempts() {
    let story = Story::after(&PURCHASE, [silence(0, 1), silence(0, 2)]);

    assert_eq!(
        story.saga.failure.as_deref(),
        Some("check.active: no answer to the request after attempt 2")
    );
    assert_eq!(story.saga.state, SagaState::Compensated);
    assert_eq!(story.steps(), "FAILED");
}

#[test]
fn a_step_that_must_succeed_parks_when_it_stays_silent() {
    let mut story = Story::after(&TRIP, [proceed(0), proceed(1), silence(2, 1)]);
    assert_eq!(story.sent(), ["visa.pay.request"]);

    story.give(silence(2, 2));

    let reason = "visa: no answer to the request after attempt 2".to_owned();
    assert_eq!(
        story.commands,
        [
            Command::CancelTimer,
            Command::Parked {
                reason: reason.clone()
            }
        ]
    );
    assert_eq!(story.saga.parked, Some(reason));
    assert_eq!(story.saga.state, SagaState::Started);
    assert_eq!(story.steps(), "SUCCEEDED SUCCEEDED STARTED");
    story.assert_ignores(silence(2, 2));
}

#[test]
fn a_step_that_must_succeed_parks_when_it_is_refused() {
    let story = Story::after(&TRIP, [proceed(0), proceed(1), refuse(2, "no passport")]);

    let reason = "visa: request refused: no passport".to_owned();
    assert_eq!(
        story.commands,
        [Command::CancelTimer, Command::Parked { reason }]
    );
    assert_eq!(story.saga.failure, None);
    story.assert_ignores(refuse(2, "no passport"));
}

#[test]
fn a_late_reply_sets_a_parked_saga_going_again() {
    let parked = [proceed(0), proceed(1), silence(2, 1), silence(2, 2)];

    let story = Story::after(&TRIP, parked.clone().into_iter().chain([proceed(2)]));
    assert_eq!(
        (story.saga.state, story.saga.parked),
        (SagaState::Completed, None)
    );

    let story = Story::after(&TRIP, parked.into_iter().chain([refuse(2, "no passport")]));
    let reason = "visa: request refused: no passport".to_owned();
    assert_eq!(
        story.saga.parked,
        Some(reason.clone()),
        "the person is told what is now known"
    );
    assert_eq!(
        story.commands,
        [Command::CancelTimer, Command::Parked { reason }]
    );
}

#[test]
fn resuming_sends_again_with_fresh_retries_and_attempts_never_used_before() {
    let mut story = Story::after(
        &TRIP,
        [proceed(0), proceed(1), silence(2, 1), silence(2, 2)],
    );

    story.give(saga::Input::Resume);

    let (step, direction, attempt) = (2, Direction::Request, 3);
    assert_eq!(
        story.commands,
        [
            Command::Send {
                step,
                direction,
                attempt,
                topic: "visa.pay.request"
            },
            Command::SetTimer {
                step,
                direction,
                attempt,
                after_millis: 10_000
            },
        ]
    );
    assert_eq!(story.saga.parked, None);
    assert_eq!(story.give(silence(2, 3)).sent(), ["visa.pay.request"]);
    assert!(story.give(silence(2, 4)).saga.is_parked());
}

#[test]
fn resuming_forgets_the_refusal_that_was_overcome() {
    let mut story = Story::after(
        &TRIP,
        [
            proceed(0),
            proceed(1),
            refuse(2, "no passport"),
            saga::Input::Resume,
        ],
    );
    assert_eq!(story.saga.steps[2].refusal, None);

    story.give(silence(2, 2)).give(silence(2, 3));
    assert_eq!(
        story.saga.parked.as_deref(),
        Some("visa: no answer to the request after attempt 3")
    );
}

#[test]
fn a_parked_saga_can_be_aborted() {
    let mut story = Story::after(&TRIP, [proceed(0), proceed(1), refuse(2, "no passport")]);

    assert_eq!(story.give(abort()).sent(), ["hotel.cancel.request"]);
    assert_eq!(
        (story.saga.state, story.saga.parked.as_deref()),
        (SagaState::Compensating, None)
    );
}

#[test]
fn a_saga_that_has_ended_never_changes() {
    let completed = Story::after(&TRIP, [proceed(0), proceed(1), proceed(2)]);
    let compensated = Story::after(&TRIP, [proceed(0), abort(), undone(1), undone(0)]);
    assert_eq!(compensated.saga.state, SagaState::Compensated);

    for ended in [completed, compensated] {
        for at in 0..2 {
            for input in [
                proceed(at),
                refuse(at, "no"),
                undone(at),
                silence(at, 1),
                crate::story::undoing_silent(at, 1),
            ] {
                ended.assert_ignores(input);
            }
        }
        ended.assert_ignores(abort());
        ended.assert_ignores(saga::Input::Resume);
    }
}

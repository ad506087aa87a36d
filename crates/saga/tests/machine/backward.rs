//! The way back, rule by rule: what is undone, in which order, and what happens when undoing fails.

use crate::story::{
    PURCHASE, Story, TRIP, abort, proceed, refuse, silence, undoing_refused, undoing_silent, undone,
};
use saga::{Command, Direction, Input, SagaState};

#[test]
fn a_refusal_undoes_what_succeeded_in_exact_reverse_and_passes_over_the_rest() {
    let mut story = Story::after(
        &PURCHASE,
        [proceed(0), proceed(1), proceed(2), refuse(3, "no card")],
    );

    assert_eq!(
        story.sent(),
        ["restore.points.request"],
        "the refused payment took nothing"
    );
    assert_eq!(story.saga.current_step(), Some("reserve.points"));
    assert_eq!(story.steps(), "SUCCEEDED COMPENSATING SUCCEEDED FAILED");
    story.give(undone(1));

    assert_eq!(
        story.commands,
        [
            Command::CancelTimer,
            Command::Finished {
                state: SagaState::Compensated
            }
        ]
    );
    assert_eq!(story.steps(), "SUCCEEDED COMPENSATED SUCCEEDED FAILED");
    assert_eq!(story.saga.failure.as_deref(), Some("no card"));
}

#[test]
fn a_saga_that_is_forestalled_asks_nothing_and_is_never_moved() {
    let (saga, commands) = saga::cancel_before_start(&PURCHASE, "too late".to_owned());
    let state = SagaState::Compensated;
    assert_eq!(commands, [Command::Finished { state }]);
    assert_eq!(
        (saga.state, saga.failure.as_deref()),
        (state, Some("too late"))
    );

    for input in [proceed(0), silence(0, 1), abort(), Input::Resume] {
        assert_eq!(
            saga::step(&PURCHASE, &saga, input),
            Ok((saga.clone(), vec![]))
        );
    }
}

#[test]
fn a_step_whose_outcome_is_unknown_is_undone_first() {
    let mut story = Story::after(
        &PURCHASE,
        [
            proceed(0),
            proceed(1),
            proceed(2),
            silence(3, 1),
            silence(3, 2),
        ],
    );

    assert_eq!(story.sent(), ["delete.payment.request"]);
    assert_eq!(story.give(undone(3)).sent(), ["restore.points.request"]);
    assert_eq!(story.give(undone(1)).saga.state, SagaState::Compensated);
    assert_eq!(story.steps(), "SUCCEEDED COMPENSATED SUCCEEDED COMPENSATED");
}

#[test]
fn a_silent_step_that_cannot_be_undone_is_failed_and_the_ones_before_it_are_undone() {
    let story = Story::after(
        &PURCHASE,
        [proceed(0), proceed(1), silence(2, 1), silence(2, 2)],
    );

    assert_eq!(story.sent(), ["restore.points.request"]);
    assert_eq!(story.steps(), "SUCCEEDED COMPENSATING FAILED");
}

#[test]
fn aborting_undoes_the_step_in_flight_too() {
    let mut story = Story::after(&TRIP, [proceed(0), abort()]);

    assert_eq!(story.saga.failure.as_deref(), Some("called off"));
    assert_eq!(story.sent(), ["hotel.cancel.request"]);
    assert_eq!(story.give(undone(1)).sent(), ["flight.cancel.request"]);
    story.assert_ignores(Input::Abort {
        reason: "called off again".to_owned(),
    });
}

#[test]
fn aborting_with_nothing_to_undo_ends_at_once() {
    let story = Story::after(&PURCHASE, [abort()]);

    assert_eq!(
        story.commands,
        [
            Command::CancelTimer,
            Command::Finished {
                state: SagaState::Compensated
            }
        ]
    );
    assert_eq!(story.steps(), "FAILED");
}

#[test]
fn the_attempts_of_a_compensation_are_counted_from_one() {
    let story = Story::after(&TRIP, [proceed(0), silence(1, 1), silence(1, 2)]);

    let (step, direction, attempt) = (1, Direction::Compensation, 1);
    assert_eq!(
        story.commands,
        [
            Command::Send {
                step,
                direction,
                attempt,
                topic: "hotel.cancel.request"
            },
            Command::SetTimer {
                step,
                direction,
                attempt,
                after_millis: 100
            },
        ]
    );
}

#[test]
fn a_late_answer_to_a_request_does_not_disturb_the_way_back() {
    let story = Story::after(&TRIP, [proceed(0), abort()]);

    for late in [
        proceed(1),
        refuse(1, "full"),
        proceed(0),
        silence(1, 1),
        undone(0),
        undoing_silent(0, 1),
    ] {
        story.assert_ignores(late);
    }
}

#[test]
fn a_silent_compensation_is_repeated_with_backoff_and_then_parks() {
    let mut story = Story::after(&TRIP, [proceed(0), abort()]);

    story.give(undoing_silent(1, 1));
    let (step, direction, attempt) = (1, Direction::Compensation, 2);
    assert_eq!(
        story.commands,
        [
            Command::Send {
                step,
                direction,
                attempt,
                topic: "hotel.cancel.request"
            },
            Command::SetTimer {
                step,
                direction,
                attempt,
                after_millis: 150
            },
        ],
        "twice as long, but no longer than the cap"
    );
    story.assert_ignores(undoing_silent(1, 1));
    story.give(undoing_silent(1, 2));

    let reason = "hotel: no answer to the compensation after attempt 2".to_owned();
    assert_eq!(
        story.commands,
        [Command::CancelTimer, Command::Parked { reason }]
    );
    assert_eq!(story.saga.state, SagaState::Compensating);
    story.assert_ignores(undoing_silent(1, 2));
}

#[test]
fn a_refused_compensation_waits_for_its_backoff_and_then_parks_with_the_reason() {
    let mut story = Story::after(&TRIP, [proceed(0), abort()]);

    assert_eq!(
        story.give(undoing_refused(1, "closed on sundays")).commands,
        []
    );
    story.assert_ignores(undoing_refused(1, "closed on sundays"));
    assert_eq!(
        story.give(undoing_silent(1, 1)).sent(),
        ["hotel.cancel.request"]
    );
    story.give(undoing_silent(1, 2));

    assert_eq!(
        story.saga.parked.as_deref(),
        Some("hotel: compensation refused: closed on sundays")
    );
}

#[test]
fn a_late_confirmation_sets_a_parked_way_back_going_again() {
    let mut story = Story::after(
        &TRIP,
        [
            proceed(0),
            abort(),
            undoing_silent(1, 1),
            undoing_silent(1, 2),
        ],
    );
    assert!(story.saga.is_parked());

    assert_eq!(story.give(undone(1)).sent(), ["flight.cancel.request"]);
    assert!(!story.saga.is_parked());
}

#[test]
fn resuming_a_parked_way_back_sends_the_compensation_again_from_the_first_backoff() {
    let mut story = Story::after(
        &TRIP,
        [
            proceed(0),
            abort(),
            undoing_silent(1, 1),
            undoing_silent(1, 2),
        ],
    );
    story.assert_ignores(abort());

    story.give(Input::Resume);

    let (step, direction, attempt) = (1, Direction::Compensation, 3);
    assert_eq!(
        story.commands,
        [
            Command::Send {
                step,
                direction,
                attempt,
                topic: "hotel.cancel.request"
            },
            Command::SetTimer {
                step,
                direction,
                attempt,
                after_millis: 100
            },
        ]
    );
    story.assert_ignores(Input::Resume);
}

//! Definitions: finding steps by topic, refusing what cannot run, and keeping old versions alive.

use crate::story::{PURCHASE, Story, TRIP, proceed, silence, undone};
use saga::{
    Backoff, Catalog, Definition, DefinitionError, Direction, Illegal, Inconsistency, Input,
    OnFailure, Outcome, Saga,
};
use saga::{SagaState, Step, StepProgress, StepState, start, step};

const SPA: Step = Step::new("spa", "spa.book.request").harmless();
const BROKEN_WAIT: Backoff = Backoff {
    initial_millis: 2,
    max_millis: 1,
    retry_limit: 0,
};

const fn of(steps: &'static [Step]) -> Definition {
    Definition {
        kind: "test",
        version: 1,
        steps,
    }
}

#[test]
fn a_reply_topic_leads_to_its_step_and_direction() {
    assert_eq!(
        PURCHASE.find_by_response("check.fraud.response"),
        Some((2, Direction::Request))
    );
    assert_eq!(
        PURCHASE.find_by_response("restore.points.response"),
        Some((1, Direction::Compensation))
    );
    assert_eq!(PURCHASE.find_by_response("check.fraud.request"), None);
}

#[test]
fn a_definition_that_cannot_run_is_found_out() {
    const NAMED_TWICE: &[Step] = &[SPA, Step::new("spa", "other.request")];
    const TOPIC_TWICE: &[Step] = &[
        SPA,
        Step::new("sauna", "other.request").compensated_by("spa.book.request"),
    ];

    let flaws = [
        (of(&[]), DefinitionError::Empty),
        (
            Definition {
                kind: "",
                version: 1,
                steps: &[SPA],
            },
            DefinitionError::Empty,
        ),
        (
            of(const { &[SPA, Step::new("", "x")] }),
            DefinitionError::Nameless { step: 1 },
        ),
        (
            of(const { &[SPA.compensated_by("")] }),
            DefinitionError::Nameless { step: 0 },
        ),
        (
            of(NAMED_TWICE),
            DefinitionError::StepNamedTwice { name: "spa" },
        ),
        (
            of(TOPIC_TWICE),
            DefinitionError::TopicUsedTwice {
                topic: "spa.book.request",
            },
        ),
        (
            of(const { &[SPA.timeout_millis(0)] }),
            DefinitionError::ImpossibleWait { name: "spa" },
        ),
        (
            of(const { &[SPA.compensation_backoff(BROKEN_WAIT)] }),
            DefinitionError::ImpossibleWait { name: "spa" },
        ),
        (
            of(const { &[Step::new("fee", "fee.pay.request")] }),
            DefinitionError::EffectMayRemain { name: "fee" },
        ),
    ];
    for (definition, flaw) in flaws {
        assert_eq!(definition.validate(), Err(flaw));
    }

    let fee_that_parks =
        of(const { &[Step::new("fee", "fee.pay.request").on_timeout(OnFailure::Park)] });
    assert_eq!(fee_that_parks.validate(), Ok(()));
    assert_eq!(Catalog(&[&PURCHASE, &TRIP]).validate(), Ok(()));
    let twice = DefinitionError::ListedTwice {
        kind: "trip",
        version: 1,
    };
    assert_eq!(Catalog(&[&TRIP, &PURCHASE, &TRIP]).validate(), Err(twice));
}

/// The trip as it was rewritten while version 1 was still under way: other steps, in another order.
const TRIP_2: Definition = Definition {
    kind: "trip",
    version: 2,
    steps: &[
        Step::new("visa", "visa.pay.request"),
        Step::new("train", "train.book.request").compensated_by("train.cancel.request"),
    ],
};
const TRIPS: Catalog = Catalog(&[&TRIP, &TRIP_2]);

#[test]
fn a_stored_saga_runs_to_its_end_by_the_version_it_was_started_with() {
    let stored = serde_json::to_string(&Story::after(&TRIP, [proceed(0)]).saga).unwrap();

    // The program is replaced by one that starts version 2.
    assert_eq!(TRIPS.find("trip", 3), None);
    let mut saga: Saga = serde_json::from_str(&stored).unwrap();
    let definition = TRIPS.find(&saga.kind, saga.definition_version).unwrap();
    let mut sent = Vec::new();
    for input in [silence(1, 1), silence(1, 2), undone(1), undone(0)] {
        let (next, commands) = step(definition, &saga, input).unwrap();
        sent.extend(
            Story {
                definition,
                saga: next.clone(),
                commands,
            }
            .sent(),
        );
        saga = next;
    }

    assert_eq!(
        sent,
        [
            "hotel.book.request",
            "hotel.cancel.request",
            "flight.cancel.request"
        ]
    );
    assert_eq!(saga.state, SagaState::Compensated);
}

#[test]
fn a_saga_is_never_moved_by_another_definition() {
    let (trip, _) = start(&TRIP);

    let kind = Illegal::KindMismatch {
        saga: "trip".to_owned(),
        definition: "purchase",
    };
    assert_eq!(step(&PURCHASE, &trip, proceed(0)), Err(kind));
    assert_eq!(
        step(&TRIP_2, &trip, proceed(0)),
        Err(Illegal::VersionMismatch {
            saga: 1,
            definition: 2
        })
    );
}

#[test]
fn an_input_for_a_step_or_compensation_that_does_not_exist_is_a_contract_error() {
    let (purchase, _) = start(&PURCHASE);

    for input in [proceed(4), silence(4, 1), undone(4)] {
        assert_eq!(
            step(&PURCHASE, &purchase, input),
            Err(Illegal::StepOutOfRange { step: 4, steps: 4 })
        );
    }
    for input in [undone(2), crate::story::undoing_silent(2, 1)] {
        assert_eq!(
            step(&PURCHASE, &purchase, input),
            Err(Illegal::NoCompensation { step: 2 })
        );
    }
}

/// A purchase whose steps are in these states, each sent once.
fn purchase(state: SagaState, steps: &[StepState]) -> Saga {
    let progress = |(state, step): (&StepState, &Step)| StepProgress {
        name: step.name.to_owned(),
        state: *state,
        attempt: 1,
        retries: 0,
        refusal: None,
    };
    let steps = steps.iter().zip(PURCHASE.steps).map(progress).collect();
    Saga {
        kind: "purchase".to_owned(),
        definition_version: 1,
        state,
        steps,
        failure: None,
        parked: None,
    }
}

#[test]
fn a_stored_saga_that_no_history_leads_to_is_refused() {
    use Inconsistency::{NoSinglePendingStep, StepCount};
    use SagaState::{Compensated, Compensating, Completed, Started};
    use StepState as Is;

    let wrong = |step| Inconsistency::StepState { step };
    let succeeded = Is::Succeeded;
    let cases: [(SagaState, &[StepState], Inconsistency); 12] = [
        (Started, &[], StepCount { begun: 0, steps: 4 }),
        (Completed, &[succeeded; 3], StepCount { begun: 3, steps: 4 }),
        (Started, &[succeeded], NoSinglePendingStep),
        (Started, &[Is::Started, Is::Started], wrong(0)),
        (Started, &[Is::Failed, Is::Started], wrong(0)),
        (
            Compensating,
            &[succeeded, succeeded, Is::Failed],
            NoSinglePendingStep,
        ),
        (Compensating, &[Is::Compensating], wrong(0)),
        (
            Compensating,
            &[succeeded, Is::Compensating, succeeded, succeeded],
            wrong(3),
        ),
        (
            Compensating,
            &[succeeded, Is::Compensating, Is::Started],
            wrong(2),
        ),
        (
            Compensating,
            &[succeeded, Is::Compensated, succeeded, Is::Compensating],
            wrong(1),
        ),
        (Compensated, &[succeeded, succeeded], wrong(1)),
        (
            Completed,
            &[succeeded, Is::Compensated, succeeded, succeeded],
            wrong(1),
        ),
    ];
    for (state, steps, inconsistency) in cases {
        let saga = purchase(state, steps);
        let refused = step(&PURCHASE, &saga, Input::Resume);
        assert_eq!(
            refused,
            Err(Illegal::Inconsistent(inconsistency)),
            "{saga:?}"
        );
    }
}

#[test]
fn a_stored_saga_with_a_wrong_name_attempt_or_note_is_refused() {
    let refusal = |spoil: fn(&mut Saga)| {
        let mut saga = purchase(SagaState::Completed, &[StepState::Succeeded; 4]);
        assert!(step(&PURCHASE, &saga, Input::Resume).is_ok());
        spoil(&mut saga);
        step(&PURCHASE, &saga, Input::Resume)
    };

    let renamed = refusal(|saga| saga.steps[1].name = "reserve.miles".to_owned());
    assert_eq!(
        renamed,
        Err(Illegal::Inconsistent(Inconsistency::StepName { step: 1 }))
    );
    let never_sent = refusal(|saga| saga.steps[2].attempt = 0);
    assert_eq!(
        never_sent,
        Err(Illegal::Inconsistent(Inconsistency::NeverSent { step: 2 }))
    );
    let parked = refusal(|saga| saga.parked = Some("why?".to_owned()));
    assert_eq!(
        parked,
        Err(Illegal::Inconsistent(Inconsistency::ParkedAtTheEnd))
    );
}

#[test]
fn a_saga_is_stored_in_words_that_do_not_change() {
    let story = Story::after(&PURCHASE, [proceed(0), silence(1, 1)]);
    let stored = serde_json::json!({
        "kind": "purchase",
        "definitionVersion": 1,
        "state": "STARTED",
        "steps": [
            { "name": "check.active", "state": "SUCCEEDED", "attempt": 1, "retries": 0 },
            { "name": "reserve.points", "state": "STARTED", "attempt": 2, "retries": 1 },
        ],
        "failure": null,
        "parked": null,
    });
    assert_eq!(serde_json::to_value(&story.saga).unwrap(), stored);
    assert_eq!(serde_json::from_value::<Saga>(stored).unwrap(), story.saga);

    for state in [
        SagaState::Started,
        SagaState::Compensating,
        SagaState::Compensated,
        SagaState::Completed,
    ] {
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
    for direction in [Direction::Request, Direction::Compensation] {
        assert_eq!(serde_json::to_value(direction).unwrap(), direction.as_str());
    }
    let refused = Outcome::Refuse {
        reason: "full".to_owned(),
    };
    assert_eq!(
        serde_json::to_value(refused).unwrap(),
        serde_json::json!({ "Refuse": { "reason": "full" } })
    );
}

//! What holds for every definition and every history, however absurd.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use saga::{
    Backoff, Command, Definition, Direction, Illegal, Input, OnFailure, Outcome, Pending, Saga,
    Step,
};
use saga::{SagaState, start, step};

const NAMES: [&str; 5] = ["zero", "one", "two", "three", "four"];
const REQUESTS: [&str; 5] = ["zero.do", "one.do", "two.do", "three.do", "four.do"];
const COMPENSATIONS: [&str; 5] = [
    "zero.undo",
    "one.undo",
    "two.undo",
    "three.undo",
    "four.undo",
];

/// One thing that happens: any input at all, or one that fits what the saga is waiting for. Without the
/// second kind a random history would hardly ever get past its first steps.
#[derive(Debug, Clone)]
enum Happening {
    Any(Input),
    Fitting(Fit),
}

#[derive(Debug, Clone, Copy)]
enum Fit {
    Proceeds,
    Refuses,
    StaysSilent,
}

impl Happening {
    fn input(&self, saga: &Saga) -> Option<Input> {
        match self {
            Self::Any(input) => Some(input.clone()),
            Self::Fitting(fit) => saga.pending().map(|pending| fit.input(pending)),
        }
    }
}

impl Fit {
    fn input(
        self,
        Pending {
            step,
            direction,
            attempt,
        }: Pending,
    ) -> Input {
        match self {
            Self::Proceeds => Input::Reply {
                step,
                direction,
                outcome: Outcome::Proceed,
            },
            Self::Refuses => Input::Reply {
                step,
                direction,
                outcome: Outcome::Refuse {
                    reason: "no".to_owned(),
                },
            },
            Self::StaysSilent => Input::Timeout {
                step,
                direction,
                attempt,
            },
        }
    }
}

fn failure() -> impl Strategy<Value = OnFailure> {
    prop_oneof![Just(OnFailure::Compensate), Just(OnFailure::Park)]
}

/// Up to five steps of any shape. The steps are leaked: a definition is a constant of its program.
fn definition() -> impl Strategy<Value = Definition> {
    let shape = (any::<bool>(), 0..3_u32, 0..3_u32, failure(), failure());
    vec(shape, 1..=5).prop_map(|shapes| {
        let shapes = shapes.into_iter().enumerate();
        let steps = shapes.map(
            |(at, (can_be_undone, retry_limit, undo_limit, on_refusal, on_timeout))| Step {
                compensation: can_be_undone.then_some(COMPENSATIONS[at]),
                retry_limit,
                on_refusal,
                on_timeout,
                compensation_backoff: Backoff {
                    initial_millis: 10,
                    max_millis: 30,
                    retry_limit: undo_limit,
                },
                ..Step::new(NAMES[at], REQUESTS[at])
            },
        );
        Definition {
            kind: "any",
            version: 1,
            steps: Box::leak(steps.collect::<Vec<_>>().into_boxed_slice()),
        }
    })
}

fn any_input() -> impl Strategy<Value = Input> {
    let direction = || prop_oneof![Just(Direction::Request), Just(Direction::Compensation)];
    let refusal = prop_oneof![Just("no"), Just("never")];
    let outcome = option::of(refusal).prop_map(|refusal| {
        refusal.map_or(Outcome::Proceed, |no| Outcome::Refuse {
            reason: no.to_owned(),
        })
    });
    prop_oneof![
        4 => (0..6_usize, direction(), outcome)
            .prop_map(|(step, direction, outcome)| Input::Reply { step, direction, outcome }),
        4 => (0..6_usize, direction(), 0..5_u32)
            .prop_map(|(step, direction, attempt)| Input::Timeout { step, direction, attempt }),
        1 => Just(Input::Abort { reason: "called off".to_owned() }),
        2 => Just(Input::Resume),
    ]
}

fn history() -> impl Strategy<Value = Vec<Happening>> {
    let happening = prop_oneof![
        2 => any_input().prop_map(Happening::Any),
        3 => Just(Happening::Fitting(Fit::Proceeds)),
        1 => Just(Happening::Fitting(Fit::Refuses)),
        2 => Just(Happening::Fitting(Fit::StaysSilent)),
    ];
    vec(happening, 0..40)
}

/// One input, and the saga before and after it.
struct Turn {
    before: Saga,
    input: Option<Input>,
    after: Saga,
    commands: Vec<Command>,
}

/// Every turn of a history that the machine accepts, the start among them.
fn turns(definition: &Definition, history: &[Happening]) -> Vec<Turn> {
    let (saga, commands) = start(definition);
    let mut turns = vec![Turn {
        before: saga.clone(),
        input: None,
        after: saga.clone(),
        commands,
    }];
    let mut before = saga;
    for happening in history {
        let Some(input) = happening.input(&before) else {
            continue;
        };
        match step(definition, &before, input.clone()) {
            Ok((after, commands)) => {
                turns.push(Turn {
                    before,
                    input: Some(input),
                    after: after.clone(),
                    commands,
                });
                before = after;
            }
            // Only the input can be at fault: the machine leads to no saga that it would call inconsistent.
            Err(Illegal::StepOutOfRange { .. } | Illegal::NoCompensation { .. }) => {}
            Err(fault) => panic!("{fault} after {input:?} in {before:?}"),
        }
    }
    turns
}

fn last(turns: &[Turn]) -> Saga {
    turns.last().expect("the start is a turn").after.clone()
}

/// The steps that were sent in this direction, each once, in the order of their first sending.
fn first_sent(turns: &[Turn], wanted: Direction) -> Vec<usize> {
    let mut steps = Vec::new();
    for command in turns.iter().flat_map(|turn| &turn.commands) {
        if let Command::Send {
            step, direction, ..
        } = command
            && *direction == wanted
            && !steps.contains(step)
        {
            steps.push(*step);
        }
    }
    steps
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_history_breaks_the_machine_and_a_saga_that_ended_never_changes(
        definition in definition(), history in history(),
    ) {
        for turn in turns(&definition, &history) {
            if turn.before.is_terminal() {
                prop_assert_eq!(&turn.before, &turn.after);
                prop_assert_eq!(&turn.commands, &[]);
            }
        }
    }

    #[test]
    fn the_same_input_twice_is_the_same_as_once(definition in definition(), history in history()) {
        for turn in turns(&definition, &history) {
            if let Some(input) = turn.input {
                let (again, commands) = step(&definition, &turn.after, input).unwrap();
                prop_assert_eq!(again, turn.after);
                prop_assert_eq!(commands, []);
            }
        }
    }

    #[test]
    fn a_saga_is_unchanged_exactly_when_nothing_follows_but_for_a_remembered_refusal(
        definition in definition(), history in history(),
    ) {
        for turn in turns(&definition, &history).into_iter().skip(1) {
            let mut before = turn.before;
            let refused_undoing = matches!(
                turn.input,
                Some(Input::Reply { direction: Direction::Compensation, outcome: Outcome::Refuse { .. }, .. })
            );
            if refused_undoing {
                for (was, is) in before.steps.iter_mut().zip(&turn.after.steps) {
                    was.refusal.clone_from(&is.refusal);
                }
            }
            prop_assert_eq!(before == turn.after, turn.commands.is_empty());
        }
    }

    #[test]
    fn attempts_only_grow_so_that_no_message_id_is_used_twice(
        definition in definition(), history in history(),
    ) {
        let mut sent = BTreeSet::new();
        for command in turns(&definition, &history).into_iter().flat_map(|turn| turn.commands) {
            if let Command::Send { step, direction, attempt, topic } = command {
                prop_assert_eq!(definition.steps[step].topic(direction), Some(topic));
                prop_assert!(attempt == 1 || sent.contains(&(step, direction, attempt - 1)));
                prop_assert!(sent.insert((step, direction, attempt)));
            }
        }
    }

    #[test]
    fn a_saga_that_moves_has_the_one_timer_it_needs_and_any_other_saga_has_none(
        definition in definition(), history in history(),
    ) {
        let mut timer = None;
        for turn in turns(&definition, &history) {
            for command in turn.commands {
                match command {
                    Command::SetTimer { step, direction, attempt, after_millis } => {
                        prop_assert!(after_millis > 0);
                        timer = Some(Pending { step, direction, attempt });
                    }
                    Command::CancelTimer => timer = None,
                    Command::Send { .. } | Command::Finished { .. } | Command::Parked { .. } => {}
                }
            }
            let needed = turn.after.pending().filter(|_| !turn.after.is_parked());
            prop_assert_eq!(timer, needed);
        }
    }

    #[test]
    fn what_succeeded_or_is_unknown_is_undone_in_exact_reverse_and_nothing_else(
        definition in definition(), history in history(),
    ) {
        // Whatever happened: it is called off if it still can be, and then every compensation proceeds.
        let ending = [Happening::Any(Input::Abort { reason: "called off".to_owned() })]
            .into_iter()
            .chain(vec![Happening::Fitting(Fit::Proceeds); definition.steps.len()]);
        let turns = turns(&definition, &history.into_iter().chain(ending).collect::<Vec<_>>());
        let saga = last(&turns);
        prop_assume!(saga.state == SagaState::Compensated);

        let turned_back = turns.iter().find(|turn| turn.after.state != SagaState::Started).unwrap();
        let refused = match &turned_back.input {
            Some(Input::Reply { step, outcome: Outcome::Refuse { .. }, .. }) => Some(*step),
            _ => None,
        };
        let mut expected = first_sent(&turns, Direction::Request);
        expected.retain(|step| definition.steps[*step].compensation.is_some() && Some(*step) != refused);
        expected.reverse();
        prop_assert_eq!(first_sent(&turns, Direction::Compensation), expected);
    }

    #[test]
    fn requests_are_sent_in_the_order_of_the_definition(definition in definition(), history in history()) {
        let requested = first_sent(&turns(&definition, &history), Direction::Request);
        prop_assert_eq!(&requested, &(0..requested.len()).collect::<Vec<_>>());
    }

    #[test]
    fn a_saga_stored_and_loaded_at_every_turn_takes_the_same_course(
        definition in definition(), history in history(),
    ) {
        for turn in turns(&definition, &history) {
            let stored = serde_json::to_string(&turn.before).unwrap();
            let loaded: Saga = serde_json::from_str(&stored).unwrap();
            prop_assert_eq!(&loaded, &turn.before);
            if let Some(input) = turn.input {
                prop_assert_eq!(step(&definition, &loaded, input).unwrap(), (turn.after, turn.commands));
            }
        }
    }

    #[test]
    fn timers_alone_bring_every_saga_to_its_end_or_before_a_person(
        definition in definition(), history in history(),
    ) {
        // Five steps, each sent three times at most on either way.
        const TIMERS_MAX: usize = 5 * 3 * 2;
        let mut history = history;
        history.extend(vec![Happening::Fitting(Fit::StaysSilent); TIMERS_MAX]);
        let saga = last(&turns(&definition, &history));
        prop_assert!(saga.is_terminal() || saga.is_parked(), "{:?}", saga);
    }

    #[test]
    fn once_every_participant_proceeds_every_saga_ends(definition in definition(), history in history()) {
        let mut history = history;
        history.extend(vec![Happening::Fitting(Fit::Proceeds); definition.steps.len()]);
        prop_assert!(last(&turns(&definition, &history)).is_terminal());
    }
}

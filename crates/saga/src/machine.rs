//! The machine: [`start`] begins a saga, [`cancel_before_start`] ends one that has not begun, [`step`] moves it. All are
//! pure. A saga waits for one reply ([`Saga::pending`]): an input about any other step, direction or attempt is late, and
//! changes nothing.

use crate::check::{check_input, check_saga};
use crate::definition::{Definition, OnFailure};
use crate::illegal::Illegal;
use crate::message::{Command, Direction, Input, Outcome};
use crate::progress::{Saga, SagaState, StepProgress, StepState};

/// Starts a saga: its first request, and the timer of that.
#[must_use]
pub fn start(definition: &Definition) -> (Saga, Vec<Command>) {
    let saga = without_steps(definition, SagaState::Started, None);
    let mut next = Transition {
        definition,
        saga,
        commands: Vec::new(),
    };
    next.request_next_step();
    (next.saga, next.commands)
}

/// A saga that is compensated before its first request. Store it: a start that arrives later finds it.
#[must_use]
pub fn cancel_before_start(definition: &Definition, reason: String) -> (Saga, Vec<Command>) {
    let state = SagaState::Compensated;
    let saga = without_steps(definition, state, Some(reason));
    (saga, vec![Command::Finished { state }])
}

fn without_steps(definition: &Definition, state: SagaState, failure: Option<String>) -> Saga {
    Saga {
        kind: definition.kind.to_owned(),
        definition_version: definition.version,
        state,
        steps: Vec::new(),
        failure,
        parked: None,
    }
}

/// Moves a saga by one input. A duplicate, late or stale input returns the same saga and no commands.
///
/// # Errors
///
/// [`Illegal`] if the saga or the input does not belong to the definition. Lateness is never an error.
pub fn step(
    definition: &Definition,
    saga: &Saga,
    input: Input,
) -> Result<(Saga, Vec<Command>), Illegal> {
    check_saga(definition, saga)?;
    check_input(definition, &input)?;
    let mut next = Transition {
        definition,
        saga: saga.clone(),
        commands: Vec::new(),
    };
    match input {
        Input::Reply {
            step,
            direction,
            outcome,
        } if saga.waits_for(step, direction) => match direction {
            Direction::Request => next.request_answered(step, outcome),
            Direction::Compensation => next.compensation_answered(step, outcome),
        },
        Input::Timeout {
            step,
            direction,
            attempt,
        } if saga.waits_for(step, direction)
            && saga.steps[step].attempt == attempt
            && !saga.is_parked() =>
        {
            next.timed_out(step, direction);
        }
        Input::Abort { reason } if saga.state == SagaState::Started => next.compensate(reason),
        Input::Resume => next.resume(),
        // Late, or not wanted any more.
        Input::Reply { .. } | Input::Timeout { .. } | Input::Abort { .. } => {}
    }
    Ok((next.saga, next.commands))
}

/// The saga after one input, and the commands of that input.
struct Transition<'a> {
    definition: &'a Definition,
    saga: Saga,
    commands: Vec<Command>,
}

impl Transition<'_> {
    // ---- forward

    fn request_next_step(&mut self) {
        let at = self.saga.steps.len();
        let Some(next) = self.definition.steps.get(at) else {
            return self.end(SagaState::Completed);
        };
        self.saga.steps.push(StepProgress {
            name: next.name.to_owned(),
            state: StepState::Started,
            attempt: 0,
            retries: 0,
            refusal: None,
        });
        self.send(at, Direction::Request);
    }

    /// A late reply counts: after the saga was parked, it lets the saga continue.
    fn request_answered(&mut self, at: usize, outcome: Outcome) {
        match (outcome, self.definition.steps[at].on_refusal) {
            (Outcome::Proceed, OnFailure::Compensate | OnFailure::Park) => {
                self.saga.steps[at].state = StepState::Succeeded;
                self.saga.steps[at].refusal = None;
                self.saga.parked = None;
                self.request_next_step();
            }
            (Outcome::Refuse { reason }, OnFailure::Compensate) => {
                self.saga.steps[at].state = StepState::Failed;
                self.saga.steps[at].refusal = Some(reason.clone());
                self.compensate(reason);
            }
            // The step stays STARTED: an operator may resume it, so its outcome is still open.
            (Outcome::Refuse { reason }, OnFailure::Park) => {
                self.saga.steps[at].refusal = Some(reason);
                self.park(at, Direction::Request);
            }
        }
    }

    // ---- compensation

    fn compensate(&mut self, failure: String) {
        self.saga.state = SagaState::Compensating;
        self.saga.failure = Some(failure);
        self.saga.parked = None;
        self.compensate_next_step();
    }

    /// Compensates the latest step that succeeded or may have: an unanswered request may have had its effect, and the
    /// compensation of a request without effect is harmless.
    fn compensate_next_step(&mut self) {
        for at in (0..self.saga.steps.len()).rev() {
            let has_compensation = self.definition.steps[at].compensation.is_some();
            let progress = &mut self.saga.steps[at];
            match (progress.state, has_compensation) {
                (StepState::Started | StepState::Succeeded, true) => {
                    progress.state = StepState::Compensating;
                    progress.attempt = 0;
                    progress.retries = 0;
                    progress.refusal = None;
                    return self.send(at, Direction::Compensation);
                }
                (StepState::Started, false) => progress.state = StepState::Failed,
                (StepState::Succeeded, false)
                | (
                    StepState::Failed | StepState::Compensating | StepState::Compensated,
                    true | false,
                ) => {}
            }
        }
        self.end(SagaState::Compensated);
    }

    /// A refusal is only stored. The running timer sends the compensation again after the backoff; a retry at once would
    /// loop as fast as the participant refuses.
    fn compensation_answered(&mut self, at: usize, outcome: Outcome) {
        match outcome {
            Outcome::Proceed => {
                self.saga.steps[at].state = StepState::Compensated;
                self.saga.steps[at].refusal = None;
                self.saga.parked = None;
                self.compensate_next_step();
            }
            Outcome::Refuse { reason } => self.saga.steps[at].refusal = Some(reason),
        }
    }

    // ---- both directions

    /// Sends again, up to the limit.
    fn timed_out(&mut self, at: usize, direction: Direction) {
        let step = &self.definition.steps[at];
        let (retry_limit, on_timeout) = match direction {
            Direction::Request => (step.retry_limit, step.on_timeout),
            Direction::Compensation => (step.compensation_backoff.retry_limit, OnFailure::Park),
        };
        if self.saga.steps[at].retries < retry_limit {
            self.saga.steps[at].retries += 1;
            return self.send(at, direction);
        }
        match on_timeout {
            OnFailure::Compensate => self.compensate(self.parking_reason(at, direction)),
            OnFailure::Park => self.park(at, direction),
        }
    }

    fn resume(&mut self) {
        if self.saga.parked.take().is_none() {
            return;
        }
        if let Some(pending) = self.saga.pending() {
            self.saga.steps[pending.step].retries = 0;
            self.saga.steps[pending.step].refusal = None;
            self.send(pending.step, pending.direction);
        }
    }

    fn send(&mut self, at: usize, direction: Direction) {
        let step = &self.definition.steps[at];
        let progress = &mut self.saga.steps[at];
        progress.attempt = progress.attempt.saturating_add(1);
        let attempt = progress.attempt;
        let after_millis = match direction {
            Direction::Request => step.timeout_millis,
            Direction::Compensation => step.compensation_backoff.wait_millis(progress.retries),
        };
        let topic = step
            .topic(direction)
            .expect("only a step that has a compensation is compensated");
        self.commands.push(Command::Send {
            step: at,
            direction,
            attempt,
            topic,
        });
        self.commands.push(Command::SetTimer {
            step: at,
            direction,
            attempt,
            after_millis,
        });
    }

    fn park(&mut self, at: usize, direction: Direction) {
        let reason = self.parking_reason(at, direction);
        if self.saga.parked.as_ref() == Some(&reason) {
            return;
        }
        self.saga.parked = Some(reason.clone());
        self.commands.push(Command::CancelTimer);
        self.commands.push(Command::Parked { reason });
    }

    /// The reason of parking, for operators.
    fn parking_reason(&self, at: usize, direction: Direction) -> String {
        let StepProgress {
            name,
            attempt,
            refusal,
            ..
        } = &self.saga.steps[at];
        let what = match direction {
            Direction::Request => "request",
            Direction::Compensation => "compensation",
        };
        match refusal {
            Some(reason) => format!("{name}: {what} refused: {reason}"),
            None => format!("{name}: no answer to the {what} after attempt {attempt}"),
        }
    }

    fn end(&mut self, state: SagaState) {
        self.saga.state = state;
        self.commands.push(Command::CancelTimer);
        self.commands.push(Command::Finished { state });
    }
}

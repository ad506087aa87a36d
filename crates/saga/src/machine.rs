//! The machine: [`start`] begins a saga, [`cancel_before_start`] ends one that has not begun, [`step`] moves it. All are
//! pure. [`step`] is one table of (state of the saga × input); each row calls one method of [`Transition`].

use crate::check::{check_input, check_saga};
use crate::definition::{Definition, OnFailure};
use crate::illegal::Illegal;
use crate::message::{Command, Direction, Input, Outcome};
use crate::progress::{Saga, SagaState, StepProgress, StepState};

/// Starts a saga: its first request, and the timer of that.
#[must_use]
pub fn start(definition: &Definition) -> (Saga, Vec<Command>) {
    let saga = Saga {
        kind: definition.kind.to_owned(),
        definition_version: definition.version,
        state: SagaState::Started,
        steps: Vec::new(),
        failure: None,
        parked: None,
    };
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
    let saga = Saga {
        kind: definition.kind.to_owned(),
        definition_version: definition.version,
        state: SagaState::Compensated,
        steps: Vec::new(),
        failure: Some(reason),
        parked: None,
    };
    let state = SagaState::Compensated;
    (saga, vec![Command::Finished { state }])
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
    use Direction::{Compensation, Request};
    use SagaState::{Compensated, Compensating, Completed, Started};

    check_saga(definition, saga)?;
    check_input(definition, &input)?;
    let mut next = Transition {
        definition,
        saga: saga.clone(),
        commands: Vec::new(),
    };
    match (saga.state, input) {
        (
            Started,
            Input::Reply {
                step,
                direction: Request,
                outcome,
            },
        ) => next.request_answered(step, outcome),
        (
            Started,
            Input::Timeout {
                step,
                direction: Request,
                attempt,
            },
        ) => next.request_timed_out(step, attempt),
        (Started, Input::Abort { reason }) => next.compensate(reason),
        (Started, Input::Resume) => next.resume(),
        // No compensation was sent yet, so this answers none.
        (
            Started,
            Input::Reply {
                direction: Compensation,
                ..
            }
            | Input::Timeout {
                direction: Compensation,
                ..
            },
        ) => {}

        (
            Compensating,
            Input::Reply {
                step,
                direction: Compensation,
                outcome,
            },
        ) => {
            next.compensation_answered(step, outcome);
        }
        (
            Compensating,
            Input::Timeout {
                step,
                direction: Compensation,
                attempt,
            },
        ) => {
            next.compensation_timed_out(step, attempt);
        }
        (Compensating, Input::Resume) => next.resume(),
        // The request's outcome no longer matters: the step is compensated in any case.
        (
            Compensating,
            Input::Reply {
                direction: Request, ..
            }
            | Input::Timeout {
                direction: Request, ..
            },
        ) => {}
        (Compensating, Input::Abort { .. }) => {}

        (
            Compensated | Completed,
            Input::Reply { .. } | Input::Timeout { .. } | Input::Abort { .. } | Input::Resume,
        ) => {}
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
        if !self.is_pending(at) {
            return;
        }
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

    fn request_timed_out(&mut self, at: usize, attempt: u32) {
        if !self.is_current_timer(at, attempt) {
            return;
        }
        let step = &self.definition.steps[at];
        if self.saga.steps[at].retries < step.retry_limit {
            return self.retry(at, Direction::Request);
        }
        match step.on_timeout {
            OnFailure::Compensate => self.compensate(self.parking_reason(at, Direction::Request)),
            OnFailure::Park => self.park(at, Direction::Request),
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
        if !self.is_pending(at) {
            return;
        }
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

    fn compensation_timed_out(&mut self, at: usize, attempt: u32) {
        if !self.is_current_timer(at, attempt) {
            return;
        }
        if self.saga.steps[at].retries < self.definition.steps[at].compensation_backoff.retry_limit
        {
            self.retry(at, Direction::Compensation);
        } else {
            self.park(at, Direction::Compensation);
        }
    }

    // ---- both directions

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

    fn is_pending(&self, at: usize) -> bool {
        self.saga
            .pending()
            .is_some_and(|pending| pending.step == at)
    }

    fn is_current_timer(&self, at: usize, attempt: u32) -> bool {
        let is_latest = |pending: crate::Pending| pending.step == at && pending.attempt == attempt;
        !self.saga.is_parked() && self.saga.pending().is_some_and(is_latest)
    }

    fn retry(&mut self, at: usize, direction: Direction) {
        self.saga.steps[at].retries += 1;
        self.send(at, direction);
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

//! The machine: [`start`] begins a saga, [`forestall`] ends one that has not begun, [`step`] moves it. Both are pure; state comes in and goes out.
//!
//! [`step`] is one table of (state of the saga × input). Each row names a rule, and each rule is a short
//! method of [`Turn`], the saga and the commands of the input at hand.

use crate::check::{addresses_a_step, fits};
use crate::definition::{Definition, Failure};
use crate::illegal::Illegal;
use crate::message::{Command, Direction, Input, Outcome};
use crate::progress::{Saga, SagaState, StepProgress, StepState};

/// Begins a saga: its first request, and the timer for it.
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
    let mut turn = Turn {
        definition,
        saga,
        commands: Vec::new(),
    };
    turn.begin_next_step();
    (turn.saga, turn.commands)
}

/// A saga that ends before its first request: who would begin it later finds that it has turned back.
#[must_use]
pub fn forestall(definition: &Definition, reason: String) -> (Saga, Vec<Command>) {
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

/// Moves a saga by one input. An input that is a duplicate, late, foreign or stale gives the same saga back,
/// and no commands.
///
/// # Errors
///
/// [`Illegal`] when the saga and the definition, or the input and the definition, do not belong together.
/// Lateness is never an error.
pub fn step(
    definition: &Definition,
    saga: &Saga,
    input: Input,
) -> Result<(Saga, Vec<Command>), Illegal> {
    use Direction::{Compensation, Request};
    use SagaState::{Compensated, Compensating, Completed, Started};

    fits(definition, saga)?;
    addresses_a_step(definition, &input)?;
    let mut turn = Turn {
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
        ) => turn.request_answered(step, outcome),
        (
            Started,
            Input::Timeout {
                step,
                direction: Request,
                attempt,
            },
        ) => turn.request_silent(step, attempt),
        (Started, Input::Abort { reason }) => turn.turn_back(reason),
        (Started, Input::Resume) => turn.resume(),
        // Nothing has been undone yet, so nobody can have answered it.
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
            turn.compensation_answered(step, outcome);
        }
        (
            Compensating,
            Input::Timeout {
                step,
                direction: Compensation,
                attempt,
            },
        ) => {
            turn.compensation_silent(step, attempt);
        }
        (Compensating, Input::Resume) => turn.resume(),
        // The way back does not depend on what a request did: it is undone either way.
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
    Ok((turn.saga, turn.commands))
}

/// The saga as it becomes under one input, and what is to be done about it.
struct Turn<'a> {
    definition: &'a Definition,
    saga: Saga,
    commands: Vec<Command>,
}

impl Turn<'_> {
    // ---- forward

    fn begin_next_step(&mut self) {
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

    /// An answer is an answer whenever it comes: one that comes after the saga was parked sets it going again.
    fn request_answered(&mut self, at: usize, outcome: Outcome) {
        if !self.waits_for(at) {
            return;
        }
        match (outcome, self.definition.steps[at].when_refused) {
            (Outcome::Proceed, Failure::Compensate | Failure::Park) => {
                self.saga.steps[at].state = StepState::Succeeded;
                self.saga.steps[at].refusal = None;
                self.saga.parked = None;
                self.begin_next_step();
            }
            (Outcome::Refuse { reason }, Failure::Compensate) => {
                self.saga.steps[at].state = StepState::Failed;
                self.saga.steps[at].refusal = Some(reason.clone());
                self.turn_back(reason);
            }
            // The step stays STARTED: a person may have it tried again, so its outcome is still open.
            (Outcome::Refuse { reason }, Failure::Park) => {
                self.saga.steps[at].refusal = Some(reason);
                self.park(at, Direction::Request);
            }
        }
    }

    fn request_silent(&mut self, at: usize, attempt: u32) {
        if !self.timer_is_live(at, attempt) {
            return;
        }
        let step = &self.definition.steps[at];
        if self.saga.steps[at].retries < step.retry_limit {
            return self.send_again(at, Direction::Request);
        }
        match step.when_silent {
            Failure::Compensate => self.turn_back(self.complaint(at, Direction::Request)),
            Failure::Park => self.park(at, Direction::Request),
        }
    }

    // ---- back

    fn turn_back(&mut self, failure: String) {
        self.saga.state = SagaState::Compensating;
        self.saga.failure = Some(failure);
        self.saga.parked = None;
        self.undo_next_step();
    }

    /// Undoes the latest step that did, or may have done, something. A request without an answer counts as
    /// done: undoing what was never done is harmless, leaving it is not.
    fn undo_next_step(&mut self) {
        for at in (0..self.saga.steps.len()).rev() {
            let can_be_undone = self.definition.steps[at].compensation.is_some();
            let progress = &mut self.saga.steps[at];
            match (progress.state, can_be_undone) {
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

    /// A refusal is only remembered. The timer that runs already sends the compensation again after its
    /// backoff; sending at once would let a refusing participant set the pace.
    fn compensation_answered(&mut self, at: usize, outcome: Outcome) {
        if !self.waits_for(at) {
            return;
        }
        match outcome {
            Outcome::Proceed => {
                self.saga.steps[at].state = StepState::Compensated;
                self.saga.steps[at].refusal = None;
                self.saga.parked = None;
                self.undo_next_step();
            }
            Outcome::Refuse { reason } => self.saga.steps[at].refusal = Some(reason),
        }
    }

    fn compensation_silent(&mut self, at: usize, attempt: u32) {
        if !self.timer_is_live(at, attempt) {
            return;
        }
        if self.saga.steps[at].retries < self.definition.steps[at].compensation_backoff.retry_limit
        {
            self.send_again(at, Direction::Compensation);
        } else {
            self.park(at, Direction::Compensation);
        }
    }

    // ---- both ways

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

    fn waits_for(&self, at: usize) -> bool {
        self.saga
            .pending()
            .is_some_and(|pending| pending.step == at)
    }

    fn timer_is_live(&self, at: usize, attempt: u32) -> bool {
        let is_latest = |pending: crate::Pending| pending.step == at && pending.attempt == attempt;
        !self.saga.is_parked() && self.saga.pending().is_some_and(is_latest)
    }

    fn send_again(&mut self, at: usize, direction: Direction) {
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
            .expect("only a step that has a compensation is ever undone");
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
        let reason = self.complaint(at, direction);
        if self.saga.parked.as_ref() == Some(&reason) {
            return;
        }
        self.saga.parked = Some(reason.clone());
        self.commands.push(Command::CancelTimer);
        self.commands.push(Command::Parked { reason });
    }

    /// What a person is told about a step that does not come to an end.
    fn complaint(&self, at: usize, direction: Direction) -> String {
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

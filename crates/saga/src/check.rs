//! Checks that saga, input and definition belong together, before the machine indexes steps and compensations. Pure.

use crate::definition::{Definition, Step};
use crate::illegal::{Illegal, Inconsistency};
use crate::message::{Direction, Input};
use crate::progress::{Saga, SagaState, StepState};

/// Whether some sequence of inputs leads to this saga under this definition.
pub(crate) fn check_saga(definition: &Definition, saga: &Saga) -> Result<(), Illegal> {
    if saga.kind != definition.kind {
        return Err(Illegal::KindMismatch {
            saga: saga.kind.clone(),
            definition: definition.kind,
        });
    }
    if saga.definition_version != definition.version {
        return Err(Illegal::VersionMismatch {
            saga: saga.definition_version,
            definition: definition.version,
        });
    }
    consistent(definition, saga).map_err(Illegal::Inconsistent)
}

/// Whether the definition has the step, and the compensation, of this input.
pub(crate) fn check_input(definition: &Definition, input: &Input) -> Result<(), Illegal> {
    let (step, direction) = match input {
        Input::Reply {
            step, direction, ..
        }
        | Input::Timeout {
            step, direction, ..
        } => (*step, *direction),
        Input::Abort { .. } | Input::Resume => return Ok(()),
    };
    let definition_step = definition.steps.get(step).ok_or(Illegal::StepOutOfRange {
        step,
        steps: definition.steps.len(),
    })?;
    match (direction, definition_step.compensation) {
        (Direction::Request, _) | (Direction::Compensation, Some(_)) => Ok(()),
        (Direction::Compensation, None) => Err(Illegal::NoCompensation { step }),
    }
}

fn consistent(definition: &Definition, saga: &Saga) -> Result<(), Inconsistency> {
    let (begun, steps) = (saga.steps.len(), definition.steps.len());
    let count_fits = match saga.state {
        SagaState::Completed => begun == steps,
        SagaState::Started | SagaState::Compensating => (1..=steps).contains(&begun),
        // A saga that was cancelled before its start has none.
        SagaState::Compensated => begun <= steps,
    };
    if !count_fits {
        return Err(Inconsistency::StepCount { begun, steps });
    }
    let pending = saga.pending().map(|pending| pending.step);
    if pending.is_none() && !saga.is_terminal() {
        return Err(Inconsistency::NoSinglePendingStep);
    }
    if saga.is_terminal() && saga.is_parked() {
        return Err(Inconsistency::ParkedAtTheEnd);
    }
    for (at, (progress, step)) in saga.steps.iter().zip(definition.steps).enumerate() {
        if progress.name != step.name {
            return Err(Inconsistency::StepName { step: at });
        }
        if progress.attempt == 0 {
            return Err(Inconsistency::NeverSent { step: at });
        }
        let position = StepPosition {
            is_last: at + 1 == begun,
            before_pending: pending.is_some_and(|pending| at < pending),
        };
        if !position.allows(saga.state, progress.state, step) {
            return Err(Inconsistency::StepState { step: at });
        }
    }
    Ok(())
}

/// The position of a step among the steps begun.
struct StepPosition {
    is_last: bool,
    before_pending: bool,
}

impl StepPosition {
    fn allows(&self, saga: SagaState, state: StepState, step: &Step) -> bool {
        let has_compensation = step.compensation.is_some();
        match (saga, state) {
            (SagaState::Completed, StepState::Succeeded) => true,
            (SagaState::Started, StepState::Started) => self.is_last,
            (SagaState::Started, StepState::Succeeded) => !self.is_last,
            (SagaState::Compensating, StepState::Compensating) => {
                has_compensation && !self.before_pending
            }
            (SagaState::Compensating, StepState::Succeeded) => {
                self.before_pending || !has_compensation
            }
            (SagaState::Compensated, StepState::Succeeded) => !has_compensation,
            (SagaState::Compensating | SagaState::Compensated, StepState::Compensated) => {
                has_compensation && !self.before_pending
            }
            (SagaState::Compensating | SagaState::Compensated, StepState::Failed) => self.is_last,
            (SagaState::Completed, StepState::Started | StepState::Failed)
            | (SagaState::Started, StepState::Failed)
            | (SagaState::Compensating | SagaState::Compensated, StepState::Started)
            | (
                SagaState::Started | SagaState::Completed | SagaState::Compensated,
                StepState::Compensating,
            )
            | (SagaState::Started | SagaState::Completed, StepState::Compensated) => false,
        }
    }
}

//! The guard before the machine: does this saga, does this input, belong to this definition?
//!
//! The machine indexes steps and compensations without asking again; what it relies on is checked here.

use crate::definition::{Definition, Step};
use crate::illegal::{Illegal, Inconsistency};
use crate::message::{Direction, Input};
use crate::progress::{Saga, SagaState, StepState};

/// Whether the saga is one that this definition can have led to.
pub(crate) fn fits(definition: &Definition, saga: &Saga) -> Result<(), Illegal> {
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

/// Whether the input speaks of a step, and of a compensation, that the definition has.
pub(crate) fn addresses_a_step(definition: &Definition, input: &Input) -> Result<(), Illegal> {
    let (step, direction) = match input {
        Input::Reply {
            step, direction, ..
        }
        | Input::Timeout {
            step, direction, ..
        } => (*step, *direction),
        Input::Abort { .. } | Input::Resume => return Ok(()),
    };
    let addressed = definition.steps.get(step).ok_or(Illegal::StepOutOfRange {
        step,
        steps: definition.steps.len(),
    })?;
    match (direction, addressed.compensation) {
        (Direction::Request, _) | (Direction::Compensation, Some(_)) => Ok(()),
        (Direction::Compensation, None) => Err(Illegal::NoCompensation { step }),
    }
}

fn consistent(definition: &Definition, saga: &Saga) -> Result<(), Inconsistency> {
    let (begun, steps) = (saga.steps.len(), definition.steps.len());
    let count_fits = match saga.state {
        SagaState::Completed => begun == steps,
        SagaState::Started | SagaState::Compensating => (1..=steps).contains(&begun),
        // One that was forestalled has none.
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
        let place = Place {
            is_last: at + 1 == begun,
            before_pending: pending.is_some_and(|pending| at < pending),
        };
        if !place.allows(saga.state, progress.state, step) {
            return Err(Inconsistency::StepState { step: at });
        }
    }
    Ok(())
}

/// Where a step stands among the steps begun.
struct Place {
    is_last: bool,
    before_pending: bool,
}

impl Place {
    fn allows(&self, saga: SagaState, state: StepState, step: &Step) -> bool {
        let can_be_undone = step.compensation.is_some();
        match (saga, state) {
            (SagaState::Completed, StepState::Succeeded) => true,
            (SagaState::Started, StepState::Started) => self.is_last,
            (SagaState::Started, StepState::Succeeded) => !self.is_last,
            (SagaState::Compensating, StepState::Compensating) => {
                can_be_undone && !self.before_pending
            }
            (SagaState::Compensating, StepState::Succeeded) => {
                self.before_pending || !can_be_undone
            }
            (SagaState::Compensated, StepState::Succeeded) => !can_be_undone,
            (SagaState::Compensating | SagaState::Compensated, StepState::Compensated) => {
                can_be_undone && !self.before_pending
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

//! Validation of definitions: a test or the start of a program calls it once. Pure.

use std::collections::BTreeSet;

use crate::definition::{Catalog, Definition, OnFailure, Step};
use crate::message::Direction;

/// Why a definition cannot run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    #[error("a saga needs a kind and at least one step")]
    Empty,
    #[error("step {step} has an empty name or topic")]
    Nameless { step: usize },
    #[error("{name} names two steps")]
    StepNamedTwice { name: &'static str },
    #[error("{topic} is sent by two steps or directions, so its replies are ambiguous")]
    TopicUsedTwice { topic: &'static str },
    #[error("{name} has a wait of zero, or a first wait above its cap")]
    ImpossibleWait { name: &'static str },
    #[error(
        "the effect of {name} would remain after its last timeout: give it a compensation, \
         .on_timeout(OnFailure::Park), or .harmless()"
    )]
    EffectMayRemain { name: &'static str },
    #[error("{kind} version {version} is listed twice")]
    ListedTwice { kind: &'static str, version: u32 },
}

impl Definition {
    /// Checks that each reply and timer belongs to one step, that no wait is zero, and that a timeout leaves no effect
    /// behind.
    ///
    /// # Errors
    ///
    /// The first [`DefinitionError`] found.
    pub fn validate(&self) -> Result<(), DefinitionError> {
        if self.kind.is_empty() || self.steps.is_empty() {
            return Err(DefinitionError::Empty);
        }
        let (mut names, mut topics) = (BTreeSet::new(), BTreeSet::new());
        for (at, step) in self.steps.iter().enumerate() {
            let step_topics = [Direction::Request, Direction::Compensation]
                .into_iter()
                .filter_map(|d| step.topic(d));
            if step.name.is_empty() || step_topics.clone().any(str::is_empty) {
                return Err(DefinitionError::Nameless { step: at });
            }
            if !names.insert(step.name) {
                return Err(DefinitionError::StepNamedTwice { name: step.name });
            }
            for topic in step_topics {
                if !topics.insert(topic) {
                    return Err(DefinitionError::TopicUsedTwice { topic });
                }
            }
            if !waits_are_possible(step) {
                return Err(DefinitionError::ImpossibleWait { name: step.name });
            }
            if may_leave_effect(step) {
                return Err(DefinitionError::EffectMayRemain { name: step.name });
            }
        }
        Ok(())
    }
}

const fn waits_are_possible(step: &Step) -> bool {
    let backoff = step.compensation_backoff;
    step.timeout_millis > 0
        && backoff.initial_millis > 0
        && backoff.initial_millis <= backoff.max_millis
}

/// Whether the saga compensates although the outcome of this step is unknown and cannot be undone.
const fn may_leave_effect(step: &Step) -> bool {
    matches!(step.on_timeout, OnFailure::Compensate)
        && step.compensation.is_none()
        && !step.is_harmless
}

impl Catalog {
    /// Checks every definition, and that none is listed twice.
    ///
    /// # Errors
    ///
    /// The first [`DefinitionError`] found.
    pub fn validate(&self) -> Result<(), DefinitionError> {
        let mut listed = BTreeSet::new();
        for definition in self.0 {
            definition.validate()?;
            if !listed.insert((definition.kind, definition.version)) {
                return Err(DefinitionError::ListedTwice {
                    kind: definition.kind,
                    version: definition.version,
                });
            }
        }
        Ok(())
    }
}

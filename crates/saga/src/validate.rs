//! The check that a definition can be run at all; a test or the program's start calls it once.

use std::collections::BTreeSet;

use crate::definition::{Catalog, Definition, Step};
use crate::message::Direction;

/// Why a definition cannot be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("a saga needs a kind and at least one step")]
    Empty,
    #[error("step {step} has an empty name or topic")]
    Nameless { step: usize },
    #[error("{name} names two steps")]
    StepNamedTwice { name: &'static str },
    #[error("{topic} is sent by two steps or directions, so a reply could not be told apart")]
    TopicUsedTwice { topic: &'static str },
    #[error("{name} has a wait of zero, or a first wait above its cap")]
    ImpossibleWait { name: &'static str },
    #[error("{kind} version {version} is listed twice")]
    ListedTwice { kind: &'static str, version: u32 },
}

impl Definition {
    /// Checks that every reply and every timer can be told apart and no wait is zero.
    ///
    /// # Errors
    ///
    /// The first [`Flaw`] found.
    pub fn validate(&self) -> Result<(), Flaw> {
        if self.kind.is_empty() || self.steps.is_empty() {
            return Err(Flaw::Empty);
        }
        let (mut names, mut topics) = (BTreeSet::new(), BTreeSet::new());
        for (at, step) in self.steps.iter().enumerate() {
            let step_topics = [Direction::Request, Direction::Compensation]
                .into_iter()
                .filter_map(|d| step.topic(d));
            if step.name.is_empty() || step_topics.clone().any(str::is_empty) {
                return Err(Flaw::Nameless { step: at });
            }
            if !names.insert(step.name) {
                return Err(Flaw::StepNamedTwice { name: step.name });
            }
            for topic in step_topics {
                if !topics.insert(topic) {
                    return Err(Flaw::TopicUsedTwice { topic });
                }
            }
            if !waits_are_possible(step) {
                return Err(Flaw::ImpossibleWait { name: step.name });
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

impl Catalog {
    /// Checks every definition, and that none is listed twice.
    ///
    /// # Errors
    ///
    /// The first [`Flaw`] found.
    pub fn validate(&self) -> Result<(), Flaw> {
        let mut listed = BTreeSet::new();
        for definition in self.0 {
            definition.validate()?;
            if !listed.insert((definition.kind, definition.version)) {
                return Err(Flaw::ListedTwice {
                    kind: definition.kind,
                    version: definition.version,
                });
            }
        }
        Ok(())
    }
}

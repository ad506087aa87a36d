//! What goes into the machine and what comes out of it: plain data, no state.

use serde::{Deserialize, Serialize};

use crate::progress::SagaState;

/// Whether a message does a step or undoes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Direction {
    /// Does the step.
    Request,
    /// Undoes the step.
    Compensation,
}

impl Direction {
    /// The word under which this direction is stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Request => "REQUEST",
            Self::Compensation => "COMPENSATION",
        }
    }
}

/// Something that happened to a saga.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Input {
    /// A participant answered. Which attempt it answers does not matter: a participant gives all attempts of
    /// one saga the same answer.
    Reply {
        step: usize,
        direction: Direction,
        outcome: Outcome,
    },
    /// The timer set for this attempt is due. A timer of an earlier attempt changes nothing.
    Timeout {
        step: usize,
        direction: Direction,
        attempt: u32,
    },
    /// The purpose of the saga is gone: whatever it did is to be undone.
    Abort { reason: String },
    /// A person looked at a parked saga and wants it tried again.
    Resume,
}

/// A participant's answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Done: the effect stands (request), or is gone (compensation).
    Proceed,
    /// Not done. To a request this promises that nothing was taken, nor ever will be for this saga.
    Refuse { reason: String },
}

/// Something to do on behalf of a saga, in the same commit that stores the saga.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Command {
    /// Publish to `topic`. A step's message in one direction never bears the same attempt twice.
    Send {
        step: usize,
        direction: Direction,
        attempt: u32,
        topic: &'static str,
    },
    /// Hand back [`Input::Timeout`] with these fields after this time. A saga has one timer: an earlier one
    /// is replaced.
    SetTimer {
        step: usize,
        direction: Direction,
        attempt: u32,
        after_millis: u64,
    },
    /// Remove the saga's timer.
    CancelTimer,
    /// The saga has ended, and will never change again.
    Finished { state: SagaState },
    /// The saga stands still and a person should look.
    Parked { reason: String },
}

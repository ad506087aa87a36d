//! The inputs and commands of the machine: plain data, no state.

use serde::{Deserialize, Serialize};

use crate::progress::SagaState;

/// Whether a message belongs to a step's request or to its compensation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Direction {
    Request,
    Compensation,
}

impl Direction {
    /// The stored name of this direction.
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
    /// A participant answered. The attempt does not matter: a participant gives all attempts of a saga the same answer.
    Reply {
        step: usize,
        direction: Direction,
        outcome: Outcome,
    },
    /// The timer of this attempt expired. A timer of an earlier attempt changes nothing.
    Timeout {
        step: usize,
        direction: Direction,
        attempt: u32,
    },
    /// The saga is no longer wanted: compensate it.
    Abort { reason: String },
    /// An operator retries a parked saga.
    Resume,
}

/// A participant's answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Done: the effect exists (request), or no longer exists (compensation).
    Proceed,
    /// Not done. For a request this promises that it has no effect, and never will have one for this saga.
    Refuse { reason: String },
}

/// An action for the caller to store in the same transaction as the saga.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Command {
    /// Publish to `topic`. The attempts of a step in one direction are numbered and never reused.
    Send {
        step: usize,
        direction: Direction,
        attempt: u32,
        topic: &'static str,
    },
    /// Process [`Input::Timeout`] with these fields after this time. A saga has one timer: this replaces an earlier one.
    SetTimer {
        step: usize,
        direction: Direction,
        attempt: u32,
        after_millis: u64,
    },
    /// Remove the saga's timer.
    CancelTimer,
    /// The saga has ended, and does not change any more.
    Finished { state: SagaState },
    /// The saga waits for an operator.
    Parked { reason: String },
}

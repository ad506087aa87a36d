//! The state of one saga, as it is stored: the only state of this crate.

use serde::{Deserialize, Serialize};

use crate::message::Direction;

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saga {
    /// [`crate::Definition::kind`].
    pub kind: String,
    /// [`crate::Definition::version`] at the start.
    pub definition_version: u32,
    pub state: SagaState,
    /// The steps begun so far, in the order of the definition.
    pub steps: Vec<StepProgress>,
    /// Why the saga compensates: the reason of the refusal or abort, or which step timed out.
    pub failure: Option<String>,
    /// Why the saga is parked; `None` if it is not.
    pub parked: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepProgress {
    pub name: String,
    pub state: StepState,
    /// The number of the latest message in the step's current direction, counted from 1 and never reused.
    pub attempt: u32,
    /// The retries since the direction began or an operator resumed it. Unlike `attempt`, it is reset by a resumption.
    #[serde(default)]
    pub retries: u32,
    /// The last refusal in the step's current direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// The last two states are terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SagaState {
    /// Requesting its steps.
    Started,
    /// Undoing its steps.
    Compensating,
    /// Every step that has a compensation is undone.
    Compensated,
    /// Every step succeeded.
    Completed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StepState {
    /// Requested; the outcome is unknown.
    Started,
    /// The participant agreed. A step without a compensation keeps this state if its saga compensates.
    Succeeded,
    /// The participant refused, or did not answer and there is no compensation.
    Failed,
    /// The compensation was sent; its outcome is unknown.
    Compensating,
    /// The participant confirmed that no effect is left.
    Compensated,
}

/// The reply that a saga waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pending {
    pub step: usize,
    pub direction: Direction,
    /// The latest attempt sent.
    pub attempt: u32,
}

impl Saga {
    /// The reply this saga waits for, parked or not; `None` if it has ended.
    #[must_use]
    pub fn pending(&self) -> Option<Pending> {
        let (outstanding, direction) = match self.state {
            SagaState::Started => (StepState::Started, Direction::Request),
            SagaState::Compensating => (StepState::Compensating, Direction::Compensation),
            SagaState::Compensated | SagaState::Completed => return None,
        };
        let step = self
            .steps
            .iter()
            .rposition(|progress| progress.state == outstanding)?;
        Some(Pending {
            step,
            direction,
            attempt: self.steps[step].attempt,
        })
    }

    /// Whether this saga waits for the reply of this step in this direction.
    pub(crate) fn waits_for(&self, step: usize, direction: Direction) -> bool {
        let is_of = |pending: Pending| (pending.step, pending.direction) == (step, direction);
        self.pending().is_some_and(is_of)
    }

    /// The name of the step that is requested or compensated; `None` if the saga has ended.
    #[must_use]
    pub fn current_step(&self) -> Option<&str> {
        self.pending()
            .map(|pending| self.steps[pending.step].name.as_str())
    }

    /// Whether the saga has ended, and does not change any more.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        self.state.is_terminal()
    }

    /// Whether the saga waits until a late reply or an operator moves it.
    #[must_use]
    pub const fn is_parked(&self) -> bool {
        self.parked.is_some()
    }
}

impl SagaState {
    /// Whether a saga in this state has ended.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Started | Self::Compensating => false,
            Self::Compensated | Self::Completed => true,
        }
    }

    /// The stored name of this state.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "STARTED",
            Self::Compensating => "COMPENSATING",
            Self::Compensated => "COMPENSATED",
            Self::Completed => "COMPLETED",
        }
    }
}

impl StepState {
    /// The stored name of this state.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "STARTED",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::Compensating => "COMPENSATING",
            Self::Compensated => "COMPENSATED",
        }
    }
}

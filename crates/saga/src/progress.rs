//! Where one saga stands: the state that is stored, and the only state there is.

use serde::{Deserialize, Serialize};

use crate::message::Direction;

/// One saga's whole state.
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
    /// Why the saga turned back: the refusal or the abort in its own words, or which step stayed silent.
    pub failure: Option<String>,
    /// Why the saga stands still; `None` while it moves by itself.
    pub parked: Option<String>,
}

/// How far one step has come.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepProgress {
    pub name: String,
    pub state: StepState,
    /// The number of the latest message sent in the step's present direction, counted from 1 and never reused.
    pub attempt: u32,
    /// How often that message was sent again since the direction began or a person resumed it. It is told from
    /// `attempt` so that resuming restores the retries without reusing a number.
    #[serde(default)]
    pub retries: u32,
    /// The last refusal in the step's present direction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<String>,
}

/// The four states of a saga; the last two are terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SagaState {
    /// On its way forward.
    Started,
    /// On its way back.
    Compensating,
    /// Everything that could be undone has been.
    Compensated,
    /// Every step succeeded.
    Completed,
}

/// The five states of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StepState {
    /// Requested; the outcome is unknown.
    Started,
    /// The participant agreed. A step that has no compensation keeps this state when its saga turns back.
    Succeeded,
    /// The participant refused, or stayed silent and there is nothing to undo.
    Failed,
    /// The compensation was sent; its outcome is unknown.
    Compensating,
    /// The participant confirmed that no effect stands.
    Compensated,
}

/// The answer that a saga waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pending {
    pub step: usize,
    pub direction: Direction,
    /// The latest attempt sent.
    pub attempt: u32,
}

impl Saga {
    /// The answer this saga waits for, parked or not; `None` when it has ended.
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

    /// The name of the step that is being done or undone; `None` when the saga has ended.
    #[must_use]
    pub fn current_step(&self) -> Option<&str> {
        self.pending()
            .map(|pending| self.steps[pending.step].name.as_str())
    }

    /// Whether the saga has ended, and can never change again.
    #[must_use]
    pub const fn is_terminal(&self) -> bool {
        self.state.is_terminal()
    }

    /// Whether the saga stands still until a late reply or a person moves it.
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

    /// The word under which this state is stored and shown.
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
    /// The word under which this state is stored and shown.
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

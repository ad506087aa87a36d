//! Errors of the machine: mistakes of a program or a contract, never a late message.

/// Saga, definition and input do not belong together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    #[error("the saga is a {saga}, the definition is for {definition}")]
    KindMismatch {
        saga: String,
        definition: &'static str,
    },
    #[error("the saga was started with version {saga}, the definition is version {definition}")]
    VersionMismatch { saga: u32, definition: u32 },
    #[error("the stored saga contradicts its definition: {0}")]
    Inconsistent(Inconsistency),
    #[error("step {step} does not exist, the definition has {steps}")]
    StepOutOfRange { step: usize, steps: usize },
    #[error("step {step} has no compensation, so none can be answered or time out")]
    NoCompensation { step: usize },
}

/// How a stored saga contradicts its definition: no sequence of inputs leads to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistency {
    #[error("{begun} steps were begun, the definition has {steps}")]
    StepCount { begun: usize, steps: usize },
    #[error("step {step} has another name")]
    StepName { step: usize },
    #[error("step {step} cannot be in its state while the saga is in its own")]
    StepState { step: usize },
    #[error("step {step} was begun and never sent")]
    NeverSent { step: usize },
    #[error("the saga waits for no step, or for several")]
    NoSinglePendingStep,
    #[error("the saga has ended and is parked")]
    ParkedAtTheEnd,
}

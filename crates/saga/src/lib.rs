#![doc = include_str!("../README.md")]

mod check;
mod definition;
mod illegal;
mod machine;
mod message;
mod progress;
mod validate;

pub use definition::{Backoff, Catalog, Definition, OnFailure, Step};
pub use illegal::{Illegal, Inconsistency};
pub use machine::{cancel_before_start, start, step};
pub use message::{Command, Direction, Input, Outcome};
pub use progress::{Pending, Saga, SagaState, StepProgress, StepState};
pub use validate::DefinitionError;

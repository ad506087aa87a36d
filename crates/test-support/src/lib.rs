//! What the test suites share. A dev-dependency only; it depends on no other crate of the workspace, so that every
//! crate's tests can use it. It owns the processes that it starts: dropping their owner ends them.
//!
//! - [`process`]: the program as a child process
//! - [`engines`]: PostgreSQL, Redis and Kafka servers, and names in them that no other test uses
//! - [`api`]: requests of the HTTP API and their answers; [`calls`]: a log of them
//! - [`buyer`]: the steps of a purchase; [`gateway`]: actions at the sandbox gateway
//! - [`eventually`]: polling with a timeout
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

pub mod api;
pub mod buyer;
pub mod calls;
pub mod engines;
mod eventually;
pub mod gateway;
pub mod process;

pub use eventually::{Polling, eventually};

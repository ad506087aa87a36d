//! Boxoffice from outside: over HTTP in this process, and as a program.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod door;
mod gateway;
mod guard;
mod logging;
mod older_folder;
mod operations;
mod owners;
mod program;
mod purchase;
mod reconcile;
mod support;
mod trace;

//! Boxoffice from outside: over HTTP in this process, and as the program that people start.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod door;
mod gateway;
mod guard;
mod logging;
mod operations;
mod owners;
mod program;
mod purchase;
mod reconcile;
mod support;
mod trace;

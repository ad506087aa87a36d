//! The contract of reservations, on the embedded backend, and what only that one promises.
#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

mod backend;
#[expect(dead_code, reason = "a part of it is for other suites")]
#[path = "../../../messaging/tests/common/line.rs"]
mod line;
mod memory;
#[expect(dead_code, reason = "a part of it is for other suites")]
#[path = "../../../messaging/tests/common/postgres.rs"]
mod postgres;
mod postgres_away;
mod suite;

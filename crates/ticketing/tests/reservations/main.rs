//! The contract of reservations, on the embedded backend, and what only that one promises.
#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

mod backend;
mod memory;
mod suite;

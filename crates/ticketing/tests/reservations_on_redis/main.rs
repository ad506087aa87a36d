//! The contract of reservations, on Redis, and what only that backend promises.
#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

mod backend;
#[path = "../common/redis.rs"]
mod redis_place;
#[path = "../reservations/suite.rs"]
mod suite;

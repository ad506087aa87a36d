//! The contract of reservations, on Redis, and what only that backend promises.
#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

mod away;
mod backend;
mod losses;
mod rebuilders;
#[path = "../common/redis.rs"]
mod redis_place;
mod snapshot;
#[path = "../reservations/suite.rs"]
mod suite;
mod tls;

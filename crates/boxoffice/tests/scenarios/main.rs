//! The system as its users and operators see it: stories over HTTP on a port of the system's choice, under a clock that
//! stands still. Each story is played on every deployment, and ends with an audit that finds nothing.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod cancelling;
mod clocks;
mod compensations;
mod complaints;
mod dead_letters;
mod deployment;
mod deposits;
mod desk;
#[cfg(feature = "kafka")]
mod distributed;
mod end_state;
mod gateway;
mod house;
mod keys;
mod ladder;
mod lapses;
mod late_money;
mod mutations;
mod paying;
#[cfg(feature = "kafka")]
#[path = "../../../messaging/tests/common/postgres.rs"]
#[expect(dead_code, reason = "a house makes its schema itself")]
mod postgres_place;
mod purchase;
mod quantities;
#[path = "../../../ticketing/tests/common/redis.rs"]
#[expect(dead_code, reason = "no story loses what is in Redis")]
mod redis_place;
mod refusals;
mod restarts;
mod silence;
mod webhooks;

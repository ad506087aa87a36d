//! The system as its users and operators see it: scenarios over HTTP with a manual clock. Each scenario runs on every
//! deployment and ends with an audit without violations.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod actions;
mod cancellations;
mod clocks;
mod compensations;
mod complaints;
mod dead_letters;
mod deployment;
mod deposits;
mod end_state;
#[cfg(feature = "kafka")]
mod engine_namespace;
mod expiry;
mod gateway;
mod idempotency;
mod late_payments;
mod mutations;
mod payments;
#[cfg(feature = "kafka")]
#[path = "../../../messaging/tests/common/postgres.rs"]
#[expect(dead_code, reason = "an engine namespace creates its schema itself")]
mod postgres_place;
mod purchase;
mod quantities;
#[path = "../../../ticketing/tests/common/redis.rs"]
#[expect(dead_code, reason = "no scenario empties Redis")]
mod redis_place;
mod refusals;
mod restarts;
mod silent_participant;
mod test_app;
mod unknown_outcome;
mod webhooks;

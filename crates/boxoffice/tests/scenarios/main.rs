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
mod purchase;
mod quantities;
mod refusals;
mod restarts;
mod silent_participant;
mod test_app;
mod unknown_outcome;
mod webhooks;

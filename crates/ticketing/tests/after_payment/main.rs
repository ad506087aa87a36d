//! After the payment: late payments, refunds that cancel their tickets, and tickets that their buyers cancel.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

mod backend;
mod cancelling;
#[path = "../common/cuttable_schema.rs"]
mod cuttable_schema;
mod foreign;
mod history;
mod idempotency_keys;
mod late_payments;
#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../../../messaging/tests/common/line.rs"]
mod line;
#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../../../messaging/tests/common/postgres.rs"]
mod postgres;
mod postgres_away;
mod refunds;
mod test_app;

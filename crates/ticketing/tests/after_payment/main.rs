//! After the payment: late payments, refunds that cancel their tickets, and tickets that their buyers cancel.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

mod backend;
mod cancelling;
mod foreign;
mod history;
mod idempotency_keys;
mod late_payments;
mod refunds;
mod test_app;

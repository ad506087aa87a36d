//! After the payment, with the reservations on Redis.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

mod backend;
#[path = "../after_payment/cancelling.rs"]
mod cancelling;
#[path = "../after_payment/history.rs"]
mod history;
#[path = "../after_payment/idempotency_keys.rs"]
mod idempotency_keys;
#[path = "../after_payment/late_payments.rs"]
mod late_payments;
mod losses;
mod races;
#[path = "../common/redis.rs"]
mod redis_place;
#[path = "../after_payment/refunds.rs"]
mod refunds;
#[path = "../after_payment/test_app.rs"]
mod test_app;

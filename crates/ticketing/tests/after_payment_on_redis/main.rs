//! After the payment, with the reservations on Redis.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

mod backend;
#[path = "../after_payment/cancelling.rs"]
mod cancelling;
#[path = "../common/cuttable_schema.rs"]
mod cuttable_schema;
#[path = "../after_payment/history.rs"]
mod history;
#[path = "../after_payment/idempotency_keys.rs"]
mod idempotency_keys;
#[path = "../after_payment/late_payments.rs"]
mod late_payments;
#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../../../messaging/tests/common/line.rs"]
mod line;
mod losses;
#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../../../messaging/tests/common/postgres.rs"]
mod postgres;
#[path = "../after_payment/postgres_away.rs"]
mod postgres_away;
mod races;
#[path = "../common/redis.rs"]
mod redis_place;
#[path = "../after_payment/refunds.rs"]
mod refunds;
mod slow_redis;
#[path = "../after_payment/test_app.rs"]
mod test_app;

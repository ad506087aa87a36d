//! What comes after a payment, with the reservations on Redis.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod backend;
#[path = "../after_payment/cancelling.rs"]
mod cancelling;
#[path = "../after_payment/history.rs"]
mod history;
#[path = "../after_payment/house.rs"]
mod house;
#[path = "../after_payment/keys.rs"]
mod keys;
#[path = "../after_payment/late_money.rs"]
mod late_money;
mod losses;
mod races;
#[path = "../common/redis.rs"]
mod redis_place;
#[path = "../after_payment/refunds.rs"]
mod refunds;

//! What comes after a payment: tickets taken again for late money, tickets that go with their money, and tickets that
//! their buyers give back.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod backend;
mod cancelling;
mod foreign;
mod history;
mod house;
mod keys;
mod late_money;
mod refunds;

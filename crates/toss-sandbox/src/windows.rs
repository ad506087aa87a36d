//! The time windows of a payment: how long it may stay in each state before it expires. Pure.
//!
//! Source of the first two: <https://docs.tosspayments.com/resources/glossary/payment-flow>.

use jiff::{SignedDuration, Timestamp};

/// From the request to the buyer's authentication: 30 minutes.
const AUTHENTICATION_SECS: i64 = 30 * 60;
/// From the authentication to the merchant's confirm: 10 minutes.
const CONFIRM_SECS: i64 = 10 * 60;
/// The default deadline of a deposit: 7 days.
pub(super) const DEPOSIT_SECS: i64 = 7 * 24 * 60 * 60;
/// The longest deadline of a deposit: 30 days, as at the live gateway.
pub(super) const DEPOSIT_SECS_MAX: i64 = 30 * 24 * 60 * 60;

pub(super) fn authenticate_by(now: Timestamp) -> Timestamp {
    now + SignedDuration::from_secs(AUTHENTICATION_SECS)
}

pub(super) fn confirm_by(now: Timestamp) -> Timestamp {
    now + SignedDuration::from_secs(CONFIRM_SECS)
}

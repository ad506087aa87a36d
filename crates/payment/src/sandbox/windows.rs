//! How long a payment may wait at each place before it expires. Pure.
//!
//! Source of the first two: <https://docs.tosspayments.com/resources/glossary/payment-flow>.

use contract::Timestamp;

/// From the request to the buyer's authentication: 30 minutes.
const AUTHENTICATION_SECS: i64 = 30 * 60;
/// From the authentication to the merchant's confirm: 10 minutes.
const CONFIRM_SECS: i64 = 10 * 60;
/// How long a virtual account waits for its money, where nobody says otherwise: 7 days.
pub(super) const DEPOSIT_SECS: i64 = 7 * 24 * 60 * 60;
/// The longest that one may be told to wait: 30 days, as at the live gateway.
pub(super) const DEPOSIT_SECS_MAX: i64 = 30 * 24 * 60 * 60;

pub(super) fn of_request(now: Timestamp) -> Timestamp {
    now.plus_secs(AUTHENTICATION_SECS)
}

pub(super) fn of_authentication(now: Timestamp) -> Timestamp {
    now.plus_secs(CONFIRM_SECS)
}

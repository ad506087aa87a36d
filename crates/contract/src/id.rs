//! Names of things. Events and users are counted (64-bit integers); everything that is made under load is a
//! UUID of version 7, which sorts by the time it was made and so stays together in an index.

use messaging::{integer_id, uuid_id};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{SagaId, Timestamp};

pub use messaging::id::{InvalidId, derive, digest};

/// A reservation from its first moment, and the ticket issued for it later.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
pub struct TicketId(pub Uuid);
uuid_id!(TicketId);

/// A payment; the gateway knows it as `orderId`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
pub struct PaymentId(pub Uuid);
uuid_id!(PaymentId);

/// A show on sale.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
pub struct EventId(pub i64);
integer_id!(EventId);

/// A buyer.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(transparent)]
pub struct UserId(pub i64);
integer_id!(UserId);

impl TicketId {
    /// The name of a reservation that a keyed request asks for. The last 48 bits are `request`'s, the others are
    /// `fresh`'s: who is asked the same again tells the reservation by its end, and no two of them have one name. The
    /// version is 8, so that an end of pure chance is never taken for a request.
    #[must_use]
    pub fn of_request(fresh: Uuid, request: [u8; 6]) -> Self {
        let mut bytes = *fresh.as_bytes();
        bytes[10..].copy_from_slice(&request);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// Whether both were asked for by the same request.
    #[must_use]
    pub fn is_of_same_request(self, other: Self) -> bool {
        let is_of_request = self.0.get_version_num() == 8 && other.0.get_version_num() == 8;
        is_of_request && self.0.as_bytes()[10..] == other.0.as_bytes()[10..]
    }

    /// The second of its making: every ticket's name begins with its time.
    #[must_use]
    pub fn second(self) -> u64 {
        (self.0.as_u128() >> 80) as u64 / 1000
    }

    /// `at`, or as long after `now` as it was after this ticket was named: where the clock was set back since, what
    /// waits until then waits no longer than it was meant to.
    #[must_use]
    pub fn no_later_than(self, at: Timestamp, now: Timestamp) -> Timestamp {
        let named_millis = i64::try_from(self.second() * 1000).unwrap_or(i64::MAX);
        let meant_millis = at.millis_since(Timestamp::from_millis(named_millis));
        at.min(now.plus_millis(meant_millis))
    }

    /// The saga that buys this ticket: one ticket, one purchase.
    #[must_use]
    pub fn purchase_saga(self) -> SagaId {
        SagaId(derive(self.0, "ticketing.process"))
    }

    /// The saga that takes back an unpaid purchase of this ticket.
    #[must_use]
    pub fn expire_saga(self) -> SagaId {
        SagaId(derive(self.0, "ticketing.expire"))
    }

    /// The saga of one try to give this ticket back, counted from 1.
    #[must_use]
    pub fn cancel_saga(self, cancellation: u32) -> SagaId {
        SagaId(derive(self.0, &format!("ticketing.cancel:{cancellation}")))
    }
}

impl PaymentId {
    /// The payment that a saga's `payment.create.request` makes. It is known before any reply, so that a compensation
    /// can name a payment whose creation was not confirmed.
    #[must_use]
    pub fn of_saga(saga: SagaId) -> Self {
        Self(derive(saga.0, "payment"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_told_by_its_request_and_yet_has_a_name_of_its_own() {
        let [one, other] = [
            "0192f0c1-2f00-7abc-8def-0123456789ab",
            "0192f0c1-3f00-7abc-9def-0123456789ab",
        ]
        .map(|text| Uuid::parse_str(text).unwrap());
        let first = TicketId::of_request(one, *b"thekey");
        let again = TicketId::of_request(other, *b"thekey");
        assert_ne!(first, again);
        assert!(first.is_of_same_request(again));
        assert!(!first.is_of_same_request(TicketId::of_request(other, *b"others")));
        assert!(
            !TicketId(one).is_of_same_request(TicketId(other)),
            "equal ends of chance are no request"
        );
        assert_eq!(first.second(), 0x0192_f0c1_2f00 / 1000);
        assert_eq!(first.second(), TicketId(one).second());
    }

    #[test]
    fn what_waits_is_not_kept_longer_by_a_clock_that_was_set_back() {
        let at = |millis: i64| Timestamp::from_millis(1_800_000_000_000 + millis);
        let named = uuid::Builder::from_unix_timestamp_millis(1_800_000_000_000, &[7; 10]);
        let ticket = TicketId(named.into_uuid());
        for (now, ends) in [(0, 90), (50, 90), (200, 90), (-1_000, -910)] {
            assert_eq!(ticket.no_later_than(at(90), at(now)), at(ends), "{now}");
        }
    }

    #[test]
    fn a_malformed_id_is_refused() {
        assert!("not-a-uuid".parse::<TicketId>().is_err());
        assert!("12x".parse::<EventId>().is_err());
        assert_eq!("12".parse::<EventId>(), Ok(EventId(12)));
    }
}

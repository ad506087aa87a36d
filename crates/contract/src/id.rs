//! Names of things. Events and users are counted (64-bit integers); everything that is made under load is a
//! UUID of version 7, which sorts by the time of its making and so stays together in an index.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::Timestamp;

/// Why a text is not an id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{text:?} is not a {kind}")]
pub struct InvalidId {
    kind: &'static str,
    text: String,
}

macro_rules! uuid_id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = || InvalidId { kind: "UUID", text: text.to_owned() };
                Uuid::parse_str(text).map($name).map_err(|_| invalid())
            }
        }
    )+};
}

macro_rules! integer_id {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let invalid = || InvalidId { kind: "64-bit integer", text: text.to_owned() };
                text.parse().map($name).map_err(|_| invalid())
            }
        }
    )+};
}

uuid_id! {
    /// A reservation from its first moment, and the ticket issued for it later.
    TicketId,
    /// A saga, and the correlation and key of every request it sends.
    SagaId,
    /// A payment; the gateway knows it as `orderId`.
    PaymentId,
    /// A message that a consumer could not handle.
    DeadLetterId,
}

integer_id! {
    /// A show on sale.
    EventId,
    /// A buyer.
    UserId,
}

/// Makes a stable UUID out of another one and a label.
///
/// Whoever derives again gets the same id, so deciding twice names the same thing twice. The time stamp of
/// `parent` is kept, so that derived ids sort beside it; the other bits are a SHA-256 of both. The version is 8
/// (RFC 9562, section 5.8: vendor-specific).
#[must_use]
pub fn derive(parent: Uuid, label: &str) -> Uuid {
    let digest = Sha256::new()
        .chain_update(parent.as_bytes())
        .chain_update(label.as_bytes())
        .finalize();
    let mut bytes = [0_u8; 16];
    bytes[..6].copy_from_slice(&parent.as_bytes()[..6]);
    bytes[6..].copy_from_slice(&digest[..10]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

/// A stable UUID for a text, of version 8 as in [`derive`]; all other bits are a SHA-256 of it.
#[must_use]
pub fn digest(text: &str) -> Uuid {
    let digest = Sha256::digest(text);
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}

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

impl SagaId {
    /// The payment that this saga's `payment.create.request` makes. It is known before any answer came, so that
    /// a compensation can name a payment whose creation it has not heard of.
    #[must_use]
    pub fn payment(self) -> PaymentId {
        PaymentId(derive(self.0, "payment"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derived_ids_are_stable_distinct_and_sort_with_their_parent() {
        let parent = Uuid::parse_str("0192f0c1-2f00-7abc-8def-0123456789ab").unwrap();
        let one = derive(parent, "one");
        assert_eq!(one, derive(parent, "one"));
        assert_ne!(one, derive(parent, "two"));
        assert_eq!(one.as_bytes()[..6], parent.as_bytes()[..6]);
        assert_eq!(one.get_version_num(), 8);
    }

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

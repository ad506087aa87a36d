//! Reserve: take a ticket first, with a deadline. The answer comes when the reservation is durable.

use contract::{EventId, TicketId, Timestamp, UserId};
use messaging::Commit;

use crate::{
    Service,
    reservations::{Granted, Refusal, Wish},
};

pub use crate::reservations::Error;

/// A reservation in the making: everything that the answer says is known before the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserving {
    pub event_id: EventId,
    pub user_id: UserId,
    pub ticket_id: TicketId,
    pub expires_at: Timestamp,
}

impl Reserving {
    /// The same, asked for by a keyed request: asked again, it is granted what it was granted before.
    #[must_use]
    pub fn of_request(self, request: [u8; 6]) -> Self {
        Self {
            ticket_id: TicketId::of_request(self.ticket_id.0, request),
            ..self
        }
    }

    /// What came of it.
    #[must_use]
    pub fn granted(self, granted: Granted) -> Self {
        match granted {
            Granted::Now => self,
            Granted::Before {
                ticket_id,
                expires_at,
            } => Self {
                ticket_id,
                expires_at,
                ..self
            },
        }
    }
}

impl Service {
    /// Names a reservation that is still to be decided.
    #[must_use]
    pub fn reserving(&self, event_id: EventId, user_id: UserId) -> Reserving {
        let now = self.0.clock.now();
        Reserving {
            event_id,
            user_id,
            ticket_id: TicketId(self.0.random.uuid(now)),
            expires_at: now.plus_secs(self.0.settings.hold_ttl_secs),
        }
    }

    /// Decides, and waits until a grant is durable, together with `also`. Where the same request was granted a
    /// reservation before, it is granted that, and nothing of `also` is stored. Dropping the future undoes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] where there is no ticket for this user; [`Error::Commit`] where the grant was not stored.
    pub async fn reserve(&self, reserving: Reserving, also: Commit) -> Result<Granted, Error> {
        let Reserving {
            event_id,
            user_id,
            ticket_id,
            expires_at,
        } = reserving;
        let lapses_at = expires_at.plus_secs(self.0.settings.hold_grace_secs);
        let wish = Wish {
            event_id,
            user_id,
            ticket_id,
            expires_at,
            lapses_at,
            also,
        };
        let now = self.0.clock.now();
        let reserved = self.0.reservations.reserve(wish, now).await;
        fail::fail_point!("ticketing.after_grant", reserved.is_ok(), |_| {
            std::process::abort()
        });
        match &reserved {
            Ok(Granted::Now) => self.0.metrics.reservation("granted"),
            Ok(Granted::Before { .. }) => self.0.metrics.reservation("granted_before"),
            Err(Error::Refused(refusal)) => self.0.metrics.reservation(outcome(*refusal)),
            Err(Error::Commit(_)) => {}
        }
        reserved
    }
}

const fn outcome(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::EventNotFound => "event_not_found",
        Refusal::AlreadyReserved => "already_reserved",
        Refusal::AlreadyPurchased => "already_purchased",
        Refusal::SaleNotOpen => "sale_not_open",
        Refusal::SoldOut => "sold_out",
        Refusal::Rebuilding => "rebuilding",
    }
}

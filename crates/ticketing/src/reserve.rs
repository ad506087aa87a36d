//! Reserve: the first step of a purchase takes a ticket, with a deadline. The answer comes when the reservation is
//! durable.

use contract::{EventId, TicketId, UserId};
use messaging::Commit;

use crate::{
    Service,
    reservations::{ClaimId, Deadlines, Granted, Refusal, ReserveRequest},
};

pub use crate::reservations::Error;

impl Service {
    /// A request for a ticket of this event, with a new ticket id, the deadlines of the settings, and nothing to commit.
    #[must_use]
    pub fn reserve_request(&self, event_id: EventId, user_id: UserId) -> ReserveRequest {
        let now = self.0.clock.now();
        let expires_at = now.plus_secs(self.0.settings.hold_ttl_secs);
        ReserveRequest {
            claim: ClaimId {
                event_id,
                user_id,
                ticket_id: TicketId(self.0.random.uuid(now)),
            },
            deadlines: Deadlines {
                expires_at,
                lapses_at: expires_at.plus_secs(self.0.settings.hold_grace_secs),
            },
            also: Commit::new(),
        }
    }

    /// Decides the request, and returns when a grant is durable. Dropping the future undoes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no ticket for this user; [`Error::Commit`] if the grant was not stored.
    pub async fn reserve(&self, request: ReserveRequest) -> Result<Granted, Error> {
        let now = self.0.clock.now();
        let reserved = self.0.reservations.reserve(request, now).await;
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

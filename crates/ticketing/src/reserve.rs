//! Reserve: the first step of a purchase takes a ticket, with a deadline. The answer comes when the reservation is
//! durable.

use contract::{EventId, TicketId, Timestamp, UserId};
use messaging::Commit;

use crate::{
    Service,
    reservations::{ClaimId, Deadlines, Granted, Refusal, ReserveRequest},
};

pub use crate::reservations::Error;

#[derive(Debug, Clone, Copy)]
pub struct ReserveInput {
    pub event_id: EventId,
    pub user_id: UserId,
    /// Digest of a keyed request: if it is repeated, it is granted the same reservation.
    pub request_digest: Option<[u8; 6]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReserveOutput {
    pub ticket_id: TicketId,
    pub expires_at: Timestamp,
}

impl Service {
    /// Reserves a ticket. `answer` may add to the Commit what must become durable with the reservation; it is called again
    /// if the same request was granted a reservation before. `saved` is the ticket of the request's saved answer and that
    /// answer, which is returned while the reservation exists. Dropping the future undoes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no ticket for this user; [`Error::Commit`] if the grant was not stored.
    pub async fn reserve<T>(
        &self,
        input: ReserveInput,
        saved: Option<(TicketId, T)>,
        answer: impl Fn(&mut Commit, &ReserveOutput) -> T,
    ) -> Result<T, Error> {
        if let Some((ticket_id, saved)) = saved {
            let reservations = &self.0.reservations;
            let found = reservations.find(input.event_id, input.user_id).await?;
            if found.is_some_and(|found| found.ticket_id == ticket_id) {
                return Ok(saved);
            }
        }
        let mut request = self.request(input);
        let output = ReserveOutput {
            ticket_id: request.claim.ticket_id,
            expires_at: request.deadlines.expires_at,
        };
        let new = answer(&mut request.also, &output);
        match self.decide(request).await? {
            Granted::Now => Ok(new),
            Granted::Before {
                ticket_id,
                expires_at,
            } => {
                let output = ReserveOutput {
                    ticket_id,
                    expires_at,
                };
                let mut commit = Commit::new();
                let answer = answer(&mut commit, &output);
                self.0.store.commit(commit).await?;
                Ok(answer)
            }
        }
    }

    /// A request with a new ticket id, the deadlines of the settings, and nothing to commit.
    fn request(&self, input: ReserveInput) -> ReserveRequest {
        let now = self.0.clock.now();
        let expires_at = now.plus_secs(self.0.settings.hold_ttl_secs);
        let request = ReserveRequest {
            claim: ClaimId {
                event_id: input.event_id,
                user_id: input.user_id,
                ticket_id: TicketId(self.0.random.uuid(now)),
            },
            deadlines: Deadlines {
                expires_at,
                lapses_at: expires_at.plus_secs(self.0.settings.hold_grace_secs),
            },
            also: Commit::new(),
        };
        match input.request_digest {
            Some(digest) => request.keyed(digest),
            None => request,
        }
    }

    /// Returns when a grant is durable.
    async fn decide(&self, request: ReserveRequest) -> Result<Granted, Error> {
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

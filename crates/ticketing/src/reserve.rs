//! Reserve: the first step of a purchase takes a ticket, with a deadline. The answer comes when the reservation is
//! durable.
//!
//! **A repeated `POST /ticketing/reserve`** (same `Idempotency-Key`, buyer and body) gets the same reservation as long as
//! that stands, and otherwise a new one:
//!
//! 1. `web::idempotency::idempotent` refuses it with 409 while the first request runs in this process. The answer of a
//!    reservation is saved as revisable (`IdempotentRequest::revisable_answer`), so it is not replayed yet: the handler
//!    gets it (`saved`), with a digest of key and request (`short_digest`).
//! 2. [`Service::reserve`] returns the saved answer if its ticket is still this user's claim (`Reservations::find`).
//! 3. Otherwise the reservation has ended, or its answer is not saved: its caller left before it was, or a process died
//!    between the grant by Redis and the Commit. A ticket is requested whose id ends with the digest:
//!    [`TicketId::of_request`] writes it into the last 48 bits, and marks the id as UUID version 8, so that a random end is
//!    never taken for a digest.
//! 4. `Stock::reserve` or `reserve.lua` decides: [`Granted::Now`]; if a waiting claim's id ends with the same digest
//!    (`TicketId::is_of_same_request`), [`Granted::Before`] with that claim; or a [`Refusal`].
//! 5. [`Granted::Before`] is answered with the first ticket, and that answer is committed alone. If another process commits
//!    its answer to the key first, the Commit conflicts, and `idempotent` replays the answer of the other.
//!
//! The first grant's Commit may still fail after step 4. In memory, `Local::check_stored` waits for its outcome, and no
//! purchase begins before. Redis undoes a grant only by the `lapses_at` that it was granted with (`undo_grant.lua`), and
//! granting again moves that by a millisecond: a claim that was granted again stays. So does one that a purchase has begun
//! with: other requests of the user find it.

use contract::{EventId, TicketId, Timestamp, UserId};
use messaging::Commit;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    Service,
    reservations::{ClaimId, Deadlines, Granted, Refusal, ReserveRequest},
};

pub use crate::reservations::Error;

#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ReserveRequest)]
pub struct ReserveInput {
    pub event_id: EventId,
    pub user_id: UserId,
    /// Digest of a keyed request: if it is repeated, it is granted the same reservation.
    #[serde(skip)]
    pub request_digest: Option<[u8; 6]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = ReserveAnswer)]
pub struct ReserveOutput {
    /// Identifies the reservation, and the ticket issued for it later.
    pub ticket_id: TicketId,
    /// The deadline for payment.
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
        let Granted::Before(first) = self.decide(request).await? else {
            return Ok(new);
        };
        let mut commit = Commit::new();
        let again = answer(&mut commit, &first);
        self.0.store.commit(commit).await?;
        Ok(again)
    }

    /// A request with a new ticket id, the deadlines of the settings, and nothing to commit.
    fn request(&self, input: ReserveInput) -> ReserveRequest {
        let now = self.0.clock.now();
        let expires_at = now.plus_secs(self.0.settings.hold_ttl_secs);
        let fresh = self.0.random.uuid(now);
        let of_request = |digest| TicketId::of_request(fresh, digest);
        ReserveRequest {
            claim: ClaimId {
                event_id: input.event_id,
                user_id: input.user_id,
                ticket_id: input.request_digest.map_or(TicketId(fresh), of_request),
            },
            deadlines: Deadlines {
                expires_at,
                lapses_at: expires_at.plus_secs(self.0.settings.hold_grace_secs),
            },
            also: Commit::new(),
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
            Ok(Granted::Before(_)) => self.0.metrics.reservation("granted_before"),
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

//! Claims: how one is identified, requested, granted, read, expired and proved. Values only; the backends own the state.

use contract::{EventId, Money, TicketId, Timestamp, UserId};
use messaging::{Commit, CommitError, CommitOutcome, Fence, Records, Rejection, StoreError};

use super::Refusal;
use crate::{
    model::{AgreedPrice, ReservationRecord, ReservationState},
    reserve::ReserveOutput,
};

/// Identifies one claim: one ticket of one user. Another claim of the same user has another ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClaimId {
    pub event_id: EventId,
    pub user_id: UserId,
    pub ticket_id: TicketId,
}

impl From<&ReservationRecord> for ClaimId {
    fn from(row: &ReservationRecord) -> Self {
        Self {
            event_id: row.event_id,
            user_id: row.user_id,
            ticket_id: row.ticket_id,
        }
    }
}

/// When an unpaid claim ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// The buyer's deadline: later payments are refused.
    pub expires_at: Timestamp,
    /// A grace period later: the claim expires, and its ticket is on sale again.
    pub lapses_at: Timestamp,
}

/// What a backend keeps of a claim, beside whose it is and its state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Claim {
    pub ticket_id: TicketId,
    pub deadlines: Deadlines,
    /// `None` if none was agreed: the price of the sale counts.
    pub price: Option<AgreedPrice>,
}

impl Claim {
    /// A claim without an agreed price that ends at this time.
    pub fn until(ticket_id: TicketId, lapses_at: Timestamp) -> Self {
        Self {
            ticket_id,
            deadlines: Deadlines {
                expires_at: lapses_at,
                lapses_at,
            },
            price: None,
        }
    }

    pub fn reserved(&self) -> ReserveOutput {
        ReserveOutput {
            ticket_id: self.ticket_id,
            expires_at: self.deadlines.expires_at,
        }
    }

    /// The reservation that its user sees, of a sale at this price.
    pub fn reservation(&self, state: ReservationState, price: Option<Money>) -> Reservation {
        Reservation {
            ticket_id: self.ticket_id,
            state,
            expires_at: self.deadlines.expires_at,
            price: self.price.map_or(price, AgreedPrice::price),
        }
    }
}

/// Requests one ticket.
#[derive(Debug)]
pub struct ReserveRequest {
    pub claim: ClaimId,
    pub deadlines: Deadlines,
    /// Committed with the grant.
    pub also: Commit,
}

/// How a request was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// As requested, and `also` is stored.
    Now,
    /// The same keyed request was granted this claim before, and its answer may have been lost. `also` is not stored.
    Before(ReserveOutput),
}

/// A user's reservation for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    pub ticket_id: TicketId,
    pub state: ReservationState,
    pub expires_at: Timestamp,
    pub price: Option<Money>,
}

/// A waiting claim whose `lapses_at` has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueClaim {
    pub claim: ClaimId,
    /// Part of the id of the message about this expiry: a claim that Redis lost and that was rebuilt may expire again.
    pub lapses_at: Timestamp,
}

/// What one call of `expire` did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExpiredClaims {
    /// Their tickets are on sale again.
    pub freed: Vec<ClaimId>,
    /// Their purchase has begun: they stay until `ticketing.release` frees them, and are due again every minute.
    pub closing: Vec<ClaimId>,
}

impl ExpiredClaims {
    /// Claims by the outcome of the Commit about each, and why one was not stored. `ended` tells whether each is freed.
    pub(super) fn by_outcome(
        ended: impl Iterator<Item = (ClaimId, bool)>,
        outcomes: Vec<CommitOutcome>,
    ) -> (Self, Option<StoreError>) {
        let (mut expired, mut failure) = (Self::default(), None);
        for ((claim, is_freed), outcome) in ended.zip(outcomes) {
            match outcome {
                Ok(()) if is_freed => expired.freed.push(claim),
                Ok(()) => expired.closing.push(claim),
                Err(error) => failure = Some(Error::from(error).into()),
            }
        }
        (expired, failure)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.freed.is_empty() && self.closing.is_empty()
    }
}

/// The result of completing a claim.
#[derive(Debug, Clone)]
pub enum Completion {
    /// The claim is completed, now or before. The Commit that issues its ticket must carry the proof.
    Completed(ClaimProof),
    /// The claim has expired or was released.
    Gone,
}

/// Ties the Commit that issues a ticket to its completed claim.
#[derive(Debug, Clone)]
pub enum ClaimProof {
    /// The completed row, to be stored with the ticket. Its version is 0: the stored row's version counts.
    Row(ReservationRecord),
    /// The event's epoch when Redis answered: a rebuild since then fences the Commit.
    Fence(Fence),
}

impl ClaimProof {
    /// Makes `commit` complete the claim durably, or fail if the claim may have been lost. Returns whether the claim was
    /// retaken: it had expired, so it has no stored row.
    ///
    /// # Errors
    /// A [`Rejection`] if the stored row cannot be read.
    pub fn attach_to(&self, commit: &mut Commit, records: &Records) -> Result<bool, Rejection> {
        match self {
            Self::Row(completed) => {
                let stored: Option<ReservationRecord> = records.get(completed.ticket_id)?;
                let is_retaken = stored.is_none();
                // The stored deadlines stay: those in memory may be corrected for a clock that was set back.
                commit.put(&stored.map_or_else(
                    || completed.clone(),
                    |stored| ReservationRecord {
                        state: completed.state,
                        ..stored
                    },
                ));
                Ok(is_retaken)
            }
            Self::Fence(fence) => {
                commit.fenced_by(fence.clone());
                Ok(false)
            }
        }
    }

    /// Makes `commit` remove the claim's row instead, because no ticket is issued for it.
    pub fn discard(self, commit: &mut Commit) {
        match self {
            Self::Row(completed) => commit.remove::<ReservationRecord>(completed.ticket_id),
            Self::Fence(fence) => commit.fenced_by(fence),
        };
    }
}

/// Why the reservations did not do what was requested.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The change was undone, or never made. If it [may be applied](CommitError::may_be_applied), it stands until its
    /// outcome is known.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

/// For consumers, which retry: a refusal that passes is an unavailable store.
impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        match error {
            Error::Commit(CommitError::Store(error)) => error,
            error => Self::Unavailable(error.to_string()),
        }
    }
}

/// An event's numbers at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    pub quantity: i64,
    pub waiting: i64,
    pub completed: i64,
    /// `quantity - waiting - completed`; negative after the quantity was lowered below what is claimed.
    pub available: i64,
}

impl Stats {
    pub(super) const fn new(quantity: i64, waiting: i64, completed: i64) -> Self {
        Self {
            quantity,
            waiting,
            completed,
            available: quantity - waiting - completed,
        }
    }
}

//! Claims: how one is identified, requested, granted, read, expired and proved. Values only; the backends own the state.

use contract::{EventId, Money, TicketId, Timestamp, UserId};
use messaging::{Commit, CommitError, Fence, Record as _, Records, Rejection, StoreError};

use super::Refusal;
use crate::model::{AgreedPrice, ReservationRecord, ReservationState};

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

/// Requests one ticket.
#[derive(Debug)]
pub struct ReserveRequest {
    pub claim: ClaimId,
    pub deadlines: Deadlines,
    /// Committed with the grant.
    pub also: Commit,
}

impl ReserveRequest {
    /// The same request under an idempotency key: repeated, it is granted the same claim while that waits.
    #[must_use]
    pub fn keyed(mut self, digest: [u8; 6]) -> Self {
        self.claim.ticket_id = TicketId::of_request(self.claim.ticket_id.0, digest);
        self
    }
}

/// How a request was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// As requested, and `also` is stored.
    Now,
    /// The same keyed request was granted this claim before, and its answer may have been lost. `also` is not stored.
    Before {
        ticket_id: TicketId,
        expires_at: Timestamp,
    },
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
    /// Makes `commit` complete the claim durably, or fail if the claim may have been lost.
    ///
    /// # Errors
    /// A [`Rejection`] if the stored row cannot be read.
    pub fn attach_to(&self, commit: &mut Commit, records: &Records) -> Result<(), Rejection> {
        match self {
            Self::Row(completed) => {
                // A claim that was retaken has no stored row.
                let stored: Option<ReservationRecord> = records.get(completed.ticket_id)?;
                commit.put(&ReservationRecord {
                    version: stored.map_or(0, |stored| stored.version),
                    ..completed.clone()
                });
            }
            Self::Fence(fence) => {
                commit.fenced_by(fence.clone());
            }
        }
        Ok(())
    }

    /// Makes `commit` remove the claim's row instead, because no ticket is issued for it.
    pub fn discard(self, commit: &mut Commit) {
        match self {
            Self::Row(completed) => commit.remove::<ReservationRecord>(completed.ticket_id),
            Self::Fence(fence) => commit.fenced_by(fence),
        };
    }
}

/// Whether this Commit stores a claim that had no row: it had expired, and was retaken for a late payment.
#[must_use]
pub fn stores_retaken_claim(commit: &Commit) -> bool {
    let mut rows = commit.puts.iter();
    rows.any(|put| put.table.name == ReservationRecord::TABLE.name && put.expected == 0)
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

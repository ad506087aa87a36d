//! Reservations: one atomic operation decides who gets a ticket. A closed choice of backends, matched here only.
//!
//! `available = quantity - waiting - completed` holds at every moment.

mod local;
mod stock;

use contract::{EventId, Money, TicketId, Timestamp, UserId};
use messaging::{Commit, Receipt, Store, StoreError};

use crate::model::{Allocation, Reservation, ReservationState};

pub use local::Local;
pub use stock::{Refusal, Stock};

/// The state of all reservations; clones share it.
#[derive(Clone)]
pub enum Reservations {
    /// In memory, owned by one writer, made durable by the store's group commit.
    Local(Local),
}

/// A wish for one ticket.
#[derive(Debug)]
pub struct Wish {
    pub event_id: EventId,
    pub user_id: UserId,
    /// The name that the reservation will have.
    pub ticket_id: TicketId,
    pub expires_at: Timestamp,
    pub lapses_at: Timestamp,
    /// What else becomes durable with the grant.
    pub also: Commit,
}

/// A reservation as others may see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub ticket_id: TicketId,
    pub state: ReservationState,
    pub expires_at: Timestamp,
    pub price: Option<Money>,
}

/// One ticket of one user, named exactly: another reservation of the same user is never meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Claimed {
    pub event_id: EventId,
    pub user_id: UserId,
    pub ticket_id: TicketId,
}

/// What became of a claim that was to be completed.
#[derive(Debug, Clone)]
pub enum Completion {
    /// It is completed (now or before); its row must become durable together with the ticket, over whichever row is
    /// stored by then: it says version 0, and whoever saves it knows better.
    Completed(Reservation),
    /// It lapsed or was released.
    Gone,
}

/// An event's numbers at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    pub quantity: i64,
    pub waiting: i64,
    pub completed: i64,
    /// Below zero while more is claimed than a quantity that was lowered since.
    pub available: i64,
}

impl Reservations {
    /// The embedded backend, rebuilt from what is stored.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub async fn open_local(store: Store) -> Result<Self, StoreError> {
        Local::rebuild(store).await.map(Self::Local)
    }

    /// The store that grants are made durable in.
    #[must_use]
    pub fn store(&self) -> &Store {
        match self {
            Self::Local(local) => local.store(),
        }
    }

    /// Grants or refuses each wish, in order. A grant is durable once its receipt says so.
    pub fn reserve(&self, wishes: Vec<Wish>, now: Timestamp) -> Vec<Result<Receipt, Refusal>> {
        match self {
            Self::Local(local) => wishes
                .into_iter()
                .map(|wish| local.reserve(wish, now))
                .collect(),
        }
    }

    /// Takes back a grant that could not be made durable.
    pub fn forget(&self, claimed: Claimed) {
        match self {
            Self::Local(local) => local.forget(claimed),
        }
    }

    #[must_use]
    pub fn find(&self, event_id: EventId, user_id: UserId) -> Option<Held> {
        match self {
            Self::Local(local) => local.find(event_id, user_id),
        }
    }

    /// WAITING to COMPLETED; saying it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] where the backend cannot answer.
    pub async fn complete(&self, claims: &[Claimed]) -> Result<Vec<Completion>, StoreError> {
        match self {
            Self::Local(local) => Ok(claims
                .iter()
                .map(|claimed| local.complete(*claimed))
                .collect()),
        }
    }

    /// Takes tickets again for claims that are gone, where there is one left and the user has no other claim for the
    /// event: COMPLETED at once. A claim that stands is completed; saying it again changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] where the backend cannot answer.
    pub async fn retake(
        &self,
        claims: &[Claimed],
        now: Timestamp,
    ) -> Result<Vec<Completion>, StoreError> {
        match self {
            Self::Local(local) => Ok(claims
                .iter()
                .map(|claimed| local.retake(*claimed, now))
                .collect()),
        }
    }

    /// Gives claims back to the stock, bought ones too; the Commit for each must become durable by the caller's hand.
    ///
    /// # Errors
    /// [`StoreError`] where the backend cannot answer.
    pub async fn release(&self, claims: &[Claimed]) -> Result<Vec<Commit>, StoreError> {
        match self {
            Self::Local(local) => Ok(claims
                .iter()
                .map(|claimed| local.release(*claimed))
                .collect()),
        }
    }

    /// Gives claims back to the stock that nobody has paid for; one that is COMPLETED stands, and its Commit is empty.
    ///
    /// # Errors
    /// [`StoreError`] where the backend cannot answer.
    pub async fn release_unpaid(&self, claims: &[Claimed]) -> Result<Vec<Commit>, StoreError> {
        match self {
            Self::Local(local) => Ok(claims
                .iter()
                .map(|claimed| local.release_unpaid(*claimed))
                .collect()),
        }
    }

    /// Gives one waiting claim back to the stock, with `also` in the same Commit; `None` where it is not waiting.
    #[must_use]
    pub fn give_up(&self, claimed: Claimed, also: Commit) -> Option<Receipt> {
        match self {
            Self::Local(local) => local.give_up(claimed, also),
        }
    }

    /// Lapses what is due by `now`, at most `max`, each exactly once. What `telling` says of a lapsed claim is
    /// committed with it.
    ///
    /// # Errors
    /// [`StoreError`] where the backend cannot answer; what did not lapse stays due.
    pub async fn expire(
        &self,
        now: Timestamp,
        max: usize,
        telling: impl Fn(Claimed) -> Commit,
    ) -> Result<Vec<Claimed>, StoreError> {
        match self {
            Self::Local(local) => local.expire(now, max, telling).await,
        }
    }

    /// Takes over an event's quantity, price and sale window from a newer version of it.
    ///
    /// # Errors
    /// [`StoreError`] where the backend cannot answer.
    pub async fn set_sale(&self, allocation: &Allocation) -> Result<(), StoreError> {
        match self {
            Self::Local(local) => {
                local.set_sale(allocation);
                Ok(())
            }
        }
    }

    #[must_use]
    pub fn stats(&self, event_id: EventId) -> Option<Stats> {
        match self {
            Self::Local(local) => local.stats(event_id),
        }
    }
}

//! Reservations: one atomic operation decides who gets a ticket. A closed choice of backends, matched here only.
//!
//! `available = quantity - waiting - completed` holds at every moment.

mod local;
mod redis;
mod stock;

use std::collections::HashSet;

use contract::{EventId, Money, TicketId, Timestamp, UserId};
use messaging::{Clock, Commit, CommitError, Fence, Key, Outcome, Record as _, Store, StoreError};

use crate::{
    model::{Allocation, Purchase, Reservation, ReservationState},
    redis_server::RedisServer,
};

pub use local::Local;
pub use redis::{Claims, ClaimsError, Redis, RedisHold};
pub use stock::{Refusal, Stock};

/// The state of all reservations; clones share it.
#[derive(Clone)]
pub enum Reservations {
    /// In memory, owned by one writer, made durable by the store's group commit.
    Local(Local),
    /// In Redis, shared by all processes; what it loses is rebuilt from the store.
    Redis(Redis),
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

/// How a wish was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granted {
    /// As it was wished, together with what was to become durable with it.
    Now,
    /// The same request was granted this before, and its answer may have been lost. Nothing else became durable.
    Before {
        ticket_id: TicketId,
        expires_at: Timestamp,
    },
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

/// A claim that ends because its time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lapse {
    pub claimed: Claimed,
    /// When it was due: what is told of this lapse has a name that follows from it. The claim may be back, and lapse
    /// another time, where Redis lost its data.
    pub lapses_at: Timestamp,
}

/// Claims whose time had come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lapsed {
    /// Their tickets are on sale again.
    pub freed: Vec<Claimed>,
    /// Their purchase was begun: they stay until `ticketing.release` frees them, and are looked at again until then.
    pub closing: Vec<Claimed>,
}

impl Lapsed {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.freed.is_empty() && self.closing.is_empty()
    }
}

/// How long until a claim that stays though its time is over is looked at again.
const LOOK_AGAIN_SECS: i64 = 60;

/// Which of these claims have a purchase that was begun, and not given back by its buyer: a payment of it may be taking
/// money.
async fn begun(store: &Store, due: &[Lapse]) -> Result<HashSet<TicketId>, StoreError> {
    let keys: Vec<Key> = due.iter().map(|it| it.claimed.ticket_id.into()).collect();
    let rows = store.load_rows(Purchase::TABLE, &keys).await?;
    let mut begun = HashSet::new();
    for row in rows {
        let purchase: Purchase = row.read()?;
        begun.extend(purchase.released_at.is_none().then_some(purchase.ticket_id));
    }
    Ok(begun)
}

impl Wish {
    /// What it asks for.
    #[must_use]
    pub fn claimed(&self) -> Claimed {
        Claimed {
            event_id: self.event_id,
            user_id: self.user_id,
            ticket_id: self.ticket_id,
        }
    }
}

/// What became of a claim that was to be completed.
#[derive(Debug, Clone)]
pub enum Completion {
    /// It is completed (now or before); what keeps it so must become durable together with the ticket.
    Completed(Keeping),
    /// It lapsed or was released.
    Gone,
}

/// What the Commit that issues a ticket must carry for its claim.
#[derive(Debug, Clone)]
pub enum Keeping {
    /// The claim's row, over whichever is stored by then: it says version 0, and whoever saves it knows better.
    Row(Reservation),
    /// No row; the proof that the reservations have not been rebuilt since they answered.
    Fence(Fence),
}

impl Keeping {
    /// Makes the claim durable with the rest of `commit`. `stored` is its row, where there is one.
    pub fn keep(&self, commit: &mut Commit, stored: Option<&Reservation>) {
        match self {
            Self::Row(completed) => commit.put(&Reservation {
                version: stored.map_or(0, |stored| stored.version),
                ..completed.clone()
            }),
            Self::Fence(fence) => commit.fenced_by(fence.clone()),
        };
    }
}

/// Why the reservations did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing was changed, or it is taken back. What [may be applied](CommitError::may_be_applied) stands until it is
    /// known not to be.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// Whether a commit is known not to be stored: only then may what rests on it be undone.
fn was_not_applied(outcome: &Outcome) -> bool {
    let error = outcome.as_ref().err();
    error.is_some_and(|error| !error.may_be_applied())
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

/// For consumers, who wait: what is refused for a while cannot be answered for a while.
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
    /// Below zero while more is claimed than a quantity that was lowered since.
    pub available: i64,
}

impl Reservations {
    /// The embedded backend, rebuilt from what is stored. No claim lapses later, from now, than it was meant to.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub async fn open_local(store: Store, now: Timestamp) -> Result<Self, StoreError> {
        Local::rebuild(store, now).await.map(Self::Local)
    }

    /// The distributed backend. What else becomes durable does so in `store`, and what Redis loses is rebuilt from
    /// there. Must be called on the runtime.
    #[must_use]
    pub fn on_redis(server: RedisServer, store: Store, clock: Clock, hold: RedisHold) -> Self {
        Self::Redis(Redis::open(server, store, clock, hold))
    }

    /// The store that commits become durable in.
    #[must_use]
    pub fn store(&self) -> &Store {
        match self {
            Self::Local(local) => local.store(),
            Self::Redis(redis) => redis.store(),
        }
    }

    /// Whether claims have rows in the store.
    #[must_use]
    pub fn keeps_rows(&self) -> bool {
        match self {
            Self::Local(_) => true,
            Self::Redis(_) => false,
        }
    }

    /// Grants or refuses a wish; those that arrive together are decided together. A grant is durable when this
    /// returns, as far as the backend goes, and so is what goes with it. The same request is granted the same again
    /// while that claim waits ([`TicketId::of_request`]). Dropping the future undoes nothing.
    ///
    /// # Errors
    /// The first [`Refusal`] that holds; [`Error::Commit`] where it was not stored.
    pub async fn reserve(&self, wish: Wish, now: Timestamp) -> Result<Granted, Error> {
        match self {
            Self::Local(local) => local.reserve(wish, now).await,
            Self::Redis(redis) => redis.reserve(wish, now).await,
        }
    }

    /// # Errors
    /// [`Refusal::Rebuilding`], or [`Error::Commit`] where the backend cannot answer.
    pub async fn find(&self, event_id: EventId, user_id: UserId) -> Result<Option<Held>, Error> {
        match self {
            Self::Local(local) => Ok(local.find(event_id, user_id)),
            Self::Redis(redis) => redis.find(event_id, user_id).await,
        }
    }

    /// The claim that this ticket names, as far as it is known; it may have ended since.
    ///
    /// # Errors
    /// [`Error::Commit`] where the backend cannot answer.
    pub async fn named(&self, ticket_id: TicketId) -> Result<Option<Claimed>, Error> {
        match self {
            Self::Local(local) => Ok(local.named(ticket_id).await?),
            Self::Redis(redis) => redis.named(ticket_id).await,
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
            Self::Redis(redis) => redis.complete(claims).await,
        }
    }

    /// Takes tickets again for claims that are gone, where there is one left and the user has no other claim for the
    /// event. They wait to be completed, and lapse a minute later if nobody does: who asks may have slept while another
    /// member decided.
    ///
    /// # Errors
    /// [`StoreError`] where the backend cannot answer.
    pub async fn retake(&self, claims: &[Claimed], now: Timestamp) -> Result<(), StoreError> {
        let lapses_at = now.plus_secs(LOOK_AGAIN_SECS);
        match self {
            Self::Local(local) => local.retake(claims, lapses_at),
            Self::Redis(redis) => redis.retake(claims, lapses_at).await?,
        }
        Ok(())
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
            Self::Redis(redis) => redis.release(claims, "any").await,
        }
    }

    /// Gives claims back to the stock that nobody has paid for; one that is COMPLETED stands, and its Commit changes
    /// nothing.
    ///
    /// # Errors
    /// [`StoreError`] where the backend cannot answer.
    pub async fn release_unpaid(&self, claims: &[Claimed]) -> Result<Vec<Commit>, StoreError> {
        match self {
            Self::Local(local) => Ok(claims
                .iter()
                .map(|claimed| local.release_unpaid(*claimed))
                .collect()),
            Self::Redis(redis) => redis.release(claims, "waiting").await,
        }
    }

    /// Gives one waiting claim back to the stock, and makes `also` durable with that; false where it does not wait.
    /// Where that is not stored, the claim waits on. Dropping the future undoes nothing.
    ///
    /// # Errors
    /// [`Refusal::Rebuilding`], or [`Error::Commit`] where it was not stored.
    pub async fn give_up(&self, claimed: Claimed, also: Commit) -> Result<bool, Error> {
        match self {
            Self::Local(local) => local.give_up(claimed, also).await,
            Self::Redis(redis) => redis.give_up(claimed, also).await,
        }
    }

    /// Lapses what is due by `now`, at most `max`, each exactly once. A claim whose purchase was begun is not freed, and is
    /// due again a minute later. What `telling` says of a claim that is due is committed with it; after a crash in
    /// between it may be said again, in the same words.
    ///
    /// # Errors
    /// [`StoreError`] where the backend cannot answer; what did not lapse stays due.
    pub async fn expire(
        &self,
        now: Timestamp,
        max: usize,
        telling: impl Fn(Lapse) -> Commit,
    ) -> Result<Lapsed, StoreError> {
        match self {
            Self::Local(local) => local.expire(now, max, telling).await,
            Self::Redis(redis) => redis.expire(now, max, telling).await,
        }
    }

    /// Takes over an event's quantity, price and sale window from a newer version of it. The Commit that stores the
    /// allocation must carry what this returns.
    ///
    /// # Errors
    /// [`StoreError`] where the backend cannot answer.
    pub async fn set_sale(&self, allocation: &Allocation) -> Result<Commit, StoreError> {
        match self {
            Self::Local(local) => {
                local.set_sale(allocation);
                Ok(Commit::new())
            }
            Self::Redis(redis) => redis.set_sale(allocation).await,
        }
    }

    /// # Errors
    /// As [`find`](Self::find).
    pub async fn stats(&self, event_id: EventId) -> Result<Option<Stats>, Error> {
        match self {
            Self::Local(local) => Ok(local.stats(event_id)),
            Self::Redis(redis) => redis.stats(event_id).await,
        }
    }
}

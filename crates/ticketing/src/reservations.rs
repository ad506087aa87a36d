//! Reservations: one atomic operation decides who gets a ticket. The backend is chosen when the service opens and is
//! matched here only; callers cannot tell which one answers.
//!
//! `available = quantity - waiting - completed` holds at every moment.
//!
//! **A user has one claim for an event**, waiting or completed. No constraint of a table says so (the key of
//! [`ReservationRecord`] is the ticket): it is decided where claims are kept by user.
//!
//! | | in memory | in Redis |
//! |---|---|---|
//! | who decides | `Stock::reserve`, which `Local::grant` calls under its mutex | `reserve.lua`, one script for one event at a time |
//! | looks at | `Stock::claims` | the hashes `waiting` and `completed`, and `granted` for those of the same call |
//! | a claim comes back after its end | `Stock::insert` | `retake.lua` |
//! | after a restart or loss | `Stock::restore` | `rebuild_fill.lua` |
//!
//! Who has a claim is refused as [`Refusal::AlreadyReserved`] or [`Refusal::AlreadyPurchased`], unless it is the same
//! request again (`crate::reserve`).

mod claim;
mod local;
mod redis;
mod stock;

use std::collections::HashMap;

use contract::{EventId, TicketId, Timestamp, UserId};
use messaging::{Clock, Commit, CommitOutcome, Key, Record as _, Ref, Row, Store, StoreError};

use crate::{
    model::{Allocation, Purchase, ReservationRecord},
    redis_server::RedisServer,
};

pub use claim::{
    ClaimId, ClaimProof, Completion, Deadlines, DueClaim, Error, ExpiredClaims, Granted,
    Reservation, ReserveRequest, Stats,
};
pub use redis::{ClaimSnapshot, RedisHold};
pub use stock::Refusal;

use local::Local;
use redis::Redis;

/// The state of all reservations; clones share it.
#[derive(Clone)]
pub struct Reservations(Backend);

#[derive(Clone)]
enum Backend {
    /// In the memory of this process, made durable by the store's group commit.
    Local(Local),
    /// In Redis, shared by all processes; what Redis loses is rebuilt from the store.
    Redis(Redis),
}

/// When a claim that has expired but must stay is due again.
const RECHECK_SECS: i64 = 60;

/// The purchases that have begun with these claims and were not released by their buyers: a payment may be in progress.
async fn open_purchases(
    store: &Store,
    claims: impl Iterator<Item = ClaimId>,
) -> Result<HashMap<TicketId, Purchase>, StoreError> {
    let keys: Vec<Key> = claims.map(|claim| claim.ticket_id.into()).collect();
    let rows = store.load_rows(Purchase::TABLE, &keys).await?;
    let purchases: Result<Vec<Purchase>, _> = rows.iter().map(Row::read).collect();
    let open = purchases?
        .into_iter()
        .filter(|purchase| purchase.released_at.is_none());
    Ok(open
        .map(|purchase| (purchase.ticket_id, purchase))
        .collect())
}

/// Whether a commit certainly was not stored: only then may its grant or release be undone.
fn was_not_applied(outcome: &CommitOutcome) -> bool {
    let error = outcome.as_ref().err();
    error.is_some_and(|error| !error.may_be_applied())
}

impl Reservations {
    /// The embedded backend, rebuilt from the stored rows. No claim expires later, counted from `now`, than it was
    /// meant to when it was granted.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub async fn open_local(store: Store, now: Timestamp) -> Result<Self, StoreError> {
        let local = Local::rebuild(store, now).await?;
        Ok(Self(Backend::Local(local)))
    }

    /// The distributed backend. Commits go to `store`, from which lost events are rebuilt. Must be called on the
    /// runtime.
    #[must_use]
    pub fn on_redis(server: RedisServer, store: Store, clock: Clock, hold: RedisHold) -> Self {
        Self(Backend::Redis(Redis::open(server, store, clock, hold)))
    }

    /// The store that grants and releases are committed to.
    #[must_use]
    pub fn store(&self) -> &Store {
        match &self.0 {
            Backend::Local(local) => local.store(),
            Backend::Redis(redis) => redis.store(),
        }
    }

    /// The record that a decision about this ticket must load so that a [`ClaimProof`] can be attached.
    #[must_use]
    pub fn required_record(&self, ticket_id: TicketId) -> Option<Ref> {
        match &self.0 {
            Backend::Local(_) => Some(Ref::to::<ReservationRecord>(ticket_id)),
            Backend::Redis(_) => None,
        }
    }

    /// Grants or refuses a request; concurrent requests are decided in batches. When this returns, a grant is durable
    /// as far as the backend promises, and `also` is committed. Dropping the future undoes nothing.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies; [`Error::Commit`] if the grant was not stored.
    pub async fn reserve(&self, request: ReserveRequest, now: Timestamp) -> Result<Granted, Error> {
        match &self.0 {
            Backend::Local(local) => local.reserve(request, now).await,
            Backend::Redis(redis) => redis.reserve(request, now).await,
        }
    }

    /// # Errors
    /// [`Refusal::Rebuilding`], or [`Error::Commit`] if the backend does not answer.
    pub async fn find(
        &self,
        event_id: EventId,
        user_id: UserId,
    ) -> Result<Option<Reservation>, Error> {
        match &self.0 {
            Backend::Local(local) => Ok(local.find(event_id, user_id)),
            Backend::Redis(redis) => redis.find(event_id, user_id).await,
        }
    }

    /// The claim on this ticket, if one is known; it may have ended since.
    ///
    /// # Errors
    /// [`Error::Commit`] if the backend does not answer.
    pub async fn find_by_ticket(&self, ticket_id: TicketId) -> Result<Option<ClaimId>, Error> {
        match &self.0 {
            Backend::Local(local) => Ok(local.find_by_ticket(ticket_id).await?),
            Backend::Redis(redis) => redis.find_by_ticket(ticket_id).await,
        }
    }

    /// WAITING to COMPLETED; repeated, it changes nothing.
    ///
    /// # Errors
    /// [`StoreError`] if the backend does not answer.
    pub async fn complete(&self, claims: &[ClaimId]) -> Result<Vec<Completion>, StoreError> {
        match &self.0 {
            Backend::Local(local) => {
                Ok(claims.iter().map(|claim| local.complete(*claim)).collect())
            }
            Backend::Redis(redis) => redis.complete(claims).await,
        }
    }

    /// Grants claims that are gone once more, if a ticket is left and the user has no other claim for the event. They
    /// wait to be completed and expire after a minute: the caller may have been paused while another process decided.
    ///
    /// # Errors
    /// [`StoreError`] if the backend does not answer.
    pub async fn retake(&self, claims: &[ClaimId], now: Timestamp) -> Result<(), StoreError> {
        let lapses_at = now.plus_secs(RECHECK_SECS);
        match &self.0 {
            Backend::Local(local) => local.retake(claims, lapses_at),
            Backend::Redis(redis) => redis.retake(claims, lapses_at).await?,
        }
        Ok(())
    }

    /// Releases claims, completed ones too. The caller must make each returned Commit durable.
    ///
    /// # Errors
    /// [`StoreError`] if the backend does not answer.
    pub async fn release(&self, claims: &[ClaimId]) -> Result<Vec<Commit>, StoreError> {
        match &self.0 {
            Backend::Local(local) => Ok(claims
                .iter()
                .map(|claim| local.release(*claim, false))
                .collect()),
            Backend::Redis(redis) => redis.release(claims, "any").await,
        }
    }

    /// Releases claims that are not paid. A COMPLETED claim stays, and its Commit is empty.
    ///
    /// # Errors
    /// [`StoreError`] if the backend does not answer.
    pub async fn release_unpaid(&self, claims: &[ClaimId]) -> Result<Vec<Commit>, StoreError> {
        match &self.0 {
            Backend::Local(local) => Ok(claims
                .iter()
                .map(|claim| local.release(*claim, true))
                .collect()),
            Backend::Redis(redis) => redis.release(claims, "waiting").await,
        }
    }

    /// Releases one waiting claim; false if it does not wait. With that, it commits what `also` makes of the purchase
    /// that began with the claim: none begins after that look. If the commit fails, the claim waits on. Runs to its end
    /// even if the future is dropped.
    ///
    /// # Errors
    /// [`Refusal::Rebuilding`], or [`Error::Commit`] if the release was not stored.
    pub async fn release_by_buyer(
        &self,
        claim: ClaimId,
        also: impl FnOnce(Option<Purchase>) -> Commit + Send + 'static,
    ) -> Result<bool, Error> {
        let this = self.clone();
        let released = tokio::spawn(async move {
            match &this.0 {
                Backend::Local(local) => local.release_by_buyer(claim, also).await,
                Backend::Redis(redis) => redis.release_by_buyer(claim, also).await,
            }
        });
        match released.await {
            Ok(released) => released,
            Err(stopped) => Err(StoreError::Unavailable(stopped.to_string()).into()),
        }
    }

    /// Expires up to `max` claims that are due by `now`, each exactly once. A claim whose purchase has begun is not
    /// freed and is due again a minute later. `publish` makes the Commit about a due claim, which is stored with its
    /// expiry; after a crash in between, the same Commit is made again, with the same message ids.
    ///
    /// # Errors
    /// [`StoreError`] if the backend does not answer; what did not expire stays due.
    pub async fn expire(
        &self,
        now: Timestamp,
        max: usize,
        publish: impl Fn(DueClaim) -> Commit,
    ) -> Result<ExpiredClaims, StoreError> {
        match &self.0 {
            Backend::Local(local) => local.expire(now, max, publish).await,
            Backend::Redis(redis) => redis.expire(now, max, publish).await,
        }
    }

    /// Applies an event's quantity, price and sale window from a newer version of it. The Commit that stores the
    /// allocation must merge what this returns.
    ///
    /// # Errors
    /// [`StoreError`] if the backend does not answer.
    pub async fn set_sale(&self, allocation: &Allocation) -> Result<Commit, StoreError> {
        match &self.0 {
            Backend::Local(local) => {
                local.set_sale(allocation);
                Ok(Commit::new())
            }
            Backend::Redis(redis) => redis.set_sale(allocation).await,
        }
    }

    /// # Errors
    /// As [`find`](Self::find).
    pub async fn stats(&self, event_id: EventId) -> Result<Option<Stats>, Error> {
        match &self.0 {
            Backend::Local(local) => Ok(local.stats(event_id)),
            Backend::Redis(redis) => redis.stats(event_id).await,
        }
    }
}

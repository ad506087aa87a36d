//! A lock with a lease: one holder at a time, told when it lost the lock, and fenced when it does not listen.
//!
//! A lease says holder, token, and the time at which it runs out; it is a row of the store that it protects, or a key of
//! Redis whose token is in that store (`ledger`). It is renewed every third of its time by a task that stops with the
//! [`Lease`]. The token grows whenever the lease changes hands and when it is released, so a [`Fence`] from an earlier
//! holding is refused in the very transaction that it guards. Time alone protects nothing: a holder that was paused,
//! or whose clock is wrong, may think that it still leads; what is to be safe must be committed with the fence.
//!
//! Who waits does not poll. Waiters of one process stand in one queue, first come first served, and only its head
//! looks at the ledger: when the other's lease runs out, or when it is told of a change. **Fairness** is within a
//! process; between processes whoever claims first after a release has it, and no process is preferred. A process that
//! dies holding a lease leaves it standing until it runs out. State: the queues of this process (`turns`), and one row
//! for each name ever locked, which is kept because its token must never be given twice.
//!
//! **What it guards.** On the embedded deployment one process owns the data folder and each stock operation, a resize
//! included, is atomic under the reservations' own mutex: nothing there takes this lock. It is for what several
//! processes do and what is not one atomic operation, such as leadership of relay and timers. Rebuilding an event's
//! stock in Redis has a lease of its own kind, whose token stays after it: the event's epoch
//! (`reservations::redis::rebuild`).

mod desk;
mod ledger;
mod turns;

use contract::Timestamp;
use messaging::{Clock, Fence, Store, StoreError};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use crate::redis_server::RedisServer;
use desk::Desk;
use ledger::Ledger;
pub use turns::WAITERS_MAX;

/// Where leases are taken; clones share it.
#[derive(Clone)]
pub struct Locks(Desk);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LockSettings {
    /// How long a lease stands without renewal: how long the others wait for a holder that crashed.
    pub lease_millis: i64,
}

impl Default for LockSettings {
    fn default() -> Self {
        Self {
            lease_millis: 15_000,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The lease ran out, or another took it; it was not released by this holder.
    #[error("the lease {lease} was lost")]
    Lost { lease: String },
    /// [`WAITERS_MAX`] wait for it in this process already.
    #[error("too many wait for the lease {lease}")]
    Crowded { lease: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Locks {
    /// Leases in `store`, taken in the name of `holder`, which tells people who has it and decides nothing: the same
    /// holder waits for itself.
    #[must_use]
    pub fn embedded(store: Store, clock: Clock, holder: String, settings: LockSettings) -> Self {
        Self(Desk::new(Ledger::Embedded(store), clock, holder, settings))
    }

    /// Leases in Redis, for commits to `store`. Renewing them costs the store nothing, and a release wakes who waits in
    /// another process.
    ///
    /// # Errors
    /// [`StoreError`] where Redis does not answer.
    pub async fn redis(
        server: RedisServer,
        store: Store,
        clock: Clock,
        holder: String,
        settings: LockSettings,
    ) -> Result<Self, StoreError> {
        let ledger = Ledger::redis(server, store).await?;
        Ok(Self(Desk::new(ledger, clock, holder, settings)))
    }

    /// Waits until the lease `name` is free, behind those of this process who asked before, and takes it. Dropping
    /// the future leaves the queue; what it had taken by then is released. How long to wait is the caller's to say,
    /// by dropping it. Must be called on the runtime.
    ///
    /// # Errors
    /// [`Error::Crowded`], or [`Error::Store`] where the store cannot answer.
    pub async fn acquire(&self, name: &str) -> Result<Lease, Error> {
        self.0.acquire(name).await
    }

    /// Takes the lease `name` where it is free and nobody of this process waits for it.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub async fn try_acquire(&self, name: &str) -> Result<Option<Lease>, Error> {
        self.0.try_acquire(name).await
    }
}

/// A lease that is held, and renewed as long as this lives. Dropping it releases it in the background; where the
/// runtime has stopped it runs out instead.
#[must_use = "a lease that is dropped is released"]
#[derive(Debug)]
pub struct Lease {
    fence: Fence,
    clock: Clock,
    /// Until when it stands, as renewed so far; `None` once it is lost.
    stands_until: watch::Receiver<Option<Timestamp>>,
    /// The keeper releases the lease when this goes.
    holding: oneshot::Sender<()>,
    keeper: JoinHandle<Result<(), Error>>,
}

impl Lease {
    /// What a commit under this lease is to carry.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Higher than every token given for this name before; renewal keeps it.
    #[must_use]
    pub fn token(&self) -> i64 {
        self.fence.token
    }

    /// Until when the lease stands if it is not renewed again; `None` once it is lost.
    #[must_use]
    pub fn stands_until(&self) -> Option<Timestamp> {
        *self.stands_until.borrow()
    }

    /// Whether it ran out by the clock, or a renewal found that another has it.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.stands_until()
            .is_none_or(|until| self.clock.now() >= until)
    }

    /// Resolves when the lease is lost, or can no longer be renewed because the runtime is stopping. Work under the
    /// lease is to be stopped then.
    pub async fn lost(&self) {
        // That the keeper is gone is told as an error, and means the same.
        let _ = self.stands_until.clone().wait_for(Option::is_none).await;
    }

    /// Gives the lease back; its fence is refused from then on. Dropping the future does not keep the lease.
    ///
    /// # Errors
    /// [`Error::Lost`] where it was lost before, [`Error::Store`] where the store did not take the release: the
    /// lease then runs out.
    pub async fn release(self) -> Result<(), Error> {
        drop(self.holding);
        match self.keeper.await {
            Ok(released) => released,
            Err(stopped) => Err(StoreError::Unavailable(stopped.to_string()).into()),
        }
    }
}

//! Takes, renews and loses leases, in any ledger. State: the queues of this process.

use std::sync::Arc;

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::{
    Error, LeaseRecord,
    ledger::{LeaseLedger, LeaseState},
    queue::{QueueTurn, Queues},
};
use crate::{Clock, Fence, StoreError, Timestamp};

/// How often a lease is renewed within its time.
const RENEWALS_PER_LEASE: i64 = 3;

/// Takes leases; clones share it.
#[derive(Clone)]
pub struct LeaseManager(Arc<Inner>);

struct Inner {
    ledger: Box<dyn LeaseLedger>,
    clock: Clock,
    holder: String,
    lease_millis: i64,
    queues: Queues,
}

enum Attempt {
    Won(Lease),
    /// Another process holds it until then, or was faster; the turn comes back.
    Held(QueueTurn, Option<Timestamp>),
}

impl LeaseManager {
    /// Takes leases in `ledger` for `lease_millis` each, in the name of `holder`. The name is for operators and decides
    /// nothing: two managers of one holder exclude each other.
    #[must_use]
    pub fn new(ledger: impl LeaseLedger, clock: Clock, holder: String, lease_millis: i64) -> Self {
        Self(Arc::new(Inner {
            ledger: Box::new(ledger),
            clock,
            holder,
            lease_millis: lease_millis.max(RENEWALS_PER_LEASE),
            queues: Queues::default(),
        }))
    }

    /// Waits until the lease `name` is free, behind earlier callers of this process, and takes it. Dropping the future
    /// leaves the queue and releases what it had taken by then. The caller limits the wait by dropping the future.
    /// Must be called on the runtime.
    ///
    /// # Errors
    /// [`Error::Crowded`], or [`Error::Store`] if the ledger cannot answer.
    pub async fn acquire(&self, name: &str) -> Result<Lease, Error> {
        let mut turn = self.0.queues.wait(name).await?;
        loop {
            // Before looking, so that no change falls between the look and the wait.
            let changed = self.0.ledger.changed();
            match self.try_once(name, turn).await? {
                Attempt::Won(lease) => return Ok(lease),
                Attempt::Held(back, None) => turn = back,
                Attempt::Held(back, Some(until)) => {
                    turn = back;
                    tokio::select! {
                        () = self.0.clock.wait_until(until) => {}
                        () = changed => {}
                    }
                }
            }
        }
    }

    /// Takes the lease `name` if it is free and no task of this process waits for it.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub async fn try_acquire(&self, name: &str) -> Result<Option<Lease>, Error> {
        let Some(turn) = self.0.queues.try_take(name)? else {
            return Ok(None);
        };
        match self.try_once(name, turn).await? {
            Attempt::Won(lease) => Ok(Some(lease)),
            Attempt::Held(..) => Ok(None),
        }
    }

    /// Runs in a task of its own: if the caller is dropped during a claim, the lease that was won is dropped here, and so
    /// released.
    async fn try_once(&self, name: &str, turn: QueueTurn) -> Result<Attempt, Error> {
        let (inner, name) = (Arc::clone(&self.0), name.to_owned());
        let tried = tokio::spawn(async move { inner.try_once(name, turn).await });
        match tried.await {
            Ok(tried) => tried,
            Err(stopped) => Err(StoreError::Unavailable(stopped.to_string()).into()),
        }
    }
}

/// A lease that is held, and renewed as long as this lives. Dropping it releases it in the background; if the runtime
/// has stopped, it expires instead.
#[must_use = "a lease that is dropped is released"]
#[derive(Debug)]
pub struct Lease {
    fence: Fence,
    clock: Clock,
    /// Until when it is held, as renewed so far; `None` once it is lost.
    stands_until: watch::Receiver<Option<Timestamp>>,
    /// Dropping it makes the renewal task release the lease.
    holding: oneshot::Sender<()>,
    renewal: JoinHandle<Result<(), Error>>,
}

impl Lease {
    /// Belongs into each commit under this lease.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    /// Higher than every token given for this name before; renewal keeps it.
    #[must_use]
    pub fn token(&self) -> i64 {
        self.fence.token
    }

    /// Until when the lease is held if it is not renewed again; `None` once it is lost.
    #[must_use]
    pub fn stands_until(&self) -> Option<Timestamp> {
        *self.stands_until.borrow()
    }

    /// Whether it expired by the clock, or a renewal found that another process holds it.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.stands_until()
            .is_none_or(|until| self.clock.now() >= until)
    }

    /// Resolves when the lease is lost, or can no longer be renewed because the runtime is stopping. Stop work under the
    /// lease then.
    pub async fn lost(&self) {
        // An error means that the renewal task is gone, which is the same.
        let _ = self.stands_until.clone().wait_for(Option::is_none).await;
    }

    /// Releases the lease; its fence is refused from then on. Dropping the future does not keep the lease.
    ///
    /// # Errors
    /// [`Error::Lost`] if it was lost before, [`Error::Store`] if the release could not be stored: the lease then
    /// expires.
    pub async fn release(self) -> Result<(), Error> {
        drop(self.holding);
        match self.renewal.await {
            Ok(released) => released,
            Err(stopped) => Err(StoreError::Unavailable(stopped.to_string()).into()),
        }
    }
}

impl Inner {
    async fn try_once(self: Arc<Self>, name: String, turn: QueueTurn) -> Result<Attempt, Error> {
        let now = self.clock.now();
        let wanted = LeaseRecord {
            name,
            holder: self.holder.clone(),
            token: 0,
            expires_at: now.plus_millis(self.lease_millis),
            version: 0,
        };
        let free = match self.ledger.look(wanted, now).await? {
            LeaseState::Free(free) => free,
            LeaseState::Held { until } => return Ok(Attempt::Held(turn, Some(until))),
        };
        Ok(match self.ledger.claim(free, now).await? {
            Some(record) => Attempt::Won(Renewal::start(self, record, turn)),
            None => Attempt::Held(turn, None),
        })
    }
}

/// Renews a lease until its holder releases it or it is lost. Its turn ends with it: the next in the queue does not wait
/// for a holder that has not noticed its loss.
struct Renewal {
    inner: Arc<Inner>,
    record: LeaseRecord,
    stands_until: watch::Sender<Option<Timestamp>>,
    _turn: QueueTurn,
}

impl Renewal {
    fn start(inner: Arc<Inner>, record: LeaseRecord, turn: QueueTurn) -> Lease {
        let (holding, released) = oneshot::channel();
        let (stands_until, stands) = watch::channel(Some(record.expires_at));
        let (fence, clock) = (record.fence(), inner.clock.clone());
        let renewal = Self {
            inner,
            record,
            stands_until,
            _turn: turn,
        };
        Lease {
            fence,
            clock,
            stands_until: stands,
            holding,
            renewal: tokio::spawn(renewal.run(released)),
        }
    }

    async fn run(mut self, mut released: oneshot::Receiver<()>) -> Result<(), Error> {
        let renewal_millis = self.inner.lease_millis / RENEWALS_PER_LEASE;
        let mut renew_at = self.granted_at().plus_millis(renewal_millis);
        loop {
            tokio::select! {
                biased;
                _ = &mut released => return self.release().await,
                () = self.inner.clock.wait_until(renew_at.min(self.record.expires_at)) => {}
            }
            match self.renew().await {
                Ok(()) => renew_at = self.granted_at().plus_millis(renewal_millis),
                Err(Error::Store(error)) => {
                    tracing::warn!(lease = self.record.name, %error, "a lease was not renewed");
                    renew_at = renew_at.plus_millis(renewal_millis);
                }
                Err(lost) => {
                    tracing::warn!(
                        lease = self.record.name,
                        holder = self.record.holder,
                        "a lease was lost"
                    );
                    self.stands_until.send_replace(None);
                    return Err(lost);
                }
            }
        }
    }

    /// Loss is final: an expired lease is not renewed, even if no process has taken it yet. A renewal in flight at that
    /// moment may still be stored; it expires by itself.
    async fn renew(&mut self) -> Result<(), Error> {
        let now = self.inner.clock.now();
        let renewed = LeaseRecord {
            expires_at: now.plus_millis(self.inner.lease_millis),
            ..self.record.clone()
        };
        let saved = tokio::select! {
            biased;
            () = self.inner.clock.wait_until(self.record.expires_at) => None,
            saved = self.inner.ledger.renew(renewed, now) => saved?,
        };
        self.record = saved.ok_or_else(|| self.lost())?;
        self.stands_until.send_replace(Some(self.record.expires_at));
        Ok(())
    }

    async fn release(self) -> Result<(), Error> {
        if self.inner.clock.now() >= self.record.expires_at {
            return Err(self.lost());
        }
        match self.inner.ledger.release(self.record.clone()).await? {
            Some(_) => Ok(()),
            None => Err(self.lost()),
        }
    }

    fn granted_at(&self) -> Timestamp {
        self.record.expires_at.plus_millis(-self.inner.lease_millis)
    }

    fn lost(&self) -> Error {
        Error::Lost {
            lease: self.record.name.clone(),
        }
    }
}

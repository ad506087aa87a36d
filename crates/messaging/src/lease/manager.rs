//! Takes, renews and loses leases. State: none; each [`Lease`] has a task that renews it.

use std::sync::Arc;

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};

use super::{Error, LeaseRecord};
use crate::{Clock, Fence, Store, StoreError, Timestamp};

/// How often a lease is renewed within its time.
const RENEWALS_PER_LEASE: i64 = 3;
/// How often a process that waits for a lease tries to take it within its time.
const TRIES_PER_LEASE: i64 = 10;

/// Takes leases; clones share it.
#[derive(Clone)]
pub struct LeaseManager(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    holder: String,
    lease_millis: i64,
}

impl LeaseManager {
    /// Takes leases in `store` for `lease_millis` each, in the name of `holder`. The name is for operators and decides
    /// nothing: two managers of one holder exclude each other.
    #[must_use]
    pub fn new(store: Store, clock: Clock, holder: String, lease_millis: i64) -> Self {
        Self(Arc::new(Inner {
            store,
            clock,
            holder,
            lease_millis: lease_millis.max(TRIES_PER_LEASE),
        }))
    }

    /// Takes the lease `name` if it is free. Dropping the future releases what it had taken by then. Must be called on the
    /// runtime.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn try_acquire(&self, name: &str) -> Result<Option<Lease>, StoreError> {
        let (inner, name) = (Arc::clone(&self.0), name.to_owned());
        // A task of its own: if the caller is dropped during a claim, the lease that was won is dropped here.
        let tried = tokio::spawn(async move { inner.try_acquire(name).await });
        tried
            .await
            .unwrap_or_else(|stopped| Err(StoreError::Unavailable(stopped.to_string())))
    }

    /// The pause between two tries, in milliseconds.
    pub(super) fn retry_millis(&self) -> i64 {
        self.0.lease_millis / TRIES_PER_LEASE
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
    async fn try_acquire(self: Arc<Self>, name: String) -> Result<Option<Lease>, StoreError> {
        let now = self.clock.now();
        let stored: Option<LeaseRecord> = self.store.load(name.as_str()).await?;
        if stored
            .as_ref()
            .is_some_and(|it| it.stands(now, self.lease_millis))
        {
            return Ok(None);
        }
        let claim = LeaseRecord {
            name,
            holder: self.holder.clone(),
            token: stored.as_ref().map_or(0, |it| it.token) + 1,
            expires_at: now.plus_millis(self.lease_millis),
            version: stored.map_or(0, |it| it.version),
        };
        let claimed = claim.save(&self.store).await?;
        Ok(claimed.map(|record| Renewal::start(self, record)))
    }
}

/// Renews a lease until its holder releases it or it is lost.
struct Renewal {
    inner: Arc<Inner>,
    record: LeaseRecord,
    stands_until: watch::Sender<Option<Timestamp>>,
}

impl Renewal {
    fn start(inner: Arc<Inner>, record: LeaseRecord) -> Lease {
        let (holding, released) = oneshot::channel();
        let (stands_until, stands) = watch::channel(Some(record.expires_at));
        let (fence, clock) = (record.fence(), inner.clock.clone());
        let renewal = Self {
            inner,
            record,
            stands_until,
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
            saved = renewed.save(&self.inner.store) => saved?,
        };
        self.record = saved.ok_or_else(|| self.lost())?;
        self.stands_until.send_replace(Some(self.record.expires_at));
        Ok(())
    }

    async fn release(self) -> Result<(), Error> {
        if self.inner.clock.now() >= self.record.expires_at {
            return Err(self.lost());
        }
        let released = LeaseRecord {
            // The released fence is refused although no process holds the next one yet.
            token: self.record.token + 1,
            // In the past by every process's clock.
            expires_at: Timestamp::from_millis(0),
            ..self.record.clone()
        };
        match released.save(&self.inner.store).await? {
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

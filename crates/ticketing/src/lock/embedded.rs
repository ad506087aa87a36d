//! Leases as records of the store. The record's version decides between two who claim it at once; the store refuses
//! a fence whose token is not the record's. State: none of its own but the queues.

use std::sync::Arc;

use contract::Timestamp;
use messaging::{Clock, Commit, CommitError, Store, StoreError, lease::LeaseRecord};
use tokio::sync::{oneshot, watch};

use super::{
    Error, Lease, LockSettings,
    turns::{Turn, Turns},
};

/// A lease is renewed this many times before it would run out.
const RENEWALS_PER_LEASE: i64 = 3;

#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    holder: String,
    lease_millis: i64,
    turns: Turns,
}

/// What the store says of a lease that somebody wants.
enum Found {
    /// It can be had by committing this.
    Free(LeaseRecord),
    Held {
        until: Timestamp,
    },
}

enum Claim {
    Won(Lease),
    /// Another was faster; the turn comes back.
    Beaten(Turn),
}

impl Embedded {
    pub(super) fn new(store: Store, clock: Clock, holder: String, settings: LockSettings) -> Self {
        Self(Arc::new(Inner {
            store,
            clock,
            holder,
            lease_millis: settings.lease_millis.max(RENEWALS_PER_LEASE),
            turns: Turns::default(),
        }))
    }

    pub(super) async fn acquire(&self, name: &str) -> Result<Lease, Error> {
        let mut turn = self.0.turns.wait(name).await?;
        loop {
            // Before looking, so that no change falls between the look and the wait.
            let mut committed = self.0.store.committed();
            match self.look(name).await? {
                Found::Free(record) => match self.claim(record, turn).await? {
                    Claim::Won(lease) => return Ok(lease),
                    Claim::Beaten(back) => turn = back,
                },
                Found::Held { until } => tokio::select! {
                    () = self.0.clock.wait_until(until) => {}
                    // The store keeps the sender, so this cannot fail.
                    _ = committed.changed() => {}
                },
            }
        }
    }

    pub(super) async fn try_acquire(&self, name: &str) -> Result<Option<Lease>, Error> {
        let Some(turn) = self.0.turns.try_take(name)? else {
            return Ok(None);
        };
        match self.look(name).await? {
            Found::Free(record) => match self.claim(record, turn).await? {
                Claim::Won(lease) => Ok(Some(lease)),
                Claim::Beaten(_) => Ok(None),
            },
            Found::Held { .. } => Ok(None),
        }
    }

    async fn look(&self, name: &str) -> Result<Found, StoreError> {
        let known: Option<LeaseRecord> = self.0.store.load(name).await?;
        let now = self.0.clock.now();
        Ok(match known {
            Some(known) if now < known.expires_at => Found::Held {
                until: known.expires_at,
            },
            known => Found::Free(LeaseRecord {
                name: name.to_owned(),
                holder: self.0.holder.clone(),
                token: known.as_ref().map_or(0, |known| known.token) + 1,
                expires_at: now.plus_millis(self.0.lease_millis),
                version: known.map_or(0, |known| known.version),
            }),
        })
    }

    /// Runs apart from the caller: a commit cannot be taken back, so where the caller goes away meanwhile, the lease
    /// that was won is dropped here, and with that released.
    async fn claim(&self, record: LeaseRecord, turn: Turn) -> Result<Claim, Error> {
        let inner = Arc::clone(&self.0);
        let claim = tokio::spawn(async move {
            match inner.save(record).await? {
                Some(record) => Ok(Claim::Won(Keeper::start(inner, record, turn))),
                None => Ok(Claim::Beaten(turn)),
            }
        });
        match claim.await {
            Ok(claimed) => claimed,
            Err(stopped) => Err(StoreError::Unavailable(stopped.to_string()).into()),
        }
    }
}

impl Inner {
    /// The record as it is stored now; `None` where somebody else changed it first.
    async fn save(&self, record: LeaseRecord) -> Result<Option<LeaseRecord>, StoreError> {
        let mut commit = Commit::new();
        commit.put(&record);
        match self.store.commit(commit).await {
            Ok(()) => Ok(Some(LeaseRecord {
                version: record.version + 1,
                ..record
            })),
            Err(CommitError::Conflict { .. } | CommitError::Fenced { .. }) => Ok(None),
            Err(CommitError::Constraint { detail }) => Err(StoreError::Corrupt(detail)),
            Err(CommitError::Store(error)) => Err(error),
        }
    }
}

/// Renews a lease until its holder lets go or it is lost. Its turn ends with it: the next in the queue need not wait
/// for a holder that does not notice its loss.
struct Keeper {
    inner: Arc<Inner>,
    record: LeaseRecord,
    stands_until: watch::Sender<Option<Timestamp>>,
    _turn: Turn,
}

impl Keeper {
    fn start(inner: Arc<Inner>, record: LeaseRecord, turn: Turn) -> Lease {
        let (holding, let_go) = oneshot::channel();
        let (stands_until, stands) = watch::channel(Some(record.expires_at));
        let (fence, clock) = (record.fence(), inner.clock.clone());
        let keeper = Self {
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
            keeper: tokio::spawn(keeper.keep(let_go)),
        }
    }

    async fn keep(mut self, mut let_go: oneshot::Receiver<()>) -> Result<(), Error> {
        let renewal_millis = self.inner.lease_millis / RENEWALS_PER_LEASE;
        let mut renew_at = self.granted_at().plus_millis(renewal_millis);
        loop {
            tokio::select! {
                biased;
                _ = &mut let_go => return self.release().await,
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

    /// Loss is final: a lease that ran out is not renewed, though nobody may have taken it yet. A renewal that is
    /// still under way then may be stored all the same; it runs out by itself.
    async fn renew(&mut self) -> Result<(), Error> {
        let now = self.inner.clock.now();
        let renewed = LeaseRecord {
            expires_at: now.plus_millis(self.inner.lease_millis),
            ..self.record.clone()
        };
        let saved = tokio::select! {
            biased;
            () = self.inner.clock.wait_until(self.record.expires_at) => None,
            saved = self.inner.save(renewed) => saved?,
        };
        self.record = saved.ok_or_else(|| self.lost())?;
        self.stands_until.send_replace(Some(self.record.expires_at));
        Ok(())
    }

    /// The token grows here too, so that the fence of what was released holds no more, though nobody has it yet.
    async fn release(self) -> Result<(), Error> {
        if self.inner.clock.now() >= self.record.expires_at {
            return Err(self.lost());
        }
        let released = LeaseRecord {
            token: self.record.token + 1,
            // Past by everybody's clock, were this one ahead of the others.
            expires_at: Timestamp::from_millis(0),
            ..self.record.clone()
        };
        match self.inner.save(released).await? {
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

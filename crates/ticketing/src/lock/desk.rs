//! Taking, keeping and losing leases, whichever ledger they are written in. State: none of its own but the queues.

use std::sync::Arc;

use contract::Timestamp;
use messaging::{Clock, StoreError, lease::LeaseRecord};
use tokio::sync::{oneshot, watch};

use super::{
    Error, Lease, LockSettings,
    ledger::{Found, Ledger},
    turns::{Turn, Turns},
};

/// A lease is renewed this many times before it would run out.
const RENEWALS_PER_LEASE: i64 = 3;

#[derive(Clone)]
pub(super) struct Desk(Arc<Inner>);

struct Inner {
    ledger: Ledger,
    clock: Clock,
    holder: String,
    lease_millis: i64,
    turns: Turns,
}

enum Tried {
    Won(Lease),
    /// Another has it until then, or was faster; the turn comes back.
    Held(Turn, Option<Timestamp>),
}

impl Desk {
    pub(super) fn new(
        ledger: Ledger,
        clock: Clock,
        holder: String,
        settings: LockSettings,
    ) -> Self {
        Self(Arc::new(Inner {
            ledger,
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
            let mut changes = self.0.ledger.changes();
            match self.try_once(name, turn).await? {
                Tried::Won(lease) => return Ok(lease),
                Tried::Held(back, None) => turn = back,
                Tried::Held(back, Some(until)) => {
                    turn = back;
                    tokio::select! {
                        () = self.0.clock.wait_until(until) => {}
                        () = changes.next() => {}
                    }
                }
            }
        }
    }

    pub(super) async fn try_acquire(&self, name: &str) -> Result<Option<Lease>, Error> {
        let Some(turn) = self.0.turns.try_take(name)? else {
            return Ok(None);
        };
        match self.try_once(name, turn).await? {
            Tried::Won(lease) => Ok(Some(lease)),
            Tried::Held(..) => Ok(None),
        }
    }

    /// Runs apart from the caller: a claim cannot be taken back, so where the caller goes away meanwhile, the lease
    /// that was won is dropped here, and with that released.
    async fn try_once(&self, name: &str, turn: Turn) -> Result<Tried, Error> {
        let (inner, name) = (Arc::clone(&self.0), name.to_owned());
        let tried = tokio::spawn(async move { inner.try_once(name, turn).await });
        match tried.await {
            Ok(tried) => tried,
            Err(stopped) => Err(StoreError::Unavailable(stopped.to_string()).into()),
        }
    }
}

impl Inner {
    async fn try_once(self: Arc<Self>, name: String, turn: Turn) -> Result<Tried, Error> {
        let now = self.clock.now();
        let wanted = LeaseRecord {
            name,
            holder: self.holder.clone(),
            token: 0,
            expires_at: now.plus_millis(self.lease_millis),
            version: 0,
        };
        let free = match self.ledger.look(wanted, now).await? {
            Found::Free(free) => free,
            Found::Held { until } => return Ok(Tried::Held(turn, Some(until))),
        };
        Ok(match self.ledger.claim(free, now).await? {
            Some(record) => Tried::Won(Keeper::start(self, record, turn)),
            None => Tried::Held(turn, None),
        })
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

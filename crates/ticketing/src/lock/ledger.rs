//! Where leases are written. A closed choice of backends, matched here only.
//!
//! **Embedded:** a lease is a record of the store that it protects. The record's version decides between two who claim
//! it at once.
//!
//! **Redis:** a lease is a key of Redis, taken and renewed there, and its release is published, so that who waits in
//! another process hears of it. Redis protects nothing: the token is written to the store before the lease is given,
//! and it is counted on from there. Where Redis loses a lease that is held, the next holder gets a higher token, and
//! the store refuses the fence of the one before.

use contract::Timestamp;
use messaging::{Commit, CommitError, Store, StoreError, lease::LeaseRecord};
use redis::{Script, ScriptInvocation};
use tokio::sync::watch;

use crate::redis_server::RedisServer;

/// What a release is published on.
const CHANNEL: &str = "lock:released";

pub(super) enum Ledger {
    Embedded(Store),
    Redis(Box<Shared>),
}

/// Leases in Redis, their tokens in the store.
pub(super) struct Shared {
    server: RedisServer,
    store: Store,
    claim: Script,
    renew: Script,
    release: Script,
}

/// What is known of a lease that somebody wants.
pub(super) enum Found {
    /// It can be had by claiming this.
    Free(LeaseRecord),
    Held {
        until: Timestamp,
    },
}

/// Wakes who waits, whenever a lease may have been released.
pub(super) enum Changes {
    Committed(watch::Receiver<i64>),
    Told(watch::Receiver<u64>),
}

impl Changes {
    /// The sender lives as long as the ledger, so this cannot fail.
    pub async fn next(&mut self) {
        match self {
            Self::Committed(committed) => _ = committed.changed().await,
            Self::Told(told) => _ = told.changed().await,
        }
    }
}

impl Ledger {
    pub async fn redis(server: RedisServer, store: Store) -> Result<Self, StoreError> {
        server.subscribe(&server.key(CHANNEL)).await?;
        Ok(Self::Redis(Box::new(Shared {
            server,
            store,
            claim: Script::new(include_str!("claim.lua")),
            renew: Script::new(include_str!("renew.lua")),
            release: Script::new(include_str!("release.lua")),
        })))
    }

    pub fn changes(&self) -> Changes {
        match self {
            Self::Embedded(store) => Changes::Committed(store.committed()),
            Self::Redis(shared) => Changes::Told(shared.server.told()),
        }
    }

    /// Whether `wanted.name` is free; then the claim carries the next token.
    pub async fn look(&self, wanted: LeaseRecord, now: Timestamp) -> Result<Found, StoreError> {
        let store = match self {
            Self::Embedded(store) => store,
            Self::Redis(shared) => &shared.store,
        };
        let known: Option<LeaseRecord> = store.load(wanted.name.as_str()).await?;
        let until = match self {
            Self::Embedded(_) => {
                let lease_millis = wanted.expires_at.millis_since(now);
                let standing = known.as_ref().filter(|it| it.stands(now, lease_millis));
                standing.map(|known| known.expires_at)
            }
            Self::Redis(shared) => shared.until(&wanted.name).await?,
        };
        Ok(match until.filter(|until| now < *until) {
            Some(until) => Found::Held { until },
            None => Found::Free(LeaseRecord {
                token: known.as_ref().map_or(0, |known| known.token) + 1,
                version: known.map_or(0, |known| known.version),
                ..wanted
            }),
        })
    }

    /// The lease as it stands now; `None` where somebody else was faster.
    pub async fn claim(
        &self,
        record: LeaseRecord,
        now: Timestamp,
    ) -> Result<Option<LeaseRecord>, StoreError> {
        match self {
            Self::Embedded(store) => save(store, record).await,
            Self::Redis(shared) => shared.claim(record, now).await,
        }
    }

    /// Extends a lease that is held; `None` where it was lost.
    pub async fn renew(
        &self,
        record: LeaseRecord,
        now: Timestamp,
    ) -> Result<Option<LeaseRecord>, StoreError> {
        match self {
            Self::Embedded(store) => save(store, record).await,
            Self::Redis(shared) => {
                let mut call = shared.on(&shared.renew, &record.name);
                call.arg(record.token)
                    .arg(now.as_millis())
                    .arg(record.expires_at.as_millis());
                let renewed: i64 = shared.server.call(&call).await?;
                Ok((renewed == 1).then_some(record))
            }
        }
    }

    /// Gives a lease back that is held; `None` where it was lost. The token grows here too, so that the fence of what
    /// was released holds no more, though nobody has it yet.
    pub async fn release(&self, record: LeaseRecord) -> Result<Option<LeaseRecord>, StoreError> {
        let released = LeaseRecord {
            token: record.token + 1,
            // Past by everybody's clock, were this one ahead of the others.
            expires_at: Timestamp::from_millis(0),
            ..record.clone()
        };
        match self {
            Self::Embedded(store) => save(store, released).await,
            Self::Redis(shared) => {
                let saved = save(&shared.store, released).await?;
                shared.let_go(&record).await?;
                Ok(saved)
            }
        }
    }
}

impl Shared {
    fn on<'a>(&self, script: &'a Script, name: &str) -> ScriptInvocation<'a> {
        script.key(self.server.key(format_args!("lock:{{{name}}}")))
    }

    async fn until(&self, name: &str) -> Result<Option<Timestamp>, StoreError> {
        let mut command = redis::cmd("HGET");
        command
            .arg(self.server.key(format_args!("lock:{{{name}}}")))
            .arg("until");
        let until: Option<i64> = self.server.ask(&command).await?;
        Ok(until.map(Timestamp::from_millis))
    }

    /// First in Redis, so that one of many goes on; then in the store, which has the last word.
    async fn claim(
        &self,
        record: LeaseRecord,
        now: Timestamp,
    ) -> Result<Option<LeaseRecord>, StoreError> {
        let mut call = self.on(&self.claim, &record.name);
        call.arg(record.token)
            .arg(now.as_millis())
            .arg(record.expires_at.as_millis())
            .arg(&record.holder);
        let claimed: i64 = self.server.call(&call).await?;
        if claimed == 0 {
            return Ok(None);
        }
        let saved = save(&self.store, record.clone()).await;
        if !matches!(saved, Ok(Some(_))) {
            // Where this fails it runs out.
            let _ = self.let_go(&record).await;
        }
        saved
    }

    async fn let_go(&self, record: &LeaseRecord) -> Result<(), StoreError> {
        let mut call = self.on(&self.release, &record.name);
        call.arg(record.token)
            .arg(self.server.key(CHANNEL))
            .arg(&record.name);
        self.server.call(&call).await
    }
}

/// The record as it is stored now; `None` where somebody else changed it first.
async fn save(store: &Store, record: LeaseRecord) -> Result<Option<LeaseRecord>, StoreError> {
    let mut commit = Commit::new();
    commit.put(&record);
    match store.commit(commit).await {
        Ok(()) => Ok(Some(LeaseRecord {
            version: record.version + 1,
            ..record
        })),
        Err(CommitError::Conflict { .. } | CommitError::Fenced { .. }) => Ok(None),
        Err(CommitError::Constraint { detail }) => Err(StoreError::Corrupt(detail)),
        Err(CommitError::Store(error)) => Err(error),
    }
}

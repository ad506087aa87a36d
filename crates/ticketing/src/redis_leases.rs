//! Leases in Redis, their tokens in the store that they protect: a ledger for [`messaging::lease`].
//!
//! A lease is a key of Redis, taken and renewed there, and its release is published, so that waiters in other processes
//! are notified. Renewals cost the store nothing. Redis protects nothing: the token is written to the store before the
//! lease is given, and is counted on from there. If Redis loses a lease that is held, the next holder gets a higher
//! token, and the store refuses the fence of the one before.

use contract::Timestamp;
use futures::future::BoxFuture;
use messaging::{
    Store, StoreError,
    lease::{LeaseLedger, LeaseRecord, LeaseState},
};
use redis::{Script, ScriptInvocation};

use crate::redis_server::RedisServer;

/// The channel on which releases are published.
const CHANNEL: &str = "lock:released";

/// Where leases are kept; holds connections, but no lease.
pub struct RedisLeases {
    server: RedisServer,
    store: Store,
    claim: Script,
    renew: Script,
    release: Script,
}

impl RedisLeases {
    /// For commits to `store`.
    ///
    /// # Errors
    /// [`StoreError`] if Redis does not answer.
    pub async fn open(server: RedisServer, store: Store) -> Result<Self, StoreError> {
        server.subscribe(&server.key(CHANNEL)).await?;
        Ok(Self {
            server,
            store,
            claim: Script::new(include_str!("redis_leases/claim.lua")),
            renew: Script::new(include_str!("redis_leases/renew.lua")),
            release: Script::new(include_str!("redis_leases/release.lua")),
        })
    }

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

    async fn delete(&self, record: &LeaseRecord) -> Result<(), StoreError> {
        let mut call = self.on(&self.release, &record.name);
        call.arg(record.token)
            .arg(self.server.key(CHANNEL))
            .arg(&record.name);
        self.server.call(&call).await
    }
}

impl LeaseLedger for RedisLeases {
    fn changed(&self) -> BoxFuture<'static, ()> {
        let mut released = self.server.told();
        Box::pin(async move {
            // The sender lives as long as the server's connection, so the wait cannot fail.
            let _ = released.changed().await;
        })
    }

    fn look(
        &self,
        wanted: LeaseRecord,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<LeaseState, StoreError>> {
        Box::pin(async move {
            let stored: Option<LeaseRecord> = self.store.load(wanted.name.as_str()).await?;
            let until = self.until(&wanted.name).await?;
            Ok(match until.filter(|until| now < *until) {
                Some(until) => LeaseState::Held { until },
                None => LeaseState::Free(wanted.after(stored.as_ref())),
            })
        })
    }

    /// First in Redis, so that one process of many goes on; then in the store, which decides.
    fn claim(
        &self,
        record: LeaseRecord,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Option<LeaseRecord>, StoreError>> {
        Box::pin(async move {
            let mut call = self.on(&self.claim, &record.name);
            call.arg(record.token)
                .arg(now.as_millis())
                .arg(record.expires_at.as_millis())
                .arg(&record.holder);
            let claimed: i64 = self.server.call(&call).await?;
            if claimed == 0 {
                return Ok(None);
            }
            let saved = record.clone().save(&self.store).await;
            if !matches!(saved, Ok(Some(_))) {
                // If this fails, the key expires by its own time.
                let _ = self.delete(&record).await;
            }
            saved
        })
    }

    fn renew(
        &self,
        record: LeaseRecord,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Option<LeaseRecord>, StoreError>> {
        Box::pin(async move {
            let mut call = self.on(&self.renew, &record.name);
            call.arg(record.token)
                .arg(now.as_millis())
                .arg(record.expires_at.as_millis());
            let renewed: i64 = self.server.call(&call).await?;
            Ok((renewed == 1).then_some(record))
        })
    }

    fn release(
        &self,
        record: LeaseRecord,
    ) -> BoxFuture<'_, Result<Option<LeaseRecord>, StoreError>> {
        Box::pin(async move {
            let saved = record.clone().released().save(&self.store).await?;
            self.delete(&record).await?;
            Ok(saved)
        })
    }
}

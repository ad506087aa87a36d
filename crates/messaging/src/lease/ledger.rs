//! Where leases are written: by default in the store that they protect, as records; the record's version decides
//! between two processes that claim a lease at once. Another ledger is an implementation of [`LeaseLedger`].

use futures::future::BoxFuture;

use super::LeaseRecord;
use crate::{Commit, CommitError, Store, StoreError, Timestamp};

/// The state of a lease that a process wants.
pub enum LeaseState {
    /// Claim it by this record, which carries the next token.
    Free(LeaseRecord),
    Held {
        until: Timestamp,
    },
}

/// Writes leases. What it gives protects nothing by itself: the token must be in the store that checks its fences before
/// the lease is given, and must never be given twice.
pub trait LeaseLedger: Send + Sync + 'static {
    /// Resolves after the next change that may have released a lease, counted from this call.
    fn changed(&self) -> BoxFuture<'static, ()>;

    /// Whether the lease `wanted.name` is free.
    fn look(
        &self,
        wanted: LeaseRecord,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<LeaseState, StoreError>>;

    /// The lease as it is stored now; `None` if another process was faster.
    fn claim(
        &self,
        record: LeaseRecord,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Option<LeaseRecord>, StoreError>>;

    /// Extends a lease that is held; `None` if it was lost.
    fn renew(
        &self,
        record: LeaseRecord,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<Option<LeaseRecord>, StoreError>>;

    /// Releases a lease that is held; `None` if it was lost.
    fn release(
        &self,
        record: LeaseRecord,
    ) -> BoxFuture<'_, Result<Option<LeaseRecord>, StoreError>>;
}

/// Leases in the store that they protect.
impl LeaseLedger for Store {
    fn changed(&self) -> BoxFuture<'static, ()> {
        let mut committed = self.committed();
        Box::pin(async move {
            // The sender lives as long as the store, so the wait cannot fail.
            let _ = committed.changed().await;
        })
    }

    fn look(
        &self,
        wanted: LeaseRecord,
        now: Timestamp,
    ) -> BoxFuture<'_, Result<LeaseState, StoreError>> {
        Box::pin(async move {
            let stored: Option<LeaseRecord> = self.load(wanted.name.as_str()).await?;
            let lease_millis = wanted.expires_at.millis_since(now);
            Ok(match stored {
                Some(stored) if stored.stands(now, lease_millis) => LeaseState::Held {
                    until: stored.expires_at,
                },
                stored => LeaseState::Free(wanted.after(stored.as_ref())),
            })
        })
    }

    fn claim(
        &self,
        record: LeaseRecord,
        _: Timestamp,
    ) -> BoxFuture<'_, Result<Option<LeaseRecord>, StoreError>> {
        Box::pin(record.save(self))
    }

    fn renew(
        &self,
        record: LeaseRecord,
        _: Timestamp,
    ) -> BoxFuture<'_, Result<Option<LeaseRecord>, StoreError>> {
        Box::pin(record.save(self))
    }

    fn release(
        &self,
        record: LeaseRecord,
    ) -> BoxFuture<'_, Result<Option<LeaseRecord>, StoreError>> {
        Box::pin(record.released().save(self))
    }
}

impl LeaseRecord {
    /// This claim with the token and version that follow the stored lease.
    #[must_use]
    pub fn after(self, stored: Option<&Self>) -> Self {
        Self {
            token: stored.map_or(0, |stored| stored.token) + 1,
            version: stored.map_or(0, |stored| stored.version),
            ..self
        }
    }

    /// As it is stored after its release. The token grows here too, so that the released fence is refused although no
    /// process holds the next one yet.
    #[must_use]
    pub fn released(self) -> Self {
        Self {
            token: self.token + 1,
            // In the past by every process's clock.
            expires_at: Timestamp::from_millis(0),
            ..self
        }
    }

    /// Stores it; the record as it is stored now, or `None` if another process changed it first.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn save(self, store: &Store) -> Result<Option<Self>, StoreError> {
        let mut commit = Commit::new();
        commit.put(&self);
        match store.commit(commit).await {
            Ok(()) => Ok(Some(Self {
                version: self.version + 1,
                ..self
            })),
            Err(CommitError::Conflict { .. } | CommitError::Fenced { .. }) => Ok(None),
            Err(CommitError::Constraint { detail }) => Err(StoreError::Corrupt(detail)),
            Err(CommitError::Store(error)) => Err(error),
        }
    }
}

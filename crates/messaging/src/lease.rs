//! Leases: one holder at a time, which learns when it lost the lease, and is fenced if it does not stop.
//!
//! A lease is a row of the store that it protects: its holder, a token, and the time at which it expires. A task renews
//! it every third of its time, and stops with the [`Lease`]. The token grows whenever the lease changes hands and when it
//! is released, so the [`Fence`] of an earlier holder is refused in the very transaction that it guards. Time alone
//! protects nothing: a holder that was paused, or whose clock is wrong, may believe that it still leads; what must be
//! safe is committed with the fence.
//!
//! A [`Leader`] does work in one process of those that share a store: each tries to take the lease ten times within its
//! length. A process that stops releases its lease at once; one that dies leaves it held until it expires. The first claim
//! wins, and no process is preferred; of two at once the record's version decides.
//! State: one row for each name ever leased, which is kept because its token must never be given twice.

mod leader;
mod manager;

pub use leader::Leader;
pub use manager::{Lease, LeaseManager};

use serde::{Deserialize, Serialize};

use crate::{
    Commit, CommitError, Fence, Store, StoreError, Timestamp,
    record::{Column, Record, Table},
};

/// Why a lease did not last.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The lease expired, or another process took it; this holder did not release it.
    #[error("the lease {lease} was lost")]
    Lost { lease: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A lease as it is stored: its holder, and until when. The token grows whenever the lease changes hands, so that of a
/// holder that was paused past its lease no longer matches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    pub name: String,
    pub holder: String,
    pub token: i64,
    pub expires_at: Timestamp,
    pub version: i64,
}

impl LeaseRecord {
    /// Whether a process may still hold it. One that expires later than twice its length from now was taken before the
    /// clock was set back; a holder that still lives is stopped by its fence.
    #[must_use]
    pub fn stands(&self, now: Timestamp, lease_millis: i64) -> bool {
        let left = self.expires_at.millis_since(now);
        left > 0 && left <= lease_millis.saturating_mul(2)
    }

    #[must_use]
    pub fn fence(&self) -> Fence {
        Fence {
            lease: self.name.clone(),
            token: self.token,
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

impl Record for LeaseRecord {
    const TABLE: &'static Table = &Table {
        name: "lease",
        columns: &[
            Column::text("name"),
            Column::text("holder"),
            Column::integer("token"),
            Column::text("expires_at"),
            Column::VERSION,
        ],
        key: "name",
        constraints: &[],
        indexes: &[],
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_was_taken_before_the_clock_was_set_back_is_free() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let stands = |left_millis| {
            let lease = LeaseRecord {
                name: "it".to_owned(),
                holder: "somebody".to_owned(),
                token: 1,
                expires_at: now.plus_millis(left_millis),
                version: 1,
            };
            lease.stands(now, 15_000)
        };
        assert!(stands(1) && stands(15_000) && stands(20_000));
        assert!(!stands(0) && !stands(-1) && !stands(1_200_000));
    }
}

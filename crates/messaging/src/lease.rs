//! Leases: one holder at a time, which learns when it lost the lease, and is fenced if it does not stop.
//!
//! A lease names its holder, a token, and the time at which it expires. It is a row of the store that it protects, or is
//! kept elsewhere with its token in that store ([`ledger`]). A task renews it every third of its time, and stops with the
//! [`Lease`]. The token grows whenever the lease changes hands and when it is released, so the [`Fence`] of an earlier
//! holder is refused in the very transaction that it guards. Time alone protects nothing: a holder that was paused, or
//! whose clock is wrong, may believe that it still leads; what must be safe is committed with the fence.
//!
//! Waiters are notified; they do not poll. Those of one process stand in one queue, first come first served, and only
//! its head reads the ledger: when the lease expires, or after a change. Between processes the first claim after a
//! release wins, and no process is preferred. A process that dies with a lease leaves it held until it expires.
//! State: the queues of this process (`queue`), and one row for each name ever leased, which is kept because its token
//! must never be given twice.

pub mod ledger;
mod manager;
mod queue;

pub use ledger::{LeaseLedger, LeaseState};
pub use manager::{Lease, LeaseManager};
pub use queue::WAITERS_MAX;

use serde::{Deserialize, Serialize};

use crate::{
    Fence, StoreError, Timestamp,
    record::{Column, Key, Record, Table},
};

/// Why a lease was not given, or did not last.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The lease expired, or another process took it; this holder did not release it.
    #[error("the lease {lease} was lost")]
    Lost { lease: String },
    /// [`WAITERS_MAX`] tasks of this process wait for it already.
    #[error("too many tasks of this process wait for the lease {lease}")]
    Crowded { lease: String },
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
}

impl Record for LeaseRecord {
    const TABLE: &'static Table = &Table {
        name: "lease",
        columns: &[
            Column::text("name"),
            Column::text("holder"),
            Column::integer("token"),
            Column::text("expires_at"),
            Column::integer("version"),
        ],
        key: "name",
        constraints: &[],
        indexes: &[],
    };
    fn key(&self) -> Key {
        self.name.as_str().into()
    }
    fn version(&self) -> i64 {
        self.version
    }
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

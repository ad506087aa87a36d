//! Leases as they are stored, and what they fence. The lock that takes, renews and loses them is the ticketing
//! service's; the store only checks that a [`Fence`] still holds, in the transaction that it guards.

use crate::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    Fence,
    record::{Column, Key, Record, Table},
};

/// Who leads, until when. The token grows whenever the lease changes hands, so a holder that slept past its lease
/// carries a token that no longer fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    pub name: String,
    pub holder: String,
    pub token: i64,
    pub expires_at: Timestamp,
    pub version: i64,
}

impl LeaseRecord {
    /// Whether somebody may hold it still. One that runs out later than twice its length from now was taken before the
    /// clock was set back; were its holder alive, its fence would be refused.
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

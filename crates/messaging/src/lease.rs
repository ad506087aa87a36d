//! Leases as they are stored, and what they fence. The lock that takes, renews and loses them is the ticketing
//! service's; the store only checks that a [`Fence`] still holds, in the transaction that it guards.

use contract::Timestamp;
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

//! Which gateway the payments of this store belong to: one row, written when they are first served.

use contract::Timestamp;
use messaging::{Column, Key, Record, Table};
use serde::{Deserialize, Serialize};

use crate::gateway::Identity;

/// The key of the only row.
const ONLY: &str = "gateway";

/// The gateway whose charges the payments of this store are. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayRecord {
    name: String,
    pub identity: Identity,
    pub recorded_at: Timestamp,
    pub version: i64,
}

impl GatewayRecord {
    #[must_use]
    pub fn new(identity: Identity, now: Timestamp) -> Self {
        Self {
            name: ONLY.to_owned(),
            identity,
            recorded_at: now,
            version: 0,
        }
    }

    /// The key of the only row.
    #[must_use]
    pub fn id() -> Key {
        ONLY.into()
    }
}

impl Record for GatewayRecord {
    const TABLE: &'static Table = &Table {
        name: "payment_gateway",
        columns: &[
            Column::text("name"),
            Column::json("identity"),
            Column::text("recorded_at"),
            Column::integer("version"),
        ],
        key: "name",
        constraints: &[],
        indexes: &[],
    };
    fn key(&self) -> Key {
        Self::id()
    }
    fn version(&self) -> i64 {
        self.version
    }
}

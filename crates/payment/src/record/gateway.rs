//! The gateway that a store is bound to: one row, inserted at the first start.

use contract::Timestamp;
use messaging::{Column, Key, Record, Table};
use serde::{Deserialize, Serialize};

use super::Identity;

/// The key of the only row.
const ONLY: &str = "gateway";

/// The gateway that charged the payments of this store. Never contains a secret.
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
            Column::VERSION,
        ],
        key: "name",
        constraints: &[],
        indexes: &[],
    };
}

//! The table of saved answers.

use contract::Timestamp;
use messaging::record::{Column, Key, Record, Table};
use serde::{Deserialize, Serialize};

/// The saved answer to a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerRecord {
    pub key: String,
    pub fingerprint: String,
    pub status: u16,
    pub content_type: String,
    pub body: String,
    pub created_at: Timestamp,
    /// 1 if the effect may be undone later; 0 if it is final.
    pub revisable: u8,
    pub version: i64,
}

impl Record for AnswerRecord {
    const TABLE: &'static Table = &Table {
        name: "idempotency",
        columns: &[
            Column::text("key"),
            Column::text("fingerprint"),
            Column::integer("status"),
            Column::text("content_type"),
            Column::text("body"),
            Column::text("created_at"),
            Column::integer("revisable"),
            Column::integer("version"),
        ],
        key: "key",
        constraints: &[],
        indexes: &["(created_at)"],
    };
    fn key(&self) -> Key {
        self.key.as_str().into()
    }
    fn version(&self) -> i64 {
        self.version
    }
}

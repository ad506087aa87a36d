//! The table of saved answers.

use axum::{
    Extension,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use contract::Timestamp;
use messaging::{
    Row, Store, StoreError,
    record::{Column, Record, Table},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LeaveUnsaved, REPLAYED_HEADER, scope::RequestScope};
use crate::Problem;

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
            Column::VERSION,
        ],
        key: "key",
        constraints: &[],
        indexes: &["(created_at)"],
    };
}

impl AnswerRecord {
    /// The saved answer to a request.
    ///
    /// # Errors
    /// 422 if the key was used with another request.
    pub(super) async fn load(store: &Store, scope: &RequestScope) -> Result<Option<Self>, Problem> {
        let (new, older) = (&scope.record_key, &scope.older_key);
        let mut keys = vec![new.as_str().into()];
        keys.extend((new != older).then(|| older.as_str().into()));
        let mut rows = store.load_rows(Self::TABLE, &keys).await?;
        // This program's key takes precedence over that of earlier programs.
        let is_own = |row: &Row| row.get("key").and_then(Value::as_str) == Some(new.as_str());
        rows.sort_by_key(|row| !is_own(row));
        let saved: Option<Self> = rows
            .first()
            .map(Row::read)
            .transpose()
            .map_err(StoreError::from)?;
        match saved {
            Some(saved) if !scope.matches(&saved.fingerprint) => Err(Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "IDEMPOTENCY_KEY_REUSED",
                "this key was used with another body",
            )),
            saved => Ok(saved),
        }
    }

    /// The saved answer as a response.
    pub(super) fn replay(&self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::OK);
        let headers = [
            (header::CONTENT_TYPE, self.content_type.clone()),
            (REPLAYED_HEADER, "true".to_owned()),
        ];
        (status, Extension(LeaveUnsaved), headers, self.body.clone()).into_response()
    }
}

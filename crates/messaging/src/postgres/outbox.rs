//! What another bus asks of the message table, beside [`Postgres::pending`] and [`Postgres::published`].

use std::sync::Arc;

use super::{Postgres, reader::Reader};
use crate::StoreError;

/// A row that is still to be published, by its place and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PendingKey {
    pub(crate) offset: i64,
    pub(crate) topic: String,
    pub(crate) key: String,
}

impl Postgres {
    /// The rows with these keys that are still to be published, by any process, before `offset`.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
    pub(crate) async fn pending_keys(
        &self,
        keys: &[&str],
        offset: i64,
    ) -> Result<Vec<PendingKey>, StoreError> {
        let text =
            "SELECT \"offset\", topic, key FROM message WHERE key = ANY($1) AND \"offset\" < $2";
        let row = |row: &tokio_postgres::Row| PendingKey {
            offset: row.get(0),
            topic: row.get(1),
            key: row.get(2),
        };
        let ask = |reader: Arc<Reader>| async move {
            let rows = reader.ask(text, &[&keys, &offset]).await?;
            Ok(rows.iter().map(row).collect())
        };
        self.readers.with(ask).await
    }
}

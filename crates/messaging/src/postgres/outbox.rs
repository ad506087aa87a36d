//! The message table as an outbox: rows that another bus has yet to publish. This module publishes nothing.

use std::sync::Arc;

use tokio::sync::watch;

#[cfg(feature = "kafka")]
use super::reader::Unparked;
use super::{Postgres, reader::Reader};
use crate::{StoreError, log_cache::StoredMessage};

/// A row that is still to be published: its offset, topic and subject.
#[cfg(feature = "kafka")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pending {
    pub(crate) offset: i64,
    pub(crate) topic: String,
    /// See [`Message::ordered_by`](crate::Message::ordered_by).
    pub(crate) subject: String,
}

impl Postgres {
    /// The rows with these subjects that are still to be published, by any process, before `offset`.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    #[cfg(feature = "kafka")]
    pub(crate) async fn pending_before(
        &self,
        offset: i64,
        subjects: &[&str],
    ) -> Result<Vec<Pending>, StoreError> {
        // One index lookup for each subject: the server may plan `= ANY` as a scan of all rows before the offset.
        let text = "SELECT earlier.*, given.subject FROM unnest($1::text[]) AS given(subject) CROSS JOIN LATERAL
                    (SELECT \"offset\", topic FROM message
                     WHERE coalesce(subject, key) = given.subject AND \"offset\" < $2 OFFSET 0) AS earlier";
        let row = |row: &tokio_postgres::Row| Pending {
            offset: row.get(0),
            topic: row.get(1),
            subject: row.get(2),
        };
        let rows = self.rows(text, &[&subjects, &offset]).await?;
        Ok(rows.iter().map(row).collect())
    }

    /// Messages that are still to be published, by any process, in the order of their offsets: for the relay.
    /// Messages of one key come in the order of their commits.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn pending(&self, limit: u32) -> Result<Vec<StoredMessage>, StoreError> {
        let limit = i64::from(limit);
        let read = |reader: Arc<Reader>| async move { reader.messages_up_to(0, limit).await };
        self.readers.with(read).await
    }

    /// Messages that can be published, in the order of their offsets: not the parked ones, nor those of these topics.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    #[cfg(feature = "kafka")]
    pub(crate) async fn publishable(
        &self,
        without: &[String],
        limit: u32,
    ) -> Result<Vec<StoredMessage>, StoreError> {
        let read = |reader: Arc<Reader>| async move {
            reader.publishable(without, i64::from(limit)).await
        };
        self.readers.with(read).await
    }

    /// The first message of each parked subject whose dead letter is not parked any more.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    #[cfg(feature = "kafka")]
    pub(crate) async fn unparked(&self, limit: u32) -> Result<Vec<Unparked>, StoreError> {
        let read = |reader: Arc<Reader>| async move { reader.unparked(i64::from(limit)).await };
        self.readers.with(read).await
    }

    /// Excludes a message from publishing until this dead letter is replayed or discarded.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    #[cfg(feature = "kafka")]
    pub(crate) async fn park(&self, offset: i64, dead_letter: &str) -> Result<(), StoreError> {
        let text = "UPDATE message SET parked = $2 WHERE \"offset\" = $1";
        self.execute(text, &[&offset, &dead_letter])
            .await
            .map(|_| ())
    }

    /// Parks the messages that follow a parked one of their topic and subject.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    #[cfg(feature = "kafka")]
    pub(crate) async fn park_followers(&self) -> Result<(), StoreError> {
        let text = "UPDATE message m SET parked = p.parked FROM message p
                    WHERE p.parked IS NOT NULL AND m.parked IS NULL AND m.topic = p.topic
                    AND coalesce(m.subject, m.key) = coalesce(p.subject, p.key) AND m.\"offset\" > p.\"offset\"";
        self.execute(text, &[]).await.map(|_| ())
    }

    /// Lets the messages be published that wait for this dead letter.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    #[cfg(feature = "kafka")]
    pub(crate) async fn unpark(&self, dead_letter: &str) -> Result<(), StoreError> {
        let text = "UPDATE message SET parked = NULL WHERE parked = $1";
        self.execute(text, &[&dead_letter]).await.map(|_| ())
    }

    /// How many messages are still to be published, by any process; counts at most `max`.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    #[cfg(feature = "kafka")]
    pub(crate) async fn pending_count(&self, max: i64) -> Result<i64, StoreError> {
        let text = "SELECT count(*) FROM (SELECT 1 FROM message LIMIT $1) AS pending";
        let counted = self.rows(text, &[&max]).await?;
        Ok(counted.first().map_or(0, |row| row.get(0)))
    }

    /// At most `max` messages after `offset` that this process committed: for publishing at once, without reading them
    /// again. `None` if some are no longer in memory; read [`Postgres::pending`] then.
    #[must_use]
    pub fn committed_here(&self, offset: i64, max: usize) -> Option<Vec<StoredMessage>> {
        let found = self.shared.writer.log_cache.read(offset, max, &|_| true)?;
        Some(found.0)
    }

    /// Removes messages that another bus has acknowledged, by their offsets; idempotent.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer; the messages stay and will be published again.
    pub async fn published(&self, offsets: &[i64]) -> Result<u64, StoreError> {
        let text = "DELETE FROM message WHERE \"offset\" = ANY($1)";
        self.execute(text, &[&offsets]).await
    }

    /// The offset of the last message that this process committed.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<i64> {
        self.shared.writer.head()
    }
}

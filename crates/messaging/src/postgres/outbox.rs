//! The message table as another bus sees it: a set of rows that are still to be published. Nothing is published here.

use std::sync::Arc;

use tokio::sync::watch;

#[cfg(feature = "kafka")]
use super::reader::Unparked;
use super::{Postgres, reader::Reader};
use crate::{StoreError, tail::Stored};

/// A row that is still to be published, by its place and by what orders it.
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
    /// [`StoreError`] where the store cannot answer.
    #[cfg(feature = "kafka")]
    pub(crate) async fn pending_before(
        &self,
        offset: i64,
        subjects: &[&str],
    ) -> Result<Vec<Pending>, StoreError> {
        // A look into the index for each: `= ANY` may be planned as a walk over all that came before the offset.
        let text = "SELECT earlier.*, given.subject FROM unnest($1::text[]) AS given(subject) CROSS JOIN LATERAL
                    (SELECT \"offset\", topic FROM message
                     WHERE coalesce(subject, key) = given.subject AND \"offset\" < $2 OFFSET 0) AS earlier";
        let row = |row: &tokio_postgres::Row| Pending {
            offset: row.get(0),
            topic: row.get(1),
            subject: row.get(2),
        };
        let ask = |reader: Arc<Reader>| async move {
            let rows = reader.ask(text, &[&subjects, &offset]).await?;
            Ok(rows.iter().map(row).collect())
        };
        self.readers.with(ask).await
    }

    /// Messages that are still to be published, by any process, in the order of their offsets: for the relay.
    /// Messages of one key come in the order of their commits.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
    pub async fn pending(&self, limit: u32) -> Result<Vec<Stored>, StoreError> {
        let limit = i64::from(limit);
        let read = |reader: Arc<Reader>| async move { reader.messages_up_to(0, limit).await };
        self.readers.with(read).await
    }

    /// Messages that are to be published and can be, in the order of their offsets: none of those that are parked, or of
    /// these topics.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
    #[cfg(feature = "kafka")]
    pub(crate) async fn publishable(
        &self,
        without: &[String],
        limit: u32,
    ) -> Result<Vec<Stored>, StoreError> {
        let read = |reader: Arc<Reader>| async move {
            reader.publishable(without, i64::from(limit)).await
        };
        self.readers.with(read).await
    }

    /// The first message of each parked subject whose dead letter is not parked (any more).
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
    #[cfg(feature = "kafka")]
    pub(crate) async fn unparked(&self, limit: u32) -> Result<Vec<Unparked>, StoreError> {
        let read = |reader: Arc<Reader>| async move { reader.unparked(i64::from(limit)).await };
        self.readers.with(read).await
    }

    /// Takes a message out of what is published: it waits for what becomes of this dead letter.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
    #[cfg(feature = "kafka")]
    pub(crate) async fn park(&self, offset: i64, dead_letter: &str) -> Result<(), StoreError> {
        let text = "UPDATE message SET parked = $2 WHERE \"offset\" = $1";
        let write = |reader: Arc<Reader>| async move {
            let client = reader.client();
            Ok(client.execute(text, &[&offset, &dead_letter]).await?)
        };
        self.readers.with(write).await.map(|_| ())
    }

    /// Parks whatever stands behind a parked message of its topic and subject.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
    #[cfg(feature = "kafka")]
    pub(crate) async fn park_followers(&self) -> Result<(), StoreError> {
        let text = "UPDATE message m SET parked = p.parked FROM message p
                    WHERE p.parked IS NOT NULL AND m.parked IS NULL AND m.topic = p.topic
                    AND coalesce(m.subject, m.key) = coalesce(p.subject, p.key) AND m.\"offset\" > p.\"offset\"";
        let write =
            |reader: Arc<Reader>| async move { Ok(reader.client().execute(text, &[]).await?) };
        self.readers.with(write).await.map(|_| ())
    }

    /// Lets those be published again that waited for this dead letter.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
    #[cfg(feature = "kafka")]
    pub(crate) async fn unpark(&self, dead_letter: &str) -> Result<(), StoreError> {
        let text = "UPDATE message SET parked = NULL WHERE parked = $1";
        let write = |reader: Arc<Reader>| async move {
            Ok(reader.client().execute(text, &[&dead_letter]).await?)
        };
        self.readers.with(write).await.map(|_| ())
    }

    /// How many messages are still to be published, by any process; no more than `max` are looked at.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
    #[cfg(feature = "kafka")]
    pub(crate) async fn pending_count(&self, max: i64) -> Result<i64, StoreError> {
        let text = "SELECT count(*) FROM (SELECT 1 FROM message LIMIT $1) AS pending";
        let count = |reader: Arc<Reader>| async move {
            let counted = reader.ask(text, &[&max]).await?;
            Ok(counted.first().map_or(0, |row| row.get(0)))
        };
        self.readers.with(count).await
    }

    /// Messages behind `offset` that were committed by this process, at most `max`: for publishing at once, without
    /// reading them again. `None` where they are no longer all in memory and must be asked for by
    /// [`Postgres::pending`].
    #[must_use]
    pub fn committed_here(&self, offset: i64, max: usize) -> Option<Vec<Stored>> {
        let found = self.shared.tail.read(offset, max, &|_| true)?;
        Some(found.0)
    }

    /// Removes messages that another bus has taken, by their offsets. Once more does no harm.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer; the messages stay and will be published again.
    pub async fn published(&self, offsets: &[i64]) -> Result<u64, StoreError> {
        let text = "DELETE FROM message WHERE \"offset\" = ANY($1)";
        let remove = |reader: Arc<Reader>| async move {
            Ok(reader.client().execute(text, &[&offsets]).await?)
        };
        self.readers.with(remove).await
    }

    /// The offset of the last message that was committed by this process.
    #[must_use]
    pub fn head(&self) -> watch::Receiver<i64> {
        self.shared.published.subscribe()
    }
}

//! The store: records, and everything that commits with them. A closed enum of backends, matched only here.

use std::{collections::HashSet, path::Path, sync::Arc};

use crate::Timestamp;
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    Commit, CommitError, CommitHandle, Message, Metrics, StoreError,
    housekeeping::{Cleaned, Expiry},
    log_cache::StoredMessage,
    postgres::{Postgres, PostgresSettings},
    record::{Key, Record, Table},
    row::Row,
    sqlite::Sqlite,
};

/// A handle to the store; clones share it.
#[derive(Clone)]
pub enum Store {
    Sqlite(Arc<Sqlite>),
    Postgres(Arc<Postgres>),
}

/// A query for rows of a table, in the order of their key.
#[derive(Debug, Clone)]
pub struct Find {
    pub table: &'static Table,
    /// Rows whose column has this value.
    pub equals: Option<(&'static str, Value)>,
    /// Rows whose text column, which holds a [`Timestamp`], is at or after the first and before the second.
    pub within: Option<(&'static str, Timestamp, Timestamp)>,
    /// Rows for which this SQL predicate holds. It is fixed in the source.
    pub only: Option<&'static str>,
    /// Rows after this key (before it, if `newest_first`).
    pub after: Option<Key>,
    pub newest_first: bool,
    pub limit: u32,
}

impl Find {
    #[must_use]
    pub const fn all(table: &'static Table, limit: u32) -> Self {
        Self {
            table,
            equals: None,
            within: None,
            only: None,
            after: None,
            newest_first: false,
            limit,
        }
    }

    #[must_use]
    pub fn equals(mut self, column: &'static str, value: impl Into<Value>) -> Self {
        self.equals = Some((column, value.into()));
        self
    }

    #[must_use]
    pub const fn within(mut self, column: &'static str, from: Timestamp, to: Timestamp) -> Self {
        self.within = Some((column, from, to));
        self
    }

    #[must_use]
    pub const fn only(mut self, predicate: &'static str) -> Self {
        self.only = Some(predicate);
        self
    }

    #[must_use]
    pub fn after(mut self, key: Option<impl Into<Key>>) -> Self {
        self.after = key.map(Into::into);
        self
    }

    #[must_use]
    pub const fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }
}

/// Commits of one batch, in order, and the position after it.
#[derive(Debug, Default)]
pub struct Submission {
    pub commits: Arc<[Commit]>,
    /// Stored with the commits if all of them are applied.
    pub position: Option<Position>,
}

/// The offset up to which a consumer group has handled everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub group: String,
    pub offset: i64,
}

/// A stored timer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueTimer {
    pub id: String,
    pub due_at: Timestamp,
    pub message: Message,
}

impl Store {
    /// Opens the embedded store in `folder`; creates the folder and tables that are missing.
    ///
    /// # Errors
    /// If the folder cannot be written, another process has it open, or a newer program wrote it.
    pub fn open_embedded(
        folder: &Path,
        tables: &[&'static Table],
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        Sqlite::open(folder, tables, metrics).map(|sqlite| Self::Sqlite(Arc::new(sqlite)))
    }

    /// Opens a schema of a PostgreSQL database; [`Postgres::migrate`] creates it.
    ///
    /// # Errors
    /// If the server cannot be reached, the schema lacks something, or another process has the log open.
    pub async fn open_postgres(
        settings: &PostgresSettings,
        tables: &[&'static Table],
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        let postgres = Postgres::open(settings, tables, metrics).await?;
        Ok(Self::Postgres(Arc::new(postgres)))
    }

    /// The records with these keys; skips a key without a record.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn load_rows(
        &self,
        table: &'static Table,
        keys: &[Key],
    ) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.load(table, keys),
            Self::Postgres(postgres) => postgres.load(table, keys).await,
        }
    }

    /// One record.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn load<R: Record>(&self, key: impl Into<Key>) -> Result<Option<R>, StoreError> {
        let row = self.load_rows(R::TABLE, &[key.into()]).await?.pop();
        Ok(row.as_ref().map(Row::read).transpose()?)
    }

    /// Rows in the order of their key.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn find<T: serde::de::DeserializeOwned>(
        &self,
        find: Find,
    ) -> Result<Vec<T>, StoreError> {
        let rows = match self {
            Self::Sqlite(sqlite) => {
                let sqlite = Arc::clone(sqlite);
                let found = tokio::task::spawn_blocking(move || sqlite.find(&find)).await;
                found.map_err(|error| StoreError::Unavailable(error.to_string()))??
            }
            Self::Postgres(postgres) => postgres.find(&find).await?,
        };
        rows.into_iter().map(|row| Ok(row.read()?)).collect()
    }

    /// Counts the rows for which `only` holds by the value of a column; NULL counts as the empty text.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn count_by(
        &self,
        table: &'static Table,
        column: &'static str,
        only: Option<&'static str>,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.count_by(table, column, only),
            Self::Postgres(postgres) => postgres.count_by(table, column, only).await,
        }
    }

    /// A number that no row of this table has as its key, and that this method has not returned since the store was opened.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn next_id(&self, table: &'static Table) -> Result<i64, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.next_id(table),
            Self::Postgres(postgres) => postgres.next_id(table).await,
        }
    }

    /// Applies one Commit; it is durable when this returns `Ok`. Dropping the future does not undo it.
    ///
    /// # Errors
    /// [`CommitError`]; nothing was changed, unless it [may be applied](CommitError::may_be_applied).
    pub async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        let submission = Submission {
            commits: [commit].into(),
            position: None,
        };
        self.submit(submission)
            .outcomes()
            .await
            .pop()
            .expect("one outcome for one commit")
    }

    /// Queues commits in this order after everything submitted before, and returns at once. The store applies them even
    /// if the handle is dropped.
    #[must_use]
    pub fn submit(&self, submission: Submission) -> CommitHandle {
        match self {
            Self::Sqlite(sqlite) => sqlite.submit(submission),
            Self::Postgres(postgres) => postgres.submit(submission),
        }
    }

    /// Which of these messages `group` has handled.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn seen(
        &self,
        group: &str,
        message_ids: &[&str],
    ) -> Result<HashSet<String>, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.seen(group, message_ids),
            Self::Postgres(postgres) => postgres.seen(group, message_ids).await,
        }
    }

    /// Up to `limit` timers that are due, earliest first.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn due_timers(
        &self,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DueTimer>, StoreError> {
        self.timers((Timestamp::from_millis(i64::MIN), now), limit)
            .await
    }

    /// Up to `limit` timers that are set for later than `at`, earliest first.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn timers_beyond(
        &self,
        at: Timestamp,
        limit: u32,
    ) -> Result<Vec<DueTimer>, StoreError> {
        self.timers((at, Timestamp::from_millis(i64::MAX)), limit)
            .await
    }

    async fn timers(
        &self,
        range: (Timestamp, Timestamp),
        limit: u32,
    ) -> Result<Vec<DueTimer>, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.timers(range, limit),
            Self::Postgres(postgres) => postgres.timers(range, limit).await,
        }
    }

    /// Removes a bounded number of messages that every group in `groups` has handled, and of inbox marks older than
    /// `inbox_before`.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn clean(
        &self,
        groups: &[&'static str],
        inbox_before: Timestamp,
    ) -> Result<Cleaned, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.clean(groups, inbox_before).await,
            Self::Postgres(postgres) => postgres.clean(groups, inbox_before).await,
        }
    }

    /// Removes a bounded number of the rows that `expiry` names and that are older than `before`. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn expire(&self, expiry: &Expiry, before: Timestamp) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.expire(expiry, before).await,
            Self::Postgres(postgres) => postgres.expire(expiry, before).await,
        }
    }

    /// Counts the transactions of this process; changes with each.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<i64> {
        match self {
            Self::Sqlite(sqlite) => sqlite.committed(),
            Self::Postgres(postgres) => postgres.committed(),
        }
    }

    /// Resolves if the store fails for good: stop the process then.
    pub async fn failed(&self) -> String {
        match self {
            Self::Sqlite(sqlite) => sqlite.failed().await,
            Self::Postgres(postgres) => postgres.failed().await,
        }
    }

    /// Whether the store accepts commits.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.check(),
            Self::Postgres(postgres) => postgres.check(),
        }
    }

    /// The offset of the last message on the log.
    pub(crate) fn head(&self) -> watch::Receiver<i64> {
        match self {
            Self::Sqlite(sqlite) => sqlite.published(),
            Self::Postgres(postgres) => postgres.head(),
        }
    }

    /// A group's position on the log.
    pub(crate) fn position(&self, group: &str) -> Result<i64, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.position(group),
            Self::Postgres(postgres) => postgres.position(group),
        }
    }

    /// At most `max` messages after `offset` that are `wanted`, and the offset up to which this has looked.
    pub(crate) async fn read_log(
        &self,
        offset: i64,
        max: usize,
        wanted: &(dyn Fn(&Message) -> bool + Sync),
    ) -> Result<(Vec<StoredMessage>, i64), StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.read(offset, max, &wanted),
            Self::Postgres(postgres) => postgres.read(offset, max, wanted).await,
        }
    }
}

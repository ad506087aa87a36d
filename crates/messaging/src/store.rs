//! The store: records, and everything that commits with them. A closed enum of backends, matched only here.

mod find;

use std::{collections::HashSet, sync::Arc};

use crate::Timestamp;
use tokio::sync::watch;

use crate::{
    Commit, CommitError, CommitHandle, DataFolder, Message, Metrics, StoreError,
    backend::StoreEngine,
    housekeeping::{Cleaned, RowRetention},
    log_cache::StoredMessage,
    postgres::{Postgres, PostgresSettings},
    record::{Key, Record, Table},
    row::Row,
    sqlite::{Sqlite, reader},
    writer_state::WriterState,
};

pub use find::{Find, Pages};

/// A handle to the store; clones share it.
#[derive(Clone)]
pub enum Store {
    Sqlite(Arc<Sqlite>),
    Postgres(Arc<Postgres>),
    /// An engine that this crate does not have.
    Other(Arc<dyn StoreEngine>),
}

/// Commits of one batch, in order, and the position after it.
#[derive(Debug, Default)]
pub struct Submission {
    pub commits: Arc<[Commit]>,
    /// Stored with the commits if all of them are applied.
    pub position: Option<Position>,
}

impl Submission {
    /// Commits without a position.
    #[must_use]
    pub fn of(commits: impl IntoIterator<Item = Commit>) -> Self {
        Self {
            commits: commits.into_iter().collect(),
            position: None,
        }
    }
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
        folder: impl Into<DataFolder>,
        tables: &[&'static Table],
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        Sqlite::open(&folder.into(), tables, metrics).map(|sqlite| Self::Sqlite(Arc::new(sqlite)))
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
        self.state().metrics.store_statements.inc();
        match self {
            Self::Sqlite(sqlite) => sqlite.load(table, keys),
            Self::Postgres(postgres) => postgres.load(table, keys).await,
            Self::Other(engine) => engine.load(table, keys).await,
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
        let rows = self.find_rows(find).await?;
        rows.into_iter().map(|row| Ok(row.read()?)).collect()
    }

    /// As [`Store::find`], without reading the rows.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn find_rows(&self, find: Find) -> Result<Vec<Row>, StoreError> {
        match self {
            Self::Sqlite(sqlite) => {
                let sqlite = Arc::clone(sqlite);
                let read = move || sqlite.find(&find);
                let found = tokio::task::spawn_blocking(read).await;
                found.map_err(|error| StoreError::Unavailable(error.to_string()))?
            }
            Self::Postgres(postgres) => postgres.find(&find).await,
            Self::Other(engine) => engine.find(find).await,
        }
    }

    /// All rows that `find` finds, page by page.
    #[must_use]
    pub const fn pages(&self, find: Find) -> Pages<'_> {
        Pages::new(self, find)
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
            Self::Sqlite(sqlite) => sqlite.with(|it| reader::count_by(it, table, column, only)),
            Self::Postgres(postgres) => postgres.count_by(table, column, only).await,
            Self::Other(engine) => engine.count_by(table, column, only).await,
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
            Self::Other(engine) => engine.next_id(table).await,
        }
    }

    /// Applies one Commit; it is durable when this returns `Ok`. Dropping the future does not undo it.
    ///
    /// # Errors
    /// [`CommitError`]; nothing was changed, unless it [may be applied](CommitError::may_be_applied).
    pub async fn commit(&self, commit: Commit) -> Result<(), CommitError> {
        self.submit(Submission::of([commit]))
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
            Self::Other(engine) => engine.submit(submission),
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
        self.state().metrics.store_statements.inc();
        match self {
            Self::Sqlite(sqlite) => sqlite.with(|it| reader::seen(it, group, message_ids)),
            Self::Postgres(postgres) => postgres.seen(group, message_ids).await,
            Self::Other(engine) => engine.seen(group, message_ids).await,
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

    /// Up to `limit` timers that are due after the first time, up to the second, earliest first.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn timers(
        &self,
        range: (Timestamp, Timestamp),
        limit: u32,
    ) -> Result<Vec<DueTimer>, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.with(|it| reader::timers(it, range, limit)),
            Self::Postgres(postgres) => postgres.timers(range, limit).await,
            Self::Other(engine) => engine.timers(range, limit).await,
        }
    }

    /// Removes a bounded number of messages that every group has handled, those in `groups` and all others that ever
    /// handled one, and of inbox marks older than `inbox_before`.
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
            Self::Other(engine) => engine.clean(groups, inbox_before).await,
        }
    }

    /// Keeps no more messages on the log for a consumer group that will never run again. If it does, it begins at the
    /// oldest message that is left.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn retire_group(&self, group: &str) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.retire(group).await,
            Self::Postgres(postgres) => postgres.retire(group).await,
            Self::Other(engine) => engine.retire_group(group).await,
        }
    }

    /// Removes a bounded number of the rows that `retention` names and that are older than `before`. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn remove_old(
        &self,
        retention: &RowRetention,
        before: Timestamp,
    ) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.remove_old(retention, before).await,
            Self::Postgres(postgres) => postgres.remove_old(retention, before).await,
            Self::Other(engine) => engine.remove_old(retention, before).await,
        }
    }

    /// Counts the transactions of this process; changes with each.
    #[must_use]
    pub fn committed(&self) -> watch::Receiver<i64> {
        self.state().committed()
    }

    /// Resolves if the store fails for good: stop the process then.
    pub async fn failed(&self) -> String {
        self.state().failed().await
    }

    /// Whether the store accepts commits.
    ///
    /// # Errors
    /// Why it does not.
    pub fn check(&self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.state().check_failure(),
            Self::Postgres(postgres) => postgres.check(),
            Self::Other(engine) => engine.state().check_failure(),
        }
    }

    fn state(&self) -> &WriterState {
        match self {
            Self::Sqlite(sqlite) => sqlite.state(),
            Self::Postgres(postgres) => postgres.state(),
            Self::Other(engine) => engine.state(),
        }
    }

    /// The offset of the last message on the log.
    pub(crate) fn head(&self) -> watch::Receiver<i64> {
        self.state().head()
    }

    /// A group's position on the log.
    pub(crate) fn position(&self, group: &str) -> Result<i64, StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.with(|it| reader::position(it, group)),
            Self::Postgres(postgres) => postgres.position(group),
            Self::Other(_) => Err(no_log()),
        }
    }

    /// At most `max` messages after `offset` that are `wanted`, and the offset up to which this has looked.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn read_log(
        &self,
        offset: i64,
        max: usize,
        wanted: &(dyn Fn(&Message) -> bool + Sync),
    ) -> Result<(Vec<StoredMessage>, i64), StoreError> {
        match self {
            Self::Sqlite(sqlite) => sqlite.read(offset, max, &wanted),
            Self::Postgres(postgres) => postgres.read(offset, max, wanted).await,
            Self::Other(_) => Err(no_log()),
        }
    }
}

fn no_log() -> StoreError {
    StoreError::Unavailable(
        "the messages of this store are an outbox, which its own bus reads".to_owned(),
    )
}

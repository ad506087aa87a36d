//! The distributed store: a schema of a PostgreSQL database, 15 or later.
//!
//! One writer applies all waiting submissions in one transaction, with a number of statements that does not depend on
//! how many there are ([`writer`], [`transaction`], [`batch_plan`], [`stage`]). Reads use a small pool. Any number of
//! processes may write one schema; they see each other's changes as conflicts. State: the connections, the log of the
//! messages that this process committed ([`log_cache`](crate::log_cache)), and the positions of its groups.
//!
//! **Isolation** is READ COMMITTED: the statement that changes a row also checks its version, and locks rows in the
//! order of table and key. The writer tries again after a deadlock or a serialization failure.
//!
//! **Sessions** must keep their connection: the schema is the session's `search_path`, statements are prepared, and an
//! advisory lock holds the log. Writer, migration and audit recognise a pooler that shares connections between sessions
//! (PgBouncer with `pool_mode = transaction`) when they connect, and refuse it. A pooler with `pool_mode = session` works.
//!
//! **Differences from the embedded store:** a text cannot hold the character U+0000 (its commit is rejected as breaking
//! a rule); of several reasons to reject a commit it may name another; if a unique value passes from one record
//! to another, commits of different submissions that were waiting together are applied as if in *some* order.
//!
//! **CockroachDB and YugabyteDB** speak the protocol; neither was tested. The store uses no LISTEN/NOTIFY, triggers,
//! stored procedures or system columns. It does use: advisory locks (if the server ignores them, a migration tries again
//! after a collision, and the epoch alone guards the log, so that the process that opened it last wins instead of being
//! refused), `COLLATE "C"`, `FOR UPDATE` and `FOR SHARE` inside a `WITH`, and, for [`MessageTable::Outbox`], a sequence
//! that gives numbers in the order of the rows of one statement and, for rows of one key, in the order of their
//! transactions (a cached sequence does not: set its cache to 1).

mod batch_plan;
mod cleanup;
mod connect;
mod expectation;
mod outbox;
mod pool;
mod reader;
mod registration;
mod rows;
mod schema;
mod settings;
mod shared;
mod snapshot;
mod sql;
mod stage;
mod table_ddl;
mod tls;
mod transaction;
mod unresolved;
mod writer;
mod writer_connection;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_postgres::types::ToSql;

#[cfg(feature = "kafka")]
pub(crate) use outbox::Pending;
pub use settings::{MessageTable, PostgresSettings};
pub(crate) use snapshot::PostgresSnapshot;

use crate::{
    CommitHandle, Message, Metrics, Random, StoreError,
    housekeeping::{Cleaned, InboxCursor, PIECE_ROWS_MAX, RowRetention},
    log_cache::{self, StoredMessage},
    record::{Key, Table},
    row::Row,
    store::{DueTimer, Find, Submission},
    writer_state::WriterState,
};
use connect::Connector;
use pool::ReaderPool;
use reader::Reader;
use registration::WriterRegistration;
use shared::SharedState;
use sql::SqlTexts;
use writer::{Job, Writer};

pub struct Postgres {
    /// `None` only while this is dropped, as the thread.
    jobs: Option<mpsc::UnboundedSender<Job>>,
    readers: ReaderPool,
    texts: Arc<SqlTexts>,
    messages: MessageTable,
    shared: Arc<SharedState>,
    closing: watch::Sender<bool>,
    inbox_cursor: Mutex<InboxCursor>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Postgres {
    /// Creates the schema and what is missing in it; returns the steps taken. Safe to run in several processes at once,
    /// and while an older program runs: it never removes anything.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the server cannot be reached, the user may not create tables, or a column cannot
    /// be added.
    pub async fn migrate(
        settings: &PostgresSettings,
        tables: &[&'static Table],
    ) -> Result<Vec<String>, StoreError> {
        schema::migrate(&Connector::new(settings)?, tables).await
    }

    pub(crate) async fn open(
        settings: &PostgresSettings,
        tables: &[&'static Table],
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        let connector = Connector::new(settings)?;
        let random = Random::System;
        let readers = ReaderPool::new(connector.clone(), settings.connections_max, random.clone())?;
        let texts = Arc::new(SqlTexts::new(tables));
        let shared = Arc::new(SharedState::new(metrics));
        let (closing, closed) = watch::channel(false);
        let (jobs, queue) = mpsc::unbounded_channel();
        let writer = Writer {
            connector,
            tables: tables.to_vec(),
            texts: Arc::clone(&texts),
            messages: settings.messages,
            queue,
            shared: Arc::clone(&shared),
            closing: closed,
            random,
            wait_max: Duration::from_secs(settings.wait_secs_max),
            connection: None,
            registration: WriterRegistration::default(),
            unresolved: None,
            is_schema_unusable: false,
        };
        let (opening, opened) = oneshot::channel();
        let thread = start(writer, opening)?;
        opened
            .await
            .map_err(|_| StoreError::Unavailable("the writer did not start".to_owned()))??;
        Ok(Self {
            jobs: Some(jobs),
            readers,
            texts,
            messages: settings.messages,
            shared,
            closing,
            inbox_cursor: Mutex::default(),
            thread: Some(thread),
        })
    }

    pub(crate) fn submit(&self, submission: Submission) -> CommitHandle {
        let send = |submission, reply| {
            let job = Job {
                submission,
                reply,
                submitted_at: Instant::now(),
            };
            self.jobs
                .as_ref()
                .is_some_and(|jobs| jobs.send(job).is_ok())
        };
        self.state().submit(submission, send)
    }

    pub(crate) async fn load(
        &self,
        table: &'static Table,
        keys: &[Key],
    ) -> Result<Vec<Row>, StoreError> {
        let text = &self.texts.of(table).load;
        self.readers
            .with(|reader| async move { reader.load(text, table, keys).await })
            .await
    }

    pub(crate) async fn find(&self, find: &Find) -> Result<Vec<Row>, StoreError> {
        self.readers
            .with(|reader| async move { reader.find(find).await })
            .await
    }

    pub(crate) async fn count_by(
        &self,
        table: &'static Table,
        column: &'static str,
        only: Option<&'static str>,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        let text = format!(
            "SELECT coalesce(\"{column}\"::text, ''), count(*) FROM \"{}\" WHERE {} GROUP BY \"{column}\"",
            table.name,
            only.unwrap_or("TRUE")
        );
        let counts = self.rows(&text, &[]).await?;
        Ok(counts.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// The rows of a query.
    async fn rows(
        &self,
        text: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<tokio_postgres::Row>, StoreError> {
        let query = |reader: Arc<Reader>| async move { Ok(reader.query(text, parameters).await?) };
        self.readers.with(query).await
    }

    /// Runs a statement on a reading connection; returns how many rows it changed.
    async fn execute(
        &self,
        text: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, StoreError> {
        let execute = |reader: Arc<Reader>| async move {
            Ok(reader.client().execute(text, parameters).await?)
        };
        self.readers.with(execute).await
    }

    pub(crate) async fn seen(
        &self,
        group: &str,
        message_ids: &[&str],
    ) -> Result<HashSet<String>, StoreError> {
        self.readers
            .with(|reader| async move { reader.seen(group, message_ids).await })
            .await
    }

    pub(crate) async fn timers(
        &self,
        range: (Timestamp, Timestamp),
        limit: u32,
    ) -> Result<Vec<DueTimer>, StoreError> {
        self.readers
            .with(|reader| async move { reader.timers(range, limit).await })
            .await
    }

    /// The database gives the number, so that no two processes get the same.
    pub(crate) async fn next_id(&self, table: &'static Table) -> Result<i64, StoreError> {
        // A caller may also store a row under a key of its own choice.
        let stored = format!(
            "(SELECT coalesce(max(\"{}\"), 0) + 1 FROM \"{}\")",
            table.key, table.name
        );
        let text = format!(
            "INSERT INTO next_id (name, next) VALUES ($1, {stored} + 1)
             ON CONFLICT (name) DO UPDATE SET next = greatest(next_id.next, {stored}) + 1 RETURNING next - 1"
        );
        let given = self.rows(&text, &[&table.name]).await?;
        let none = || StoreError::Unavailable("the database returned no number".to_owned());
        given.first().map(|row| row.get(0)).ok_or_else(none)
    }

    /// At most `max` messages after `offset` that are `wanted`, and the offset up to which this has looked.
    pub(crate) async fn read(
        &self,
        offset: i64,
        max: usize,
        wanted: &(dyn Fn(&Message) -> bool + Sync),
    ) -> Result<(Vec<StoredMessage>, i64), StoreError> {
        if let Some(found) = self.shared.writer.log_cache.read(offset, max, &wanted) {
            return Ok(found);
        }
        let scanned = self
            .readers
            .with(|reader| async move { reader.messages(offset).await })
            .await?;
        log_cache::select(scanned.into_iter().map(Ok), offset, max, &wanted)
    }

    pub(crate) fn position(&self, group: &str) -> Result<i64, StoreError> {
        match self.messages {
            MessageTable::Log => Ok(self.shared.position(group)),
            MessageTable::Outbox => Err(StoreError::Unavailable(
                "cannot read a position: the message table is an outbox, which another bus reads"
                    .to_owned(),
            )),
        }
    }

    pub(crate) async fn clean(
        &self,
        groups: &[&'static str],
        inbox_before: Timestamp,
    ) -> Result<Cleaned, StoreError> {
        let passed = match self.messages {
            MessageTable::Log => self.shared.passed_by_all(groups),
            MessageTable::Outbox => 0,
        };
        let from = self.inbox_cursor.lock().clone();
        let from = &from;
        let clean = |reader: Arc<Reader>| async move {
            let messages = cleanup::messages(&reader, passed).await?;
            let writers = cleanup::writers(&reader).await?;
            let (marks, next) = cleanup::inbox(&reader, inbox_before, from).await?;
            Ok((marks.and_removed(messages + writers), next))
        };
        let (cleaned, next) = self.readers.with(clean).await?;
        *self.inbox_cursor.lock() = next;
        Ok(cleaned)
    }

    pub(crate) async fn remove_old(
        &self,
        retention: &RowRetention,
        before: Timestamp,
    ) -> Result<u64, StoreError> {
        let text = crate::sql::remove_old(retention);
        self.execute(&text, &[&before.to_string(), &PIECE_ROWS_MAX])
            .await
    }

    /// Removes the group's position. Its messages are no longer kept for it.
    pub(crate) async fn retire(&self, group: &str) -> Result<(), StoreError> {
        let text = "DELETE FROM consumer WHERE name = $1";
        self.execute(text, &[&group]).await?;
        self.shared.forget(group);
        Ok(())
    }

    pub(crate) fn state(&self) -> &WriterState {
        &self.shared.writer
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.shared.check()
    }
}

/// The writer has a thread of its own, so that dropping the store can wait for it.
fn start(
    writer: Writer,
    opening: oneshot::Sender<Result<(), StoreError>>,
) -> Result<std::thread::JoinHandle<()>, StoreError> {
    let unavailable = |error: std::io::Error| StoreError::Unavailable(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(unavailable)?;
    std::thread::Builder::new()
        .name("postgres-writer".to_owned())
        .spawn(move || runtime.block_on(writer.run(opening)))
        .map_err(unavailable)
}

impl Drop for Postgres {
    /// Waits until the writer has applied what was submitted, as long as the server answers.
    fn drop(&mut self) {
        self.jobs.take();
        self.closing.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A panicked writer has already failed every waiter.
            let _ = thread.join();
        }
    }
}

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
//! a rule); a commit that is stale and also breaks a rule is rejected as stale; if a unique value passes from one record
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
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crate::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

#[cfg(feature = "kafka")]
pub(crate) use outbox::Pending;
pub use settings::{MessageTable, PostgresSettings};
pub(crate) use snapshot::PostgresSnapshot;

use crate::{
    CommitHandle, Message, Metrics, Random, StoreError,
    housekeeping::{Cleaned, Expiry},
    log_cache::{self, StoredMessage},
    record::{Key, Table},
    row::Row,
    store::{DueTimer, Find, Submission},
};
use connect::Connector;
use pool::ReaderPool;
use reader::{ReadError, Reader};
use registration::WriterRegistration;
use shared::SharedState;
use sql::SqlTexts;
use writer::{Job, Writer};

/// Submissions that may wait for the writer; the next is rejected.
const SUBMISSIONS_WAITING_MAX: usize = 8192;
/// Rows that one cleanup removes.
const CLEAN_ROWS_MAX: u32 = 2000;

pub struct Postgres {
    jobs: Mutex<Option<mpsc::UnboundedSender<Job>>>,
    waiting: Arc<AtomicUsize>,
    readers: ReaderPool,
    texts: Arc<SqlTexts>,
    messages: MessageTable,
    shared: Arc<SharedState>,
    closing: watch::Sender<bool>,
    inbox_cursor: Mutex<cleanup::InboxCursor>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    metrics: Arc<Metrics>,
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
        let shared = Arc::new(SharedState::new());
        let waiting = Arc::new(AtomicUsize::new(0));
        let (closing, closed) = watch::channel(false);
        let (jobs, queue) = mpsc::unbounded_channel();
        let writer = Writer {
            connector,
            tables: tables.to_vec(),
            texts: Arc::clone(&texts),
            messages: settings.messages,
            queue,
            waiting: Arc::clone(&waiting),
            shared: Arc::clone(&shared),
            closing: closed,
            metrics: Arc::clone(&metrics),
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
            jobs: Mutex::new(Some(jobs)),
            waiting,
            readers,
            texts,
            messages: settings.messages,
            shared,
            closing,
            inbox_cursor: Mutex::default(),
            thread: Mutex::new(Some(thread)),
            metrics,
        })
    }

    pub(crate) fn submit(&self, submission: Submission) -> CommitHandle {
        let commits = submission.commits.len();
        if let Err(error) = self.shared.writer.check_failure() {
            return CommitHandle::rejected(error, commits);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= SUBMISSIONS_WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return CommitHandle::rejected(StoreError::Overloaded, commits);
        }
        let (reply, outcomes) = oneshot::channel();
        let jobs = self.jobs.lock().expect("no holder of this lock panics");
        // If the writer has stopped, the reply is dropped with the job, and the handle reports that.
        let job = Job {
            submission,
            reply,
            submitted_at: Instant::now(),
        };
        if jobs.as_ref().is_none_or(|jobs| jobs.send(job).is_err()) {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        CommitHandle::pending(outcomes, commits)
    }

    pub(crate) async fn load(
        &self,
        table: &'static Table,
        keys: &[Key],
    ) -> Result<Vec<Row>, StoreError> {
        self.metrics.store_statements.inc();
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
        let text = text.as_str();
        let count = |reader: Arc<Reader>| async move {
            let counts = reader.query(text, &[]).await?;
            Ok(counts.iter().map(|row| (row.get(0), row.get(1))).collect())
        };
        self.readers.with(count).await
    }

    pub(crate) async fn seen(
        &self,
        group: &str,
        message_ids: &[&str],
    ) -> Result<HashSet<String>, StoreError> {
        self.metrics.store_statements.inc();
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
        let text = text.as_str();
        let next = |reader: Arc<Reader>| async move {
            let given = reader.query(text, &[&table.name]).await?;
            let given = given.first().map(|row| row.get(0));
            given.ok_or_else(|| {
                ReadError::Store(StoreError::Unavailable(
                    "the database returned no number".to_owned(),
                ))
            })
        };
        self.readers.with(next).await
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
        let passed = groups.iter().map(|group| self.shared.position(group)).min();
        let passed = passed
            .filter(|_| self.messages == MessageTable::Log)
            .unwrap_or(0);
        let cursor = self
            .inbox_cursor
            .lock()
            .expect("no holder of this lock panics")
            .clone();
        let cursor = &cursor;
        let clean = |reader: Arc<Reader>| async move {
            let reader = &*reader;
            let messages = cleanup::messages(reader, passed, CLEAN_ROWS_MAX).await?;
            let writers = cleanup::writers(reader).await?;
            let (marks, cursor) =
                cleanup::inbox(reader, inbox_before, CLEAN_ROWS_MAX, cursor).await?;
            Ok((marks.and_removed(messages + writers), cursor))
        };
        let (cleaned, cursor) = self.readers.with(clean).await?;
        *self
            .inbox_cursor
            .lock()
            .expect("no holder of this lock panics") = cursor;
        Ok(cleaned)
    }

    pub(crate) async fn expire(
        &self,
        expiry: &Expiry,
        before: Timestamp,
    ) -> Result<u64, StoreError> {
        let expire = |reader: Arc<Reader>| async move {
            cleanup::expired(&reader, expiry, before, CLEAN_ROWS_MAX).await
        };
        self.readers.with(expire).await
    }

    pub(crate) fn committed(&self) -> watch::Receiver<i64> {
        self.shared.writer.committed()
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.shared.check()
    }

    pub(crate) async fn failed(&self) -> String {
        self.shared.writer.failed().await
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
        drop(
            self.jobs
                .lock()
                .expect("no holder of this lock panics")
                .take(),
        );
        self.closing.send_replace(true);
        let thread = self
            .thread
            .lock()
            .expect("no holder of this lock panics")
            .take();
        if let Some(thread) = thread {
            // A panicked writer has already failed every waiter.
            let _ = thread.join();
        }
    }
}

//! The distributed store: a schema of a PostgreSQL database, 15 or later.
//!
//! One writer takes every waiting submission into one transaction, with a number of statements that does not depend
//! on how many there are ([`writer`], [`session`], [`plan`], [`wave`]). Reads go over a small pool. Any number of
//! processes may write one schema; what they do to one another shows as conflicts. State: the connections, the tail
//! of the messages that were committed here, and how far the groups of this process have come.
//!
//! **Isolation** is READ COMMITTED: every row that a decision rests on is checked by its version in the statement
//! that changes it, and rows are locked in the order of table and key. A deadlock or a serialization failure is
//! tried again.
//!
//! **Sessions** are relied on: the schema is the session's `search_path`, statements are prepared, and the log is held
//! by an advisory lock. A pooler that shares connections between sessions (PgBouncer with `pool_mode = transaction`)
//! is recognised whenever the writer connects, and by migration and audit, and is refused. One that keeps a session's
//! connection does no harm.
//!
//! **What differs from the embedded store:** a text may not hold the character U+0000 (its commit is refused as
//! breaking a rule); a commit that rests on something stale and breaks a rule too is told of the former; commits of different submissions that were waiting together are applied as if in *some* order
//! where a unique column passes from one record to another.
//!
//! **CockroachDB and YugabyteDB** speak the protocol; neither was tried. Nothing here uses LISTEN/NOTIFY, triggers,
//! stored procedures or system columns. What remains: advisory locks (taken as ignored: the migration then tries
//! again where two processes collide, and the log is guarded by its epoch alone, so that the process that opened it
//! last wins in place of being refused), `COLLATE "C"`, `FOR UPDATE` and `FOR SHARE` inside a `WITH`, and, for
//! [`MessageTable::Outbox`], a sequence that gives numbers in the order of the rows of one statement and, for rows
//! of one key, in the order of their transactions (a cached sequence does not: set its cache to 1).

mod connect;
mod declared;
mod link;
mod outbox;
mod plan;
mod pool;
mod reader;
mod register;
mod rows;
mod schema;
mod session;
mod settings;
mod shared;
mod snapshot;
mod statements;
mod sweep;
mod tls;
mod unresolved;
mod wave;
mod writer;

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
    Message, Metrics, Random, Receipt, StoreError,
    housekeeping::{Cleaned, Expiry},
    record::{Key, Table},
    row::Row,
    store::{DueTimer, Find, Submission},
    tail::Stored,
};
use connect::Connector;
use pool::Readers;
use reader::{ReadError, Reader};
use register::Registered;
use shared::Shared;
use statements::Statements;
use writer::{Job, Writer};

/// Submissions waiting for the writer; one more is refused.
const SUBMISSIONS_WAITING_MAX: usize = 8192;
/// Rows removed by one cleaning.
const CLEAN_ROWS_MAX: u32 = 2000;

pub struct Postgres {
    jobs: Mutex<Option<mpsc::UnboundedSender<Job>>>,
    waiting: Arc<AtomicUsize>,
    readers: Readers,
    statements: Arc<Statements>,
    messages: MessageTable,
    shared: Arc<Shared>,
    closing: watch::Sender<bool>,
    inbox_cursor: Mutex<sweep::InboxCursor>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    metrics: Arc<Metrics>,
}

impl Postgres {
    /// Makes the schema and whatever is missing in it, and says what that was. Any number of processes may do this
    /// at once, and an older program may be running: nothing is ever taken away.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] where the server cannot be reached, the user may not make tables, or a column
    /// cannot be added.
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
        let readers = Readers::new(connector.clone(), settings.connections_max, random.clone())?;
        let statements = Arc::new(Statements::new(tables));
        let shared = Arc::new(Shared::new());
        let waiting = Arc::new(AtomicUsize::new(0));
        let (closing, closed) = watch::channel(false);
        let (jobs, queue) = mpsc::unbounded_channel();
        let writer = Writer {
            connector,
            tables: tables.to_vec(),
            statements: Arc::clone(&statements),
            messages: settings.messages,
            queue,
            waiting: Arc::clone(&waiting),
            shared: Arc::clone(&shared),
            closing: closed,
            metrics: Arc::clone(&metrics),
            random,
            wait_max: Duration::from_secs(settings.wait_secs_max),
            link: None,
            registered: Registered::default(),
            unresolved: None,
            is_unfit: false,
        };
        let (told, opened) = oneshot::channel();
        let thread = start(writer, told)?;
        opened
            .await
            .map_err(|_| StoreError::Unavailable("the writer did not start".to_owned()))??;
        Ok(Self {
            jobs: Mutex::new(Some(jobs)),
            waiting,
            readers,
            statements,
            messages: settings.messages,
            shared,
            closing,
            inbox_cursor: Mutex::default(),
            thread: Mutex::new(Some(thread)),
            metrics,
        })
    }

    pub(crate) fn submit(&self, submission: Submission) -> Receipt {
        let commits = submission.commits.len();
        if let Err(error) = self.shared.check_failure() {
            return Receipt::refused(error, commits);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= SUBMISSIONS_WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Receipt::refused(StoreError::Overloaded, commits);
        }
        let (reply, outcomes) = oneshot::channel();
        let at = Instant::now();
        let jobs = self.jobs.lock().expect("no holder of this lock panics");
        // Where the writer is gone, the reply is dropped with the job and its waiter is told.
        let job = Job {
            submission,
            reply,
            at,
        };
        if jobs.as_ref().is_none_or(|jobs| jobs.send(job).is_err()) {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        Receipt::waiting(outcomes, commits)
    }

    pub(crate) async fn load(
        &self,
        table: &'static Table,
        keys: &[Key],
    ) -> Result<Vec<Row>, StoreError> {
        self.metrics.store_statements.inc();
        let text = &self.statements.of(table).load;
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
            let counts = reader.ask(text, &[]).await?;
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

    /// The number is given by the database: no process gets what another got.
    pub(crate) async fn next_id(&self, table: &'static Table) -> Result<i64, StoreError> {
        // Rows may also come with a key that somebody else chose.
        let stored = format!(
            "(SELECT coalesce(max(\"{}\"), 0) + 1 FROM \"{}\")",
            table.key, table.name
        );
        let text = format!(
            "INSERT INTO next_id (name, next) VALUES ($1, {stored} + 1)
             ON CONFLICT (name) DO UPDATE SET next = greatest(next_id.next, {stored}) + 1 RETURNING next - 1"
        );
        let text = text.as_str();
        let give = |reader: Arc<Reader>| async move {
            let given = reader.ask(text, &[&table.name]).await?;
            let given = given.first().map(|row| row.get(0));
            given.ok_or_else(|| {
                ReadError::Store(StoreError::Unavailable("no number was given".to_owned()))
            })
        };
        self.readers.with(give).await
    }

    /// Messages after `offset` that `wanted` wants, at most `max`, and the offset up to which this looked.
    pub(crate) async fn read(
        &self,
        offset: i64,
        max: usize,
        wanted: &(dyn Fn(&Message) -> bool + Sync),
    ) -> Result<(Vec<Stored>, i64), StoreError> {
        if let Some(found) = self.shared.tail.read(offset, max, &wanted) {
            return Ok(found);
        }
        let scanned = self
            .readers
            .with(|reader| async move { reader.messages(offset).await })
            .await?;
        let (mut found, mut looked_at) = (Vec::new(), offset);
        for stored in scanned {
            if found.len() == max {
                break;
            }
            looked_at = stored.offset;
            if wanted(&stored.message) {
                found.push(stored);
            }
        }
        Ok((found, looked_at))
    }

    pub(crate) fn position(&self, group: &str) -> Result<i64, StoreError> {
        match self.messages {
            MessageTable::Log => Ok(self.shared.position(group)),
            MessageTable::Outbox => Err(StoreError::Unavailable(
                "the message table is an outbox: another bus reads its messages".to_owned(),
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
        let sweep = |reader: Arc<Reader>| async move {
            let reader = &*reader;
            let messages = sweep::messages(reader, passed, CLEAN_ROWS_MAX).await?;
            let writers = sweep::writers(reader).await?;
            let (marks, cursor) =
                sweep::inbox(reader, inbox_before, CLEAN_ROWS_MAX, cursor).await?;
            Ok((marks.and_removed(messages + writers), cursor))
        };
        let (cleaned, cursor) = self.readers.with(sweep).await?;
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
            sweep::expired(&reader, expiry, before, CLEAN_ROWS_MAX).await
        };
        self.readers.with(expire).await
    }

    pub(crate) fn committed(&self) -> watch::Receiver<i64> {
        self.shared.committed.subscribe()
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.shared.check()
    }

    pub(crate) async fn failed(&self) -> String {
        let mut failure = self.shared.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }
}

/// The writer lives on a thread of its own, so that whoever drops the store can wait for it.
fn start(
    writer: Writer,
    told: oneshot::Sender<Result<(), StoreError>>,
) -> Result<std::thread::JoinHandle<()>, StoreError> {
    let unavailable = |error: std::io::Error| StoreError::Unavailable(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(unavailable)?;
    std::thread::Builder::new()
        .name("postgres-writer".to_owned())
        .spawn(move || runtime.block_on(writer.run(told)))
        .map_err(unavailable)
}

impl Drop for Postgres {
    /// Lets the writer finish what was submitted, as long as the server answers, and waits for it.
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

//! The embedded store: one SQLite file, one writer thread, a few reading connections.
//!
//! The writer applies all waiting commits in one transaction with one fsync ([`writer`]), so that a commit costs less the
//! more of them wait. Reads by key run on the caller's thread: they touch a few pages that are nearly always in memory,
//! and a switch to another thread costs more. State: the file, the newest messages of the log in memory
//! ([`log_cache`](crate::log_cache)), and the next ids.

mod cleanup;
mod read_only;
mod reader;
mod schema;
mod snapshot;
mod sql;
mod stored_table;
mod transaction;
mod upgrade;
mod writer;

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use crate::Timestamp;
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

pub(crate) use snapshot::SqliteSnapshot;

use crate::{
    CommitHandle, Metrics, StoreError,
    housekeeping::{Cleaned, Expiry},
    log_cache::StoredMessage,
    record::{Key, Table},
    row::Row,
    sql::columns,
    store::{DueTimer, Find, Position, Submission},
    writer_state::WriterState,
};
use reader::ReadConnections;
use writer::{Job, Writer};

pub use schema::no_folder;

/// Submissions that may wait for the writer; the next is rejected.
const SUBMISSIONS_WAITING_MAX: usize = 8192;
/// Rows that one cleanup removes.
const CLEAN_ROWS_MAX: u32 = 2000;

pub struct Sqlite {
    /// Keeps other processes out of the folder while the store is open. Dropped first: when the senders below close, the
    /// folder is free.
    _lock: File,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    waiting: Arc<AtomicUsize>,
    readers: ReadConnections,
    texts: Arc<SqlTexts>,
    state: Arc<WriterState>,
    next_ids: Mutex<HashMap<&'static str, i64>>,
    thread: Mutex<Option<std::thread::JoinHandle<()>>>,
    metrics: Arc<Metrics>,
}

impl Sqlite {
    pub(crate) fn open(
        folder: &Path,
        tables: &[&'static Table],
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        let lock = schema::lock_folder(folder)?;
        let path = folder.join(schema::FILE_NAME);
        let connection = schema::open_writer(&path, tables)?;
        let head = schema::last_offset(&connection)?;
        let state = Arc::new(WriterState::new(head));
        let waiting = Arc::new(AtomicUsize::new(0));
        let (jobs, queue) = mpsc::channel();
        let texts = Arc::new(SqlTexts::new(tables));
        let writer = Writer {
            connection,
            texts: Arc::clone(&texts),
            queue,
            waiting: Arc::clone(&waiting),
            state: Arc::clone(&state),
            metrics: Arc::clone(&metrics),
        };
        let thread = std::thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self {
            jobs: Mutex::new(Some(jobs)),
            waiting,
            readers: ReadConnections::open(&path)?,
            texts,
            state,
            next_ids: Mutex::default(),
            thread: Mutex::new(Some(thread)),
            metrics,
            _lock: lock,
        })
    }

    pub(crate) fn submit(&self, submission: Submission) -> CommitHandle {
        let commits = submission.commits.len();
        if let Err(error) = self.check() {
            return CommitHandle::rejected(error, commits);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= SUBMISSIONS_WAITING_MAX {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return CommitHandle::rejected(StoreError::Overloaded, commits);
        }
        let (reply, outcomes) = oneshot::channel();
        if !self.send(Job::Apply { submission, reply }) {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        CommitHandle::pending(outcomes, commits)
    }

    /// If the writer has stopped, the reply is dropped with the job, and its receiver fails.
    fn send(&self, job: Job) -> bool {
        let jobs = self.jobs.lock().expect("no holder of this lock panics");
        jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok())
    }

    pub(crate) fn load(&self, table: &'static Table, keys: &[Key]) -> Result<Vec<Row>, StoreError> {
        self.metrics.store_statements.inc();
        let text = &self.texts.of(table).load;
        self.readers
            .with(|connection| reader::load(connection, text, table, keys))
    }

    pub(crate) fn find(&self, find: &Find) -> Result<Vec<Row>, StoreError> {
        self.readers
            .with(|connection| reader::find(connection, find, &columns(find.table)))
    }

    pub(crate) fn count_by(
        &self,
        table: &'static Table,
        column: &'static str,
        only: Option<&'static str>,
    ) -> Result<Vec<(String, i64)>, StoreError> {
        self.readers
            .with(|connection| reader::count_by(connection, table, column, only))
    }

    pub(crate) fn seen(
        &self,
        group: &str,
        message_ids: &[&str],
    ) -> Result<HashSet<String>, StoreError> {
        self.metrics.store_statements.inc();
        self.readers
            .with(|connection| reader::seen(connection, group, message_ids))
    }

    pub(crate) fn timers(
        &self,
        range: (Timestamp, Timestamp),
        limit: u32,
    ) -> Result<Vec<DueTimer>, StoreError> {
        self.readers
            .with(|connection| reader::timers(connection, range, limit))
    }

    pub(crate) fn next_id(&self, table: &'static Table) -> Result<i64, StoreError> {
        let mut next_ids = self.next_ids.lock().expect("no holder of this lock panics");
        // A caller may also store a row under a key of its own choice.
        let stored = self
            .readers
            .with(|connection| reader::max_key(connection, table))?;
        let given = next_ids.get(table.name).copied().unwrap_or(1);
        let next = given.max(stored + 1);
        next_ids.insert(table.name, next + 1);
        Ok(next)
    }

    /// At most `max` messages after `offset` that are `wanted`, and the offset up to which this has looked.
    pub(crate) fn read(
        &self,
        offset: i64,
        max: usize,
        wanted: &dyn Fn(&crate::Message) -> bool,
    ) -> Result<(Vec<StoredMessage>, i64), StoreError> {
        if let Some(found) = self.state.log_cache.read(offset, max, wanted) {
            return Ok(found);
        }
        self.readers
            .with(|connection| reader::messages(connection, offset, max, wanted))
    }

    pub(crate) fn position(&self, group: &str) -> Result<i64, StoreError> {
        self.readers
            .with(|connection| reader::position(connection, group))
    }

    pub(crate) async fn clean(
        &self,
        groups: &[&'static str],
        inbox_before: Timestamp,
    ) -> Result<Cleaned, StoreError> {
        let (reply, cleaned) = oneshot::channel();
        self.send(Job::Clean {
            groups: groups.to_vec(),
            inbox_before,
            rows_max: CLEAN_ROWS_MAX,
            reply,
        });
        cleaned
            .await
            .map_err(|_| StoreError::Poisoned("the writer has stopped".to_owned()))?
    }

    pub(crate) async fn expire(
        &self,
        expiry: &Expiry,
        before: Timestamp,
    ) -> Result<u64, StoreError> {
        let (reply, expired) = oneshot::channel();
        self.send(Job::Expire {
            expiry: *expiry,
            before,
            rows_max: CLEAN_ROWS_MAX,
            reply,
        });
        expired
            .await
            .map_err(|_| StoreError::Poisoned("the writer has stopped".to_owned()))?
    }

    /// The offset of the last message.
    pub(crate) fn published(&self) -> watch::Receiver<i64> {
        self.state.head()
    }

    pub(crate) fn committed(&self) -> watch::Receiver<i64> {
        self.state.committed()
    }

    pub(crate) fn check(&self) -> Result<(), StoreError> {
        self.state.check_failure()
    }

    pub(crate) async fn failed(&self) -> String {
        self.state.failed().await
    }
}

impl Drop for Sqlite {
    /// Waits until the writer has applied what was submitted.
    fn drop(&mut self) {
        drop(
            self.jobs
                .lock()
                .expect("no holder of this lock panics")
                .take(),
        );
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

/// The store's error for a failed read.
fn read_error(error: &rusqlite::Error) -> StoreError {
    StoreError::Unavailable(error.to_string())
}

/// The texts of the statements on the declared tables, made once when the store is opened.
struct SqlTexts(HashMap<&'static str, TableSql>);

struct TableSql {
    load: String,
    insert: String,
    update: String,
    delete: String,
}

impl SqlTexts {
    fn new(tables: &[&'static Table]) -> Self {
        let texts = |table: &&'static Table| {
            let sql = TableSql {
                load: reader::load_text(table),
                insert: sql::insert_text(table),
                update: sql::update_text(table),
                delete: sql::delete_text(table),
            };
            (table.name, sql)
        };
        Self(tables.iter().map(texts).collect())
    }

    fn of(&self, table: &Table) -> &TableSql {
        self.0
            .get(table.name)
            .expect("the store is opened with every table")
    }
}

fn position_text() -> &'static str {
    "INSERT INTO consumer (name, position) VALUES (?1, ?2)
     ON CONFLICT (name) DO UPDATE SET position = excluded.position WHERE excluded.position > position"
}

fn save_position(connection: &Connection, position: &Position) -> rusqlite::Result<()> {
    connection
        .prepare_cached(position_text())?
        .execute((&position.group, position.offset))?;
    Ok(())
}

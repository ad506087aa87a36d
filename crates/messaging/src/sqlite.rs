//! The embedded store: one SQLite file, one writer thread, a few reading connections.
//!
//! The writer applies all waiting commits in one transaction with one fsync ([`writer`]), so that a commit costs less the
//! more of them wait. Reads by key run on the caller's thread: they touch a few pages that are nearly always in memory,
//! and a switch to another thread costs more. State: the file, the newest messages of the log in memory
//! ([`log_cache`](crate::log_cache)), and the next ids.

mod cleanup;
mod read_only;
pub(crate) mod reader;
mod schema;
mod snapshot;
mod sql;
mod stored_table;
mod transaction;
mod upgrade;
mod writer;

use std::{
    collections::HashMap,
    fs::File,
    sync::{Arc, mpsc},
};

use crate::Timestamp;
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::oneshot;

pub(crate) use snapshot::SqliteSnapshot;

use crate::{
    CommitHandle, DataFolder, Metrics, StoreError,
    housekeeping::{Cleaned, InboxCursor, RowRetention},
    log_cache::StoredMessage,
    record::{Key, Table},
    row::Row,
    store::{Find, Position, Submission},
    writer_state::WriterState,
};
use reader::ReadConnections;
use writer::{Job, Writer};

pub use schema::no_folder;

pub struct Sqlite {
    /// Keeps other processes out of the folder while the store is open. Dropped first: when the senders below close, the
    /// folder is free.
    _lock: File,
    /// `None` only while this is dropped, as the thread.
    jobs: Option<mpsc::Sender<Job>>,
    readers: ReadConnections,
    texts: Arc<SqlTexts>,
    state: Arc<WriterState>,
    next_ids: Mutex<HashMap<&'static str, i64>>,
    inbox_cursor: Mutex<InboxCursor>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Sqlite {
    pub(crate) fn open(
        folder: &DataFolder,
        tables: &[&'static Table],
        metrics: Arc<Metrics>,
    ) -> Result<Self, StoreError> {
        let lock = schema::lock_folder(folder)?;
        let path = schema::file(folder);
        let connection = schema::open_writer(&path, tables)?;
        let head = schema::last_offset(&connection)?;
        let state = Arc::new(WriterState::new(head, metrics));
        let (jobs, queue) = mpsc::channel();
        let texts = Arc::new(SqlTexts::new(tables));
        let writer = Writer {
            connection,
            texts: Arc::clone(&texts),
            queue,
            state: Arc::clone(&state),
        };
        let thread = std::thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Self {
            jobs: Some(jobs),
            readers: ReadConnections::open(&path)?,
            texts,
            state,
            next_ids: Mutex::default(),
            inbox_cursor: Mutex::default(),
            thread: Some(thread),
            _lock: lock,
        })
    }

    pub(crate) fn submit(&self, submission: Submission) -> CommitHandle {
        let send = |submission, reply| self.send(Job::Apply { submission, reply });
        self.state.submit(submission, send)
    }

    /// If the writer has stopped, the reply is dropped with the job, and its receiver fails.
    fn send(&self, job: Job) -> bool {
        let jobs = self.jobs.as_ref();
        jobs.is_some_and(|jobs| jobs.send(job).is_ok())
    }

    pub(crate) fn load(&self, table: &'static Table, keys: &[Key]) -> Result<Vec<Row>, StoreError> {
        let text = &self.texts.of(table).load;
        self.readers
            .with(|connection| reader::load(connection, text, table, keys))
    }

    /// As [`Store::find_rows`](crate::Store::find_rows), on the caller's thread, which it blocks.
    ///
    /// # Errors
    /// [`StoreError`] if the file cannot be read.
    pub fn find(&self, find: &Find) -> Result<Vec<Row>, StoreError> {
        self.with(|connection| reader::find(connection, find))
    }

    pub(crate) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.readers.with(read)
    }

    pub(crate) fn next_id(&self, table: &'static Table) -> Result<i64, StoreError> {
        let mut next_ids = self.next_ids.lock();
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

    pub(crate) async fn clean(
        &self,
        groups: &[&'static str],
        inbox_before: Timestamp,
    ) -> Result<Cleaned, StoreError> {
        let (groups, from) = (groups.to_vec(), self.inbox_cursor.lock().clone());
        let piece = move |connection: &Connection| {
            let messages = cleanup::messages(connection, &groups)?;
            let (marks, next) = cleanup::inbox(connection, inbox_before, &from)?;
            Ok((marks.and_removed(messages as u64), next))
        };
        let (cleaned, next) = self.on_writer(piece).await?;
        *self.inbox_cursor.lock() = next;
        Ok(cleaned)
    }

    pub(crate) async fn remove_old(
        &self,
        retention: &RowRetention,
        before: Timestamp,
    ) -> Result<u64, StoreError> {
        let retention = *retention;
        let piece =
            move |connection: &Connection| cleanup::old_rows(connection, &retention, before);
        Ok(self.on_writer(piece).await? as u64)
    }

    /// Removes the group's position. Its messages are no longer kept for it.
    pub(crate) async fn retire(&self, group: &str) -> Result<(), StoreError> {
        let group = group.to_owned();
        let text = "DELETE FROM consumer WHERE name = ?1";
        let piece = move |connection: &Connection| connection.execute(text, [group]);
        self.on_writer(piece).await.map(|_| ())
    }

    /// Runs a transaction of its own on the writer's thread.
    async fn on_writer<T: Send + 'static>(
        &self,
        piece: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, cleaned) = oneshot::channel();
        self.send(Job::Clean(Box::new(move |writer| {
            // Ignore a dropped waiter.
            let _ = reply.send(writer.clean_piece(piece));
        })));
        let stopped = |_| StoreError::Poisoned("the writer has stopped".to_owned());
        cleaned.await.map_err(stopped)?
    }

    pub(crate) fn state(&self) -> &WriterState {
        &self.state
    }
}

impl Drop for Sqlite {
    /// Waits until the writer has applied what was submitted.
    fn drop(&mut self) {
        self.jobs.take();
        if let Some(thread) = self.thread.take() {
            // A panicked writer has already failed every waiter.
            let _ = thread.join();
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
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

fn save_position(connection: &Connection, position: &Position) -> rusqlite::Result<()> {
    let text = "INSERT INTO consumer (name, position) VALUES (?1, ?2)
                ON CONFLICT (name) DO UPDATE SET position = excluded.position WHERE excluded.position > position";
    let mut statement = connection.prepare_cached(text)?;
    statement.execute((&position.group, position.offset))?;
    Ok(())
}

//! The database of a service, shared by its processes: the embedded store on a file in memory, behind connections that do
//! what those to PostgreSQL may do. Each process has one connection that writes, in order. What a connection was sent
//! survives its process; what the process had not sent is lost with it.
//!
//! State: the rows; until when the server is away or its disk is full.

use std::{
    collections::HashSet,
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::{FutureExt, executor::block_on};
use messaging::{
    Commit, CommitHandle, CommitOutcome, DataFolder, Key, Metrics, Row, Snapshot, Store,
    StoreError, Submission, Table, Timestamp, Unresolved,
    backend::{Answer, StoreEngine},
    housekeeping::{Cleaned, RowRetention},
    store::{DueTimer, Find, Position},
    writer_state::{Reply, WriterState},
};
use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::{
    sync::{Notify, mpsc, oneshot},
    task::unconstrained,
};

use crate::{
    faults::Fault,
    world::{Outage, World, pause},
};

/// The longest wait for a server that is away, as `store.postgres.wait_secs_max`.
const WAIT_MILLIS_MAX: i64 = 3_000;
/// What an index of PostgreSQL takes.
const INDEX_BYTES_MAX: i64 = 2_704;
/// The group in whose name published messages are removed.
const RELAY: &str = "relay";

pub struct Database {
    pub name: &'static str,
    /// Notified by each commit.
    pub committed: Notify,
    world: Arc<World>,
    folder: PathBuf,
    /// The rows, to be read between two steps.
    pub file: Mutex<Connection>,
    rows: Store,
    away: Outage,
    full: Outage,
}

/// What a process has sent to its writing connection.
pub struct Job {
    submission: Submission,
    reply: Reply,
    at: i64,
}

impl Database {
    pub fn open(
        world: &Arc<World>,
        name: &'static str,
        folder: &Path,
        tables: &[&'static Table],
    ) -> Arc<Self> {
        let folder = folder.join(name);
        let rows = Store::open_embedded(data_folder(&folder), tables, Metrics::unregistered());
        let rows = rows.unwrap();
        let file = folder.join(format!("{}.db", boxoffice::backends::PROGRAM.name));
        let file = Connection::open(file).unwrap();
        refuse_odd_texts(&file);
        Arc::new(Self {
            name,
            committed: Notify::new(),
            world: Arc::clone(world),
            rows,
            folder,
            file: Mutex::new(file),
            away: Outage::default(),
            full: Outage::default(),
        })
    }

    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot::open(data_folder(&self.folder)).unwrap()
    }

    /// The store as a process sees it. `engines` is the host of the connection's other end.
    pub fn connect(self: &Arc<Self>, engines: &tokio::runtime::Handle) -> Store {
        let (jobs, received) = mpsc::unbounded_channel();
        let state = Arc::new(WriterState::new(0, Metrics::unregistered()));
        engines.spawn(Arc::clone(self).serve(received, Arc::downgrade(&state)));
        Store::Other(Arc::new(ServerConnection {
            database: Arc::clone(self),
            state,
            jobs,
        }))
    }

    /// Messages after `offset`, which were committed and may be published.
    pub fn outbox(&self, offset: i64) -> Vec<messaging::StoredMessage> {
        self.ask(self.rows.read_log(offset, 1_000, &|_| true))
            .unwrap()
            .0
    }

    /// Removes messages up to this offset.
    pub fn remove_published(&self, offset: i64) {
        let position = Position {
            group: RELAY.to_owned(),
            offset,
        };
        let submission = Submission {
            commits: Arc::default(),
            position: Some(position),
        };
        self.ask(self.rows.submit(submission).outcomes());
        self.ask(self.rows.clean(&[RELAY], Timestamp::from_millis(0)))
            .unwrap();
    }

    /// Waits for the embedded store on this thread: no simulated time passes.
    fn ask<T>(&self, answer: impl Future<Output = T>) -> T {
        block_on(unconstrained(answer))
    }

    async fn serve(
        self: Arc<Self>,
        mut jobs: mpsc::UnboundedReceiver<Job>,
        state: std::sync::Weak<WriterState>,
    ) {
        while let Some(job) = jobs.recv().await {
            let state = state.upgrade();
            if let Some(state) = &state {
                state.received(1);
            } else if self.world.below(2) == 0 {
                self.world.step(format_args!(
                    "{}: a commit was lost with its process",
                    self.name
                ));
                continue;
            }
            self.write(job, state.as_deref()).await;
        }
    }

    async fn write(&self, job: Job, state: Option<&WriterState>) {
        let place = place(self.name, &job.submission.commits);
        pause(self.world.between(1, 15)).await;
        if self.world.strikes(Fault::CommitSlow, &place) {
            pause(self.world.between(100, 2_000)).await;
        }
        let (world, name) = (&self.world, self.name);
        self.away.may_begin(world, Fault::StoreAway, name, 8_000);
        self.full.may_begin(world, Fault::DiskFull, name, 8_000);
        let size = job.submission.commits.len().max(1);
        let failed = |reason: &str| {
            Ok(vec![
                Err(StoreError::Unavailable(reason.to_owned()).into());
                size
            ])
        };
        let is_late = self.world.elapsed() - job.at > WAIT_MILLIS_MAX;
        let answer = if !self.is_back_in_time().await || is_late {
            failed("the server is away")
        } else if self.full.millis_left(world) > 0 {
            failed("the disk is full")
        } else if self.world.strikes(Fault::CommitFails, &place) {
            failed("the connection broke before COMMIT")
        } else if self.world.strikes(Fault::CommitUnknown, &place) {
            return self.lose_answer(job, state, &place).await;
        } else {
            Ok(self.apply(job.submission, state, &place))
        };
        // A dropped waiter undoes nothing.
        let _ = job.reply.send(answer);
    }

    /// Applies or forgets a commit, now or later, and tells which later still. The connection is not there meanwhile.
    async fn lose_answer(&self, job: Job, state: Option<&WriterState>, place: &str) {
        let (resolve, resolved) = oneshot::channel();
        let reason = "the connection broke during COMMIT".to_owned();
        let is_applied = self.world.below(2) == 0;
        let size = job.submission.commits.len().max(1);
        pause(self.world.between(0, 1_000)).await;
        let unresolved = Unresolved::new(reason.clone(), resolved);
        let _ = job.reply.send(Err(unresolved));
        pause(self.world.between(0, 5_000)).await;
        let outcomes = match is_applied {
            true => self.apply(job.submission, state, place),
            false => vec![Err(StoreError::Unavailable(reason).into()); size],
        };
        pause(self.world.between(0, 30_000)).await;
        self.world
            .step(format_args!("{place}: known to be applied: {is_applied}"));
        let _ = resolve.send(outcomes);
    }

    fn apply(
        &self,
        submission: Submission,
        state: Option<&WriterState>,
        place: &str,
    ) -> Vec<CommitOutcome> {
        let outcomes = self.ask(self.rows.submit(submission).outcomes());
        if !place.ends_with(" lease") {
            let text = |outcome: &CommitOutcome| match outcome {
                Ok(()) => "applied".to_owned(),
                Err(error) => error.to_string(),
            };
            let texts: Vec<_> = outcomes.iter().map(text).collect();
            let texts = texts.join("; ");
            self.world.step(format_args!("{place}: {texts}"));
        }
        if let Some(state) = state {
            state.publish(Vec::new());
        }
        self.committed.notify_one();
        outcomes
    }

    async fn is_back_in_time(&self) -> bool {
        let left = self.away.millis_left(&self.world);
        pause(left.min(WAIT_MILLIS_MAX).unsigned_abs()).await;
        left <= WAIT_MILLIS_MAX
    }

    fn read<'a, T: Send>(
        &'a self,
        table: &'static str,
        read: impl Future<Output = Result<T, StoreError>> + Send + 'a,
    ) -> Answer<'a, T> {
        let answer = async move {
            self.world.may_pause(table);
            if self.world.below(4) == 0 {
                pause(self.world.between(1, 20)).await;
            }
            let is_back = self.is_back_in_time().await;
            if !is_back || self.world.strikes(Fault::ReadFails, table) {
                let reason = "the server does not answer".to_owned();
                return Err(StoreError::Unavailable(reason));
            }
            self.ask(read)
        };
        answer.boxed()
    }
}

/// Lets the file refuse what PostgreSQL refuses: a text with U+0000, and a key that is too long for an index.
fn refuse_odd_texts(file: &Connection) {
    let events = "INSERT UPDATE".split(' ').map(|event| {
        format!(
            "SELECT 'CREATE TRIGGER odd_{event}_' || m.name || ' BEFORE {event} ON ' || m.name || ' WHEN '
                || group_concat('instr(CAST(NEW.' || c.name || ' AS BLOB), x''00'')', ' OR ')
                || group_concat(iif(c.pk > 0, ' OR length(CAST(NEW.' || c.name || ' AS BLOB)) > {INDEX_BYTES_MAX}', ''), '')
                || ' BEGIN SELECT RAISE(ABORT, ''a text that PostgreSQL refuses''); END;'
             FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' AND c.type = 'TEXT' GROUP BY m.name"
        )
    });
    for triggers in events {
        let mut statement = file.prepare(&triggers).unwrap();
        let triggers = statement.query_map((), |row| row.get(0)).unwrap();
        let triggers: rusqlite::Result<Vec<String>> = triggers.collect();
        file.execute_batch(&triggers.unwrap().concat()).unwrap();
    }
}

fn data_folder(path: &Path) -> DataFolder {
    boxoffice::backends::data_folder(path)
}

/// The database and the tables that a commit changes, or the topics that it publishes.
fn place(database: &str, commits: &[Commit]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for commit in commits {
        let puts = commit.puts.iter().chain(&commit.appends);
        names.extend(puts.map(|put| put.table.name));
        names.extend(commit.messages.iter().map(|message| message.topic.as_str()));
    }
    names.sort_unstable();
    names.dedup();
    format!("{database} {}", names.join("+"))
}

/// A process's connections to a database.
struct ServerConnection {
    database: Arc<Database>,
    state: Arc<WriterState>,
    jobs: mpsc::UnboundedSender<Job>,
}

impl Deref for ServerConnection {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.database
    }
}

impl StoreEngine for ServerConnection {
    fn state(&self) -> &WriterState {
        &self.state
    }

    fn load<'a>(&'a self, table: &'static Table, keys: &'a [Key]) -> Answer<'a, Vec<Row>> {
        self.read(table.name, self.rows.load_rows(table, keys))
    }

    fn find(&self, find: Find) -> Answer<'_, Vec<Row>> {
        // Not on another thread, of which the simulated clock would not know.
        self.read(find.table.name, async move {
            match &self.rows {
                Store::Sqlite(rows) => rows.find(&find),
                other => other.find_rows(find).await,
            }
        })
    }

    fn count_by(
        &self,
        table: &'static Table,
        column: &'static str,
        only: Option<&'static str>,
    ) -> Answer<'_, Vec<(String, i64)>> {
        self.read(table.name, self.rows.count_by(table, column, only))
    }

    fn next_id(&self, table: &'static Table) -> Answer<'_, i64> {
        self.read(table.name, self.rows.next_id(table))
    }

    fn submit(&self, submission: Submission) -> CommitHandle {
        let at = self.world.elapsed();
        self.world.may_pause(self.name);
        self.state.submit(submission, |submission, reply| {
            let job = Job {
                submission,
                reply,
                at,
            };
            self.jobs.send(job).is_ok()
        })
    }

    fn seen<'a>(
        &'a self,
        group: &'a str,
        message_ids: &'a [&'a str],
    ) -> Answer<'a, HashSet<String>> {
        self.read("inbox", self.rows.seen(group, message_ids))
    }

    fn timers(&self, (from, to): (Timestamp, Timestamp), limit: u32) -> Answer<'_, Vec<DueTimer>> {
        self.read("timer", self.rows.timers((from, to), limit))
    }

    fn clean<'a>(&'a self, _: &'a [&'static str], inbox_before: Timestamp) -> Answer<'a, Cleaned> {
        self.read("inbox", self.rows.clean(&[], inbox_before))
    }

    fn retire_group<'a>(&'a self, group: &'a str) -> Answer<'a, ()> {
        self.read("consumer", self.rows.retire_group(group))
    }

    fn remove_old<'a>(&'a self, retention: &'a RowRetention, before: Timestamp) -> Answer<'a, u64> {
        self.read(
            retention.table.name,
            self.rows.remove_old(retention, before),
        )
    }
}

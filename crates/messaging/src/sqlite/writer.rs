//! The one writer: takes every waiting Commit into one transaction and one fsync.
//!
//! Commits are first applied without savepoints. Where one of them cannot be applied, the whole transaction is
//! rolled back and applied again with a savepoint around each, so that the failing ones fall out alone: conflicts
//! are rare, and the common path pays nothing for them.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Instant,
};

use contract::Timestamp;
use rusqlite::{
    Connection, ErrorCode, ToSql,
    types::{ToSqlOutput, Value as Cell, ValueRef},
};
use serde_json::Value;
use tokio::sync::{oneshot, watch};

use super::{Statements, Stored, save_position, sweep, tail::Tail};
use crate::{
    Commit, CommitError, Message, Metrics, StoreError,
    commit::{Append, Delete, Fence, Handled, Put, TimerChange},
    housekeeping::Expiry,
    record::{Key, Kind, Table},
    row::Row,
    store::Submission,
};

/// Commits taken into one transaction.
const COMMITS_PER_TRANSACTION_MAX: usize = 1024;

pub(super) enum Job {
    Apply {
        submission: Submission,
        reply: oneshot::Sender<Vec<Result<(), CommitError>>>,
    },
    Clean {
        groups: Vec<&'static str>,
        inbox_before: Timestamp,
        rows_max: u32,
        reply: oneshot::Sender<Result<u64, StoreError>>,
    },
    Expire {
        expiry: Expiry,
        before: Timestamp,
        rows_max: u32,
        reply: oneshot::Sender<Result<u64, StoreError>>,
    },
}

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) statements: Arc<Statements>,
    pub(super) queue: mpsc::Receiver<Job>,
    pub(super) waiting: Arc<AtomicUsize>,
    pub(super) tail: Arc<Tail>,
    pub(super) committed: watch::Sender<i64>,
    pub(super) published: watch::Sender<i64>,
    pub(super) failure: Arc<watch::Sender<Option<String>>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) next_offset: i64,
}

type Reply = oneshot::Sender<Vec<Result<(), CommitError>>>;
type Outcome = Result<(), CommitError>;

/// Why a statement of a commit did not do what it should.
enum Trouble {
    /// This commit alone is at fault.
    Commit(CommitError),
    /// The transaction is lost.
    Transaction(rusqlite::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            // The statement was undone by itself, and nothing is wrong with the file.
            Some(
                ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                | ErrorCode::Unknown,
            ) => Self::Commit(CommitError::Constraint {
                detail: error.to_string(),
            }),
            _ => Self::Transaction(error),
        }
    }
}

impl Writer {
    /// Until every sender is gone; what was sent before is applied.
    pub(super) fn run(mut self) {
        let mut inbox_cursor = sweep::InboxCursor::default();
        while let Ok(job) = self.queue.recv() {
            let mut applies = Vec::new();
            let mut cleans = Vec::new();
            let mut commits = 0;
            let mut next = Some(job);
            while let Some(job) = next {
                match job {
                    Job::Apply { submission, reply } => {
                        commits += submission.commits.len().max(1);
                        applies.push((submission, reply));
                    }
                    clean @ (Job::Clean { .. } | Job::Expire { .. }) => cleans.push(clean),
                }
                next = if commits < COMMITS_PER_TRANSACTION_MAX {
                    self.queue.try_recv().ok()
                } else {
                    None
                };
            }
            self.waiting.fetch_sub(applies.len(), Ordering::Relaxed);
            if !applies.is_empty() {
                self.apply(applies);
            }
            for clean in cleans {
                self.clean(clean, &mut inbox_cursor);
            }
        }
    }

    fn apply(&mut self, applies: Vec<(Submission, Reply)>) {
        let started = Instant::now();
        let (submissions, replies): (Vec<_>, Vec<_>) = applies.into_iter().unzip();
        let sizes: Vec<usize> = submissions
            .iter()
            .map(|submission| submission.commits.len())
            .collect();
        let commits: usize = sizes.iter().sum();
        match self.transact(submissions) {
            Ok((outcomes, published)) => {
                if let Some(last) = published.last() {
                    self.next_offset = last.offset + 1;
                    self.metrics
                        .messages_published
                        .inc_by(published.len() as u64);
                    self.tail.append(published);
                }
                fail::fail_point!("store.after_commit", |_| std::process::abort());
                self.metrics
                    .commit_secs
                    .observe(started.elapsed().as_secs_f64());
                self.metrics.commit_size.observe(commits as f64);
                // Before the replies, so that whoever was told of a commit finds its messages on the log.
                let head = self.next_offset - 1;
                // Consumers are woken by messages only: most commits of an on-sale publish none.
                self.published
                    .send_if_modified(|seen| std::mem::replace(seen, head) != head);
                self.committed.send_modify(|commits| *commits += 1);
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    // A waiter that went away does not undo its commit.
                    let _ = reply.send(outcome);
                }
            }
            Err(error) => {
                for (reply, size) in replies.into_iter().zip(sizes) {
                    let _ = reply.send(vec![Err(error.clone().into()); size.max(1)]);
                }
            }
        }
    }

    fn transact(
        &mut self,
        submissions: Vec<Submission>,
    ) -> Result<(Vec<Vec<Outcome>>, Vec<Stored>), StoreError> {
        self.check()?;
        let attempt = match self.attempt(&submissions, false) {
            Err(Trouble::Commit(_)) => {
                self.roll_back()?;
                self.attempt(&submissions, true)
            }
            other => other,
        };
        match attempt {
            Ok(applied) => Ok(applied),
            Err(Trouble::Commit(error)) => {
                Err(self.poison(&format!("a rejected commit broke its transaction: {error}")))
            }
            Err(Trouble::Transaction(error)) => Err(self.lost_transaction(&error)),
        }
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.failure.borrow().as_ref() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Poisoned(reason.clone())),
        }
    }

    fn attempt(
        &self,
        submissions: &[Submission],
        savepoints: bool,
    ) -> Result<(Vec<Vec<Outcome>>, Vec<Stored>), Trouble> {
        self.connection
            .prepare_cached("BEGIN IMMEDIATE")?
            .execute(())?;
        let mut session = Session {
            connection: &self.connection,
            statements: &self.statements,
            next_offset: self.next_offset,
            published: Vec::new(),
        };
        let mut all = Vec::with_capacity(submissions.len());
        for submission in submissions {
            let mut outcomes = Vec::with_capacity(submission.commits.len());
            let mut refused = Refused::default();
            for commit in &*submission.commits {
                let outcome = if savepoints {
                    refused
                        .check(commit)
                        .map_or_else(|| session.apply_alone(commit), |conflict| Ok(Err(conflict)))?
                } else {
                    session.apply(commit).map(Ok)?
                };
                if outcome.is_err() {
                    refused.note(commit);
                }
                outcomes.push(outcome);
            }
            if let Some(position) = submission
                .position
                .as_ref()
                .filter(|_| outcomes.iter().all(Result::is_ok))
            {
                save_position(&self.connection, position)?;
            }
            if outcomes.is_empty() {
                outcomes.push(Ok(()));
            }
            all.push(outcomes);
        }
        fail::fail_point!("store.before_commit", |_| std::process::abort());
        self.connection.prepare_cached("COMMIT")?.execute(())?;
        Ok((all, session.published))
    }

    fn roll_back(&self) -> Result<(), StoreError> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        self.connection
            .execute_batch("ROLLBACK")
            .map_err(|error| self.poison(&error.to_string()))
    }

    /// A full disk or a busy file rolls back cleanly and may pass. Anything else (a failed fsync above all) says
    /// nothing of what is on disk, and the only safe thing left is to stop and recover.
    fn lost_transaction(&self, error: &rusqlite::Error) -> StoreError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                match self.roll_back() {
                    Ok(()) => StoreError::Unavailable(error.to_string()),
                    Err(poisoned) => poisoned,
                }
            }
            _ => self.poison(&error.to_string()),
        }
    }

    fn poison(&self, reason: &str) -> StoreError {
        tracing::error!(reason, "the store has failed; the process must stop");
        self.failure.send_replace(Some(reason.to_owned()));
        StoreError::Poisoned(reason.to_owned())
    }

    /// Runs one piece of cleaning in a transaction of its own.
    fn sweep(
        &self,
        piece: impl FnOnce(&Connection) -> rusqlite::Result<u64>,
    ) -> Result<u64, StoreError> {
        self.check()?;
        let swept = self
            .connection
            .execute_batch("BEGIN IMMEDIATE")
            .and_then(|()| piece(&self.connection))
            .and_then(|removed| {
                fail::fail_point!("store.before_sweep", |_| std::process::abort());
                self.connection.execute_batch("COMMIT").map(|()| removed)
            });
        swept.map_err(|error| match Trouble::from(error) {
            Trouble::Transaction(error) => self.lost_transaction(&error),
            Trouble::Commit(refused) => match self.roll_back() {
                Ok(()) => StoreError::Unavailable(refused.to_string()),
                Err(poisoned) => poisoned,
            },
        })
    }

    fn clean(&self, job: Job, cursor: &mut sweep::InboxCursor) {
        match job {
            Job::Apply { .. } => unreachable!("commits are applied before cleaning begins"),
            Job::Clean {
                groups,
                inbox_before,
                rows_max,
                reply,
            } => {
                let swept = self.sweep(|connection| {
                    let messages = sweep::messages(connection, &groups, rows_max)?;
                    Ok(messages + sweep::inbox(connection, inbox_before, rows_max, cursor)?)
                });
                let _ = reply.send(swept);
            }
            Job::Expire {
                expiry,
                before,
                rows_max,
                reply,
            } => {
                let swept =
                    self.sweep(|connection| sweep::expired(connection, &expiry, before, rows_max));
                let _ = reply.send(swept);
            }
        }
    }
}

/// A writer that broke takes nothing more, and says so.
impl Drop for Writer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.poison("the writer broke");
        }
    }
}

/// What refused commits of a submission would have changed. A later one that was decided on it must not be applied,
/// even though another writer may have brought a record to the very version that it expects.
#[derive(Default)]
struct Refused<'a> {
    changed: HashSet<(&'static str, &'a Key)>,
    /// Keys of messages whose commits were refused: a later message of the key waits for the earlier one.
    keys: HashSet<&'a str>,
}

impl<'a> Refused<'a> {
    fn note(&mut self, commit: &'a Commit) {
        self.changed.extend(commit.changed());
        self.keys
            .extend(commit.handled.as_ref().map(|handled| handled.key.as_str()));
    }

    fn check(&self, commit: &Commit) -> Option<CommitError> {
        let waits = commit
            .handled
            .as_ref()
            .filter(|handled| self.keys.contains(handled.key.as_str()));
        if let Some(handled) = waits {
            return Some(CommitError::Conflict {
                table: "message".to_owned(),
                key: handled.key.clone(),
            });
        }
        let concerns = commit.concerns.iter().map(|it| (it.table.name, &it.key));
        let (table, key) = concerns
            .chain(commit.changed())
            .find(|changed| self.changed.contains(changed))?;
        Some(CommitError::Conflict {
            table: table.to_owned(),
            key: key.to_string(),
        })
    }
}

/// One transaction in the making.
struct Session<'a> {
    connection: &'a Connection,
    statements: &'a Statements,
    next_offset: i64,
    published: Vec<Stored>,
}

impl Session<'_> {
    /// Applies a commit so that it can fall out alone.
    fn apply_alone(&mut self, commit: &Commit) -> Result<Outcome, Trouble> {
        let published = self.published.len();
        let next_offset = self.next_offset;
        self.connection
            .prepare_cached("SAVEPOINT one")?
            .execute(())?;
        let outcome = match self.apply(commit) {
            Ok(()) => Ok(()),
            Err(Trouble::Commit(error)) => {
                self.connection
                    .prepare_cached("ROLLBACK TO one")?
                    .execute(())?;
                self.published.truncate(published);
                self.next_offset = next_offset;
                Err(error)
            }
            Err(lost) => return Err(lost),
        };
        self.connection.prepare_cached("RELEASE one")?.execute(())?;
        Ok(outcome)
    }

    fn apply(&mut self, commit: &Commit) -> Result<(), Trouble> {
        for fence in &commit.fences {
            self.check_fence(fence)?;
        }
        if let Some(handled) = &commit.handled {
            self.mark_handled(handled)?;
        }
        for put in &commit.puts {
            self.put(put)?;
        }
        for delete in &commit.deletes {
            self.delete(delete)?;
        }
        for append in &commit.appends {
            self.append(append)?;
        }
        for message in &commit.messages {
            self.publish(message)?;
        }
        for timer in &commit.timers {
            self.change_timer(timer)?;
        }
        Ok(())
    }

    fn check_fence(&self, fence: &Fence) -> Result<(), Trouble> {
        let text = "SELECT count(*) FROM lease WHERE name = ?1 AND token = ?2";
        let held: i64 = self
            .connection
            .prepare_cached(text)?
            .query_row((&fence.lease, fence.token), |row| row.get(0))?;
        if held == 1 {
            Ok(())
        } else {
            Err(Trouble::Commit(CommitError::Fenced {
                lease: fence.lease.clone(),
            }))
        }
    }

    /// A message that was handled meanwhile must not be handled again.
    fn mark_handled(&self, handled: &Handled) -> Result<(), Trouble> {
        let text =
            "INSERT OR IGNORE INTO inbox (consumer, message_id, seen_at) VALUES (?1, ?2, ?3)";
        let mark = (&handled.group, &handled.message_id, handled.at.as_millis());
        match self.connection.prepare_cached(text)?.execute(mark)? {
            0 => Err(conflict("inbox", &handled.message_id)),
            _ => Ok(()),
        }
    }

    fn put(&self, put: &Put) -> Result<(), Trouble> {
        let statements = self.statements.of(put.table);
        let changed = match put.expected {
            0 => self.execute(&statements.insert, &put.row, None)?,
            expected => self.execute(&statements.update, &put.row, Some(expected))?,
        };
        if changed == 1 {
            Ok(())
        } else {
            Err(conflict(put.table.name, &put.key))
        }
    }

    /// Runs a statement whose parameters are the values of a row, and perhaps one more.
    fn execute(&self, text: &str, row: &Row, last: Option<i64>) -> rusqlite::Result<usize> {
        let mut statement = self.connection.prepare_cached(text)?;
        let columns = row.table().columns.iter().zip(row.values());
        for (place, (column, value)) in columns.enumerate() {
            statement.raw_bind_parameter(place + 1, Bound(column.kind, value))?;
        }
        if let Some(last) = last {
            statement.raw_bind_parameter(row.values().len() + 1, last)?;
        }
        statement.raw_execute()
    }

    fn delete(&self, delete: &Delete) -> Result<(), Trouble> {
        let table = delete.table;
        let text = &self.statements.of(table).delete;
        let removed = self
            .connection
            .prepare_cached(text)?
            .execute((Cell::from(&delete.key), delete.expected))?;
        match delete.expected {
            Some(_) if removed != 1 => Err(conflict(table.name, &delete.key)),
            Some(_) | None => Ok(()),
        }
    }

    /// An entry that is there already was decided by another: unique keys of entries are stable ids.
    fn append(&self, append: &Append) -> Result<(), Trouble> {
        match self.execute(&self.statements.of(append.table).insert, &append.row, None)? {
            1 => Ok(()),
            _ => Err(conflict(append.table.name, &append.row[append.table.key])),
        }
    }

    fn publish(&mut self, message: &Arc<Message>) -> Result<(), Trouble> {
        let text = "INSERT INTO message (offset, id, topic, key, time, payload, reissue) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
        let offset = self.next_offset;
        self.connection.prepare_cached(text)?.execute((
            offset,
            &message.id,
            &message.topic,
            &message.key,
            message.time.as_millis(),
            &message.payload,
            reissue_text(message),
        ))?;
        self.next_offset += 1;
        self.published.push(Stored {
            offset,
            message: Arc::clone(message),
        });
        Ok(())
    }

    fn change_timer(&mut self, change: &TimerChange) -> Result<(), Trouble> {
        match change {
            TimerChange::Set {
                id,
                due_at,
                message,
            } => {
                let text = "INSERT INTO timer (id, due_at, message_id, topic, key, payload, reissue)
                            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                            ON CONFLICT (id) DO UPDATE SET due_at = excluded.due_at, message_id = excluded.message_id,
                            topic = excluded.topic, key = excluded.key, payload = excluded.payload,
                            reissue = excluded.reissue";
                self.connection.prepare_cached(text)?.execute((
                    id,
                    due_at.as_millis(),
                    &message.id,
                    &message.topic,
                    &message.key,
                    &message.payload,
                    reissue_text(message),
                ))?;
            }
            TimerChange::Cancel { id } => {
                self.connection
                    .prepare_cached("DELETE FROM timer WHERE id = ?1")?
                    .execute([id])?;
            }
            TimerChange::Fire {
                id,
                due_at,
                message,
            } => {
                // The time alone does not tell: a timer may be replaced by another for the same instant.
                let text = "DELETE FROM timer WHERE id = ?1 AND due_at = ?2 AND message_id = ?3";
                if self.connection.prepare_cached(text)?.execute((
                    id,
                    due_at.as_millis(),
                    &message.id,
                ))? == 1
                {
                    self.publish(&Arc::new(message.clone()))?;
                }
            }
        }
        Ok(())
    }
}

fn conflict(table: &str, key: &impl std::fmt::Display) -> Trouble {
    Trouble::Commit(CommitError::Conflict {
        table: table.to_owned(),
        key: key.to_string(),
    })
}

fn reissue_text(message: &Message) -> Option<String> {
    let reissue = message.reissue.as_ref()?;
    Some(serde_json::to_string(reissue).expect("a reissue has string keys only"))
}

pub(super) fn insert_text(table: &Table) -> String {
    let names: Vec<_> = table
        .columns
        .iter()
        .map(|column| format!("\"{}\"", column.name))
        .collect();
    let places: Vec<_> = (1..=names.len()).map(|place| format!("?{place}")).collect();
    // A row of this key is another writer's; any other rule that is broken is the commit's own fault.
    format!(
        "INSERT INTO \"{}\" ({}) VALUES ({}) ON CONFLICT (\"{}\") DO NOTHING",
        table.name,
        names.join(", "),
        places.join(", "),
        table.key
    )
}

pub(super) fn delete_text(table: &Table) -> String {
    format!(
        "DELETE FROM \"{}\" WHERE \"{}\" = ?1 AND version = coalesce(?2, version)",
        table.name, table.key
    )
}

pub(super) fn update_text(table: &Table) -> String {
    let mut sets = Vec::new();
    let mut key_place = 0;
    for (place, column) in table.columns.iter().enumerate() {
        if column.name == table.key {
            key_place = place + 1;
        } else {
            sets.push(format!("\"{}\" = ?{}", column.name, place + 1));
        }
    }
    let expected_place = table.columns.len() + 1;
    format!(
        "UPDATE \"{}\" SET {} WHERE \"{}\" = ?{key_place} AND version = ?{expected_place}",
        table.name,
        sets.join(", "),
        table.key
    )
}

/// A value on its way into a column, without a copy where it is a text.
struct Bound<'a>(Kind, &'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match (self.0, self.1) {
            (_, Value::Null) => ToSqlOutput::Owned(Cell::Null),
            (Kind::Json, value) => ToSqlOutput::Owned(Cell::Text(value.to_string())),
            (_, Value::Bool(yes)) => ToSqlOutput::Owned(Cell::Integer(i64::from(*yes))),
            (_, Value::Number(number)) => ToSqlOutput::Owned(match number.as_i64() {
                Some(whole) => Cell::Integer(whole),
                // The column refuses it.
                None => Cell::Text(number.to_string()),
            }),
            (_, Value::String(text)) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            (_, value @ (Value::Array(_) | Value::Object(_))) => {
                ToSqlOutput::Owned(Cell::Text(value.to_string()))
            }
        })
    }
}

//! The one writer: takes every waiting Commit into one transaction and one fsync.
//!
//! Commits are first applied without savepoints. Where one of them cannot be applied, the whole transaction is
//! rolled back and applied again with a savepoint around each, so that the failing ones fall out alone: conflicts
//! are rare, and the common path pays nothing for them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Instant,
};

use crate::Timestamp;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{oneshot, watch};

use super::{
    Statements, save_position,
    session::{Outcome, Session, Trouble},
    sweep,
};
use crate::{
    Metrics, StoreError,
    housekeeping::{Cleaned, Expiry},
    receipt::Answer,
    refused::Refused,
    store::Submission,
    tail::{Stored, Tail},
};

/// Commits taken into one transaction.
const COMMITS_PER_TRANSACTION_MAX: usize = 1024;

pub(super) enum Job {
    Apply {
        submission: Submission,
        reply: Reply,
    },
    Clean {
        groups: Vec<&'static str>,
        inbox_before: Timestamp,
        rows_max: u32,
        reply: oneshot::Sender<Result<Cleaned, StoreError>>,
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

type Reply = oneshot::Sender<Answer>;

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
        self.fold_log();
    }

    /// Copies the write-ahead log into the file, so that after a clean stop the file alone is everything.
    fn fold_log(&self) {
        let fold = || {
            self.connection
                .query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))
        };
        if let Err(error) = self
            .check()
            .map_err(|error| error.to_string())
            .and_then(|()| fold().map_err(|error| error.to_string()))
        {
            tracing::warn!(error, "the write-ahead log stays beside the store");
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
                    let _ = reply.send(Ok(outcome));
                }
            }
            Err(error) => {
                for (reply, size) in replies.into_iter().zip(sizes) {
                    let _ = reply.send(Ok(vec![Err(error.clone().into()); size.max(1)]));
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
    /// nothing of what is on disk, or would meet every commit (rows of another program in the log, a table that is
    /// gone), and the only safe thing left is to stop and recover.
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
    fn sweep<T>(
        &self,
        piece: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.check()?;
        let swept = self
            .connection
            .execute_batch("BEGIN IMMEDIATE")
            .and_then(|()| piece(&self.connection))
            .and_then(|swept| {
                fail::fail_point!("store.before_sweep", |_| std::process::abort());
                self.connection.execute_batch("COMMIT").map(|()| swept)
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
                    let marks = sweep::inbox(connection, inbox_before, rows_max, cursor)?;
                    Ok(marks.and_removed(messages))
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

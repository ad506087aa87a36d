//! The writer: applies all waiting commits in one transaction with one fsync.
//!
//! Commits are first applied without savepoints. If one of them is rejected, the writer rolls the transaction back and
//! applies all again with a savepoint around each, so that only the rejected ones are undone: rejections are rare, and
//! the common path does not pay for them.

use std::{
    sync::{Arc, mpsc},
    time::Instant,
};

use rusqlite::{Connection, ErrorCode};

use super::{
    SqlTexts, save_position,
    transaction::{ApplyError, OpenTransaction},
};
use crate::{
    CommitOutcome, StoreError,
    dependency_check::DependencyCheck,
    log_cache::StoredMessage,
    store::Submission,
    writer_state::{Reply, WriterState, answer},
};

/// Commits per transaction.
const COMMITS_PER_TRANSACTION_MAX: usize = 1024;

pub(super) enum Job {
    Apply {
        submission: Submission,
        reply: Reply,
    },
    /// Runs between two transactions.
    Clean(Box<dyn FnOnce(&Writer) + Send>),
}

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) texts: Arc<SqlTexts>,
    pub(super) queue: mpsc::Receiver<Job>,
    pub(super) state: Arc<WriterState>,
}

impl Writer {
    /// Runs until every sender is dropped; applies everything that was sent before.
    pub(super) fn run(mut self) {
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
                    Job::Clean(clean) => cleans.push(clean),
                }
                next = if commits < COMMITS_PER_TRANSACTION_MAX {
                    self.queue.try_recv().ok()
                } else {
                    None
                };
            }
            self.state.received(applies.len());
            if !applies.is_empty() {
                self.apply(applies);
            }
            for clean in cleans {
                clean(&self);
            }
        }
        self.checkpoint();
    }

    /// Copies the write-ahead log into the file, so that after a clean stop the file alone holds everything.
    fn checkpoint(&self) {
        let truncate = || {
            let text = "PRAGMA wal_checkpoint(TRUNCATE)";
            Ok(self.connection.query_row(text, (), |_| Ok(()))?)
        };
        if let Err(error) = self.state.check_failure().and_then(|()| truncate()) {
            tracing::warn!(
                %error,
                "cannot copy the write-ahead log into the store's file; it stays beside it"
            );
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
                fail::fail_point!("store.after_commit", |_| std::process::abort());
                self.state.observe(started, commits);
                // Before the replies, so that the submitter of a commit finds its messages on the log.
                self.state.publish(published);
                answer(replies, outcomes);
            }
            Err(error) => {
                let failed = |size: usize| vec![Err(error.clone().into()); size.max(1)];
                answer(replies, sizes.into_iter().map(failed).collect());
            }
        }
    }

    fn transact(
        &mut self,
        submissions: Vec<Submission>,
    ) -> Result<(Vec<Vec<CommitOutcome>>, Vec<StoredMessage>), StoreError> {
        self.state.check_failure()?;
        let attempt = match self.attempt(&submissions, false) {
            Err(ApplyError::Commit(_)) => {
                self.roll_back()?;
                self.attempt(&submissions, true)
            }
            other => other,
        };
        match attempt {
            Ok(applied) => Ok(applied),
            Err(ApplyError::Commit(error)) => Err(self
                .state
                .poison(&format!("a rejected commit broke its transaction: {error}"))),
            Err(ApplyError::Transaction(error)) => Err(self.transaction_failed(&error)),
        }
    }

    fn attempt(
        &self,
        submissions: &[Submission],
        savepoints: bool,
    ) -> Result<(Vec<Vec<CommitOutcome>>, Vec<StoredMessage>), ApplyError> {
        self.connection
            .prepare_cached("BEGIN IMMEDIATE")?
            .execute(())?;
        let mut transaction = OpenTransaction {
            connection: &self.connection,
            texts: &self.texts,
            next_offset: self.state.next_offset(),
            published: Vec::new(),
        };
        let mut all = Vec::with_capacity(submissions.len());
        for submission in submissions {
            let mut outcomes = Vec::with_capacity(submission.commits.len());
            let mut dependencies = DependencyCheck::default();
            for commit in &*submission.commits {
                let outcome = if savepoints {
                    dependencies.check(commit).map_or_else(
                        || transaction.apply_alone(commit),
                        |conflict| Ok(Err(conflict)),
                    )?
                } else {
                    transaction.apply(commit).map(Ok)?
                };
                if outcome.is_err() {
                    dependencies.add_rejected(commit);
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
        Ok((all, transaction.published))
    }

    fn roll_back(&self) -> Result<(), StoreError> {
        if self.connection.is_autocommit() {
            return Ok(());
        }
        self.connection
            .execute_batch("ROLLBACK")
            .map_err(|error| self.state.poison(&error.to_string()))
    }

    /// A full disk or a busy file rolls back cleanly and may be temporary. After any other error (above all a failed
    /// fsync) the state on disk is unknown, or every commit would fail (another program's rows in the log, a missing
    /// table): only a stop and a recovery are safe.
    fn transaction_failed(&self, error: &rusqlite::Error) -> StoreError {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                match self.roll_back() {
                    Ok(()) => StoreError::Unavailable(error.to_string()),
                    Err(poisoned) => poisoned,
                }
            }
            _ => self.state.poison(&error.to_string()),
        }
    }

    /// Runs one piece of cleanup in a transaction of its own.
    pub(super) fn clean_piece<T>(
        &self,
        piece: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.state.check_failure()?;
        let cleaned = self
            .connection
            .execute_batch("BEGIN IMMEDIATE")
            .and_then(|()| piece(&self.connection))
            .and_then(|cleaned| {
                fail::fail_point!("store.before_sweep", |_| std::process::abort());
                self.connection.execute_batch("COMMIT").map(|()| cleaned)
            });
        cleaned.map_err(|error| match ApplyError::from(error) {
            ApplyError::Transaction(error) => self.transaction_failed(&error),
            ApplyError::Commit(rejected) => match self.roll_back() {
                Ok(()) => StoreError::Unavailable(rejected.to_string()),
                Err(poisoned) => poisoned,
            },
        })
    }
}

/// If the writer panics, every later commit is rejected.
impl Drop for Writer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.state.poison("the writer panicked");
        }
    }
}

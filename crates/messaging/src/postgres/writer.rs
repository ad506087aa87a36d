//! The writer: applies all waiting submissions in one transaction, on a thread and a connection of its own.
//!
//! If the connection breaks before `COMMIT` was sent, nothing happened, and the writer tries the batch again. If it
//! breaks later, only the server knows: the transaction also wrote the batch's number to the writer's row, and the next
//! connection reads that row, waiting for the lock that the lost transaction may still hold, before it writes anything
//! else. If there is no connection in time, the submitters get [`Unresolved`](crate::Unresolved), and the outcomes
//! follow once there is one ([`unresolved`](super::unresolved)).

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    MessageTable, SharedState,
    connect::Connector,
    registration::{WriterRegistration, register_writer},
    sql::SqlTexts,
    transaction::{self, Applied, BatchContext},
    unresolved::UnresolvedBatch,
    writer_connection::{TxError, WriterConnection},
};
use crate::{
    Random, StoreError,
    backoff::Backoff,
    record::Table,
    store::Submission,
    writer_state::{Reply, answer},
};

/// Commits per transaction.
const COMMITS_PER_TRANSACTION_MAX: usize = 1024;
/// The longest pause between two attempts.
const BACKOFF_MILLIS_MAX: u64 = 1_000;

pub(super) struct Job {
    pub(super) submission: Submission,
    pub(super) reply: Reply,
    pub(super) submitted_at: Instant,
}

pub(super) struct Writer {
    pub(super) connector: Connector,
    pub(super) tables: Vec<&'static Table>,
    pub(super) texts: Arc<SqlTexts>,
    pub(super) messages: MessageTable,
    pub(super) queue: mpsc::UnboundedReceiver<Job>,
    pub(super) shared: Arc<SharedState>,
    pub(super) closing: watch::Receiver<bool>,
    pub(super) random: Random,
    pub(super) wait_max: Duration,
    pub(super) connection: Option<WriterConnection>,
    pub(super) registration: WriterRegistration,
    /// The batch whose `COMMIT` was not acknowledged.
    pub(super) unresolved: Option<UnresolvedBatch>,
    /// Whether the last attempt failed for a schema that this program cannot use.
    pub(super) is_schema_unusable: bool,
}

impl Writer {
    /// Runs until every sender is dropped; applies everything that was sent before.
    pub(super) async fn run(mut self, opened: oneshot::Sender<Result<(), StoreError>>) {
        let is_open = self.open().await;
        let failed = is_open.is_err();
        // Ignore a dropped opener.
        let _ = opened.send(is_open);
        if failed {
            return;
        }
        while let Some(job) = self.next().await {
            let mut commits = job.submission.commits.len().max(1);
            let mut jobs = vec![job];
            while commits < COMMITS_PER_TRANSACTION_MAX
                && let Ok(job) = self.queue.try_recv()
            {
                commits += job.submission.commits.len().max(1);
                jobs.push(job);
            }
            self.shared.writer.received(jobs.len());
            self.apply(jobs).await;
        }
        if let Some(connection) = self.connection.take() {
            self.registration.release(&connection).await;
            connection.close().await;
        }
    }

    /// The next job. While there is none, replaces a lost connection, so that the store becomes ready without a commit,
    /// and resolves an unresolved batch.
    async fn next(&mut self) -> Option<Job> {
        let random = self.random.clone();
        let mut backoff = Backoff::new(&random, BACKOFF_MILLIS_MAX);
        let mut closing = self.closing.clone();
        while self.connection.is_none() && self.shared.writer.check_failure().is_ok() {
            let connected = tokio::select! {
                connected = self.connected() => connected,
                _ = closing.wait_for(|is_closing| *is_closing) => break,
            };
            match connected {
                Ok(_) => break,
                Err(TxError::Fenced) => {
                    self.shared
                        .writer
                        .poison("another process has taken over the log");
                }
                Err(_) => tokio::select! {
                    job = self.queue.recv() => return job,
                    () = tokio::time::sleep(backoff.next()) => {}
                },
            }
        }
        self.queue.recv().await
    }

    async fn open(&mut self) -> Result<(), StoreError> {
        let connection = WriterConnection::open(&self.connector).await?;
        super::schema::check(connection.client(), &self.connector, &self.tables).await?;
        let program = self.connector.program();
        self.registration =
            register_writer(&connection, self.messages, program, &self.random).await?;
        let head = self.registration.head(&connection, &self.shared).await;
        self.shared.writer.start_at(head?);
        self.connection = Some(connection);
        Ok(())
    }

    async fn apply(&mut self, jobs: Vec<Job>) {
        let started = Instant::now();
        let waiting_since = jobs
            .iter()
            .map(|job| job.submitted_at)
            .min()
            .unwrap_or(started);
        let (submissions, replies): (Vec<_>, Vec<_>) = jobs
            .into_iter()
            .map(|job| (job.submission, job.reply))
            .unzip();
        let commits: usize = submissions.iter().map(|it| it.commits.len()).sum();
        match self.transact(&submissions, waiting_since).await {
            Ok(applied) => {
                fail::fail_point!("store.after_commit", |_| std::process::abort());
                self.shared.writer.observe(started, commits);
                // Before the replies, so that the submitter of a commit finds its messages on the log.
                let (published, positions) = (applied.published, applied.positions);
                self.shared.take_effect(published, positions);
                answer(replies, applied.outcomes);
            }
            Err(error) => {
                for (reply, submission) in replies.into_iter().zip(submissions) {
                    let size = submission.commits.len().max(1);
                    let answer = match (&error, &mut self.unresolved) {
                        (StoreError::Unknown(reason), Some(lost)) => {
                            Err(lost.add_waiter(reason.clone()))
                        }
                        _ => Ok(vec![Err(error.clone().into()); size]),
                    };
                    let _ = reply.send(answer);
                }
            }
        }
    }

    /// Tries a batch until it is committed or its time is over.
    async fn transact(
        &mut self,
        submissions: &[Submission],
        waiting_since: Instant,
    ) -> Result<Applied, StoreError> {
        self.shared.writer.check_failure()?;
        let random = self.random.clone();
        let mut backoff = Backoff::new(&random, BACKOFF_MILLIS_MAX);
        let mut is_unknown = false;
        loop {
            let tried = match self.connected().await {
                Ok(Some(applied)) => Ok(applied),
                Ok(None) => {
                    let tried = self.attempt(submissions).await;
                    is_unknown = self.unresolved.is_some();
                    tried
                }
                Err(error) => Err(error),
            };
            let reason = match tried {
                Ok(applied) => {
                    self.is_schema_unusable = false;
                    self.shared.set_reachable();
                    return Ok(applied);
                }
                Err(error) => self.prepare_retry(error).await?,
            };
            if self.connection.is_none() {
                self.shared.set_unreachable(&reason);
            }
            let is_over = waiting_since.elapsed() >= self.wait_max || *self.closing.borrow();
            if is_over && self.is_schema_unusable && !is_unknown {
                return Err(self.shared.writer.poison(&reason));
            }
            if is_over {
                return Err(match is_unknown {
                    false => StoreError::Unavailable(reason),
                    true => StoreError::Unknown(reason),
                });
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.next()) => {}
                _ = self.closing.wait_for(|is_closing| *is_closing) => {}
            }
        }
    }

    /// Returns why the batch failed; drops a connection that cannot be used again.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] if no further attempt can succeed.
    async fn prepare_retry(&mut self, error: TxError) -> Result<String, StoreError> {
        match error {
            // Cleanup removed the row of a writer that was idle for very long.
            TxError::Fenced if self.messages == MessageTable::Outbox => {
                self.connection = None;
                Ok("the writer's registration has expired".to_owned())
            }
            TxError::Fenced => Err(self
                .shared
                .writer
                .poison("another process has taken over the log")),
            TxError::Stale(_) => Ok(error.reason()),
            TxError::ForeignRows(reason) => {
                self.connection = None;
                Err(self.shared.writer.poison(&reason))
            }
            TxError::UnusableSchema(reason) => {
                self.connection = None;
                self.is_schema_unusable = true;
                Ok(reason)
            }
            TxError::Contention(reason) => Ok(self.roll_back(reason).await),
            TxError::ConnectionLost(reason) | TxError::Constraint(reason) => {
                self.connection = None;
                self.is_schema_unusable = false;
                Ok(reason)
            }
        }
    }

    /// Makes sure of a connection that may write. After one was lost during `COMMIT`, resolves the batch: returns what
    /// the batch in work has done, if it was committed; answers the submitters of an earlier one.
    async fn connected(&mut self) -> Result<Option<Applied>, TxError> {
        if self.connection.is_some() {
            return Ok(None);
        }
        let connection = WriterConnection::open(&self.connector).await?;
        let last_batch = self.registration.resume(&connection).await?;
        self.connection = Some(connection);
        // A server that rejects every commit is not usable because it accepts connections.
        if !self.is_schema_unusable {
            self.shared.set_reachable();
        }
        let Some(lost) = self.unresolved.take() else {
            return Ok(None);
        };
        let was_committed = last_batch == self.registration.batch;
        if !lost.has_waiters() {
            return Ok(was_committed.then_some(lost.applied));
        }
        if was_committed {
            let applied = lost.applied.clone();
            self.shared
                .take_effect(applied.published, applied.positions);
        }
        lost.resolve(was_committed);
        Ok(None)
    }

    async fn attempt(&mut self, submissions: &[Submission]) -> Result<Applied, TxError> {
        let Some(connection) = &mut self.connection else {
            return Err(TxError::ConnectionLost(
                "no connection to PostgreSQL".to_owned(),
            ));
        };
        self.registration.batch += 1;
        let batch = BatchContext {
            texts: &self.texts,
            messages: self.messages,
            next_offset: self.shared.writer.next_offset(),
            writer: &self.registration.name,
            epoch: self.registration.epoch,
            number: self.registration.batch,
        };
        let applied = transaction::write(connection, &batch, submissions).await?;
        fail::fail_point!("store.before_commit", |_| std::process::abort());
        match connection.run("COMMIT").await {
            Ok(()) => Ok(applied),
            Err(TxError::Contention(reason)) => Err(TxError::Contention(reason)),
            Err(TxError::ConnectionLost(reason) | TxError::Constraint(reason)) => {
                self.unresolved = Some(UnresolvedBatch::new(applied));
                Err(TxError::ConnectionLost(reason))
            }
            Err(other) => Err(other),
        }
    }

    /// Rolls back after contention.
    async fn roll_back(&mut self, reason: String) -> String {
        let is_rolled_back = match &self.connection {
            Some(connection) => connection.run("ROLLBACK").await.is_ok(),
            None => false,
        };
        if !is_rolled_back {
            self.connection = None;
        }
        reason
    }
}

/// If the writer panics, every later commit is rejected.
impl Drop for Writer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.writer.poison("the writer panicked");
        }
    }
}

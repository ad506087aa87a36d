//! The one writer: takes every waiting submission into one transaction, on a thread and a connection of its own.
//!
//! Where the connection breaks before `COMMIT` was sent, nothing happened, and the batch is written again. Where it
//! breaks behind it, nobody knows: the batch's number stands in the writer's row, written in the same transaction,
//! and the next connection reads it, waiting for the lock that the lost transaction may still hold. Only then is
//! anything else written. If there is no connection in time, the submitters are told that it is not known
//! ([`unresolved`](super::unresolved)), and told the truth once there is one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    MessageTable, Shared,
    connect::Connector,
    link::{Link, Trouble},
    register::{Registered, register},
    session::{self, Applied, Batch, Outcome},
    statements::Statements,
    unresolved::Lost,
};
use crate::{
    Metrics, Random, StoreError, backoff::Backoff, receipt::Answer, record::Table,
    store::Submission,
};

/// Commits taken into one transaction.
const COMMITS_PER_TRANSACTION_MAX: usize = 1024;
/// The longest pause between two attempts to reach the server.
const BACKOFF_MILLIS_MAX: u64 = 1_000;

pub(super) struct Job {
    pub(super) submission: Submission,
    pub(super) reply: Reply,
    pub(super) at: Instant,
}

type Reply = oneshot::Sender<Answer>;

pub(super) struct Writer {
    pub(super) connector: Connector,
    pub(super) tables: Vec<&'static Table>,
    pub(super) statements: Arc<Statements>,
    pub(super) messages: MessageTable,
    pub(super) queue: mpsc::UnboundedReceiver<Job>,
    pub(super) waiting: Arc<AtomicUsize>,
    pub(super) shared: Arc<Shared>,
    pub(super) closing: watch::Receiver<bool>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) random: Random,
    pub(super) wait_max: Duration,
    pub(super) link: Option<Link>,
    /// As it was registered when the store was opened.
    pub(super) registered: Registered,
    /// Committed or not: nobody knows yet.
    pub(super) unresolved: Option<Lost>,
    /// The last commit met a schema that this program cannot use.
    pub(super) is_unfit: bool,
}

impl Writer {
    /// Until every sender is gone; what was sent before is applied.
    pub(super) async fn run(mut self, opened: oneshot::Sender<Result<(), StoreError>>) {
        let is_open = self.open().await;
        let failed = is_open.is_err();
        // Whoever opened the store and went away is of no concern.
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
            self.waiting.fetch_sub(jobs.len(), Ordering::Relaxed);
            self.apply(jobs).await;
        }
        if let Some(link) = self.link.take() {
            self.registered.leave(&link).await;
            link.close().await;
        }
    }

    /// The next job. While none comes, a connection that was lost is replaced, so that the store is ready again whether
    /// or not anybody writes, and a batch of which nobody knows is looked up.
    async fn next(&mut self) -> Option<Job> {
        let random = self.random.clone();
        let mut backoff = Backoff::new(&random, BACKOFF_MILLIS_MAX);
        let mut closing = self.closing.clone();
        while self.link.is_none() && self.shared.check_failure().is_ok() {
            let connected = tokio::select! {
                connected = self.connected() => connected,
                _ = closing.wait_for(|is_closing| *is_closing) => break,
            };
            match connected {
                Ok(_) => break,
                Err(Trouble::Fenced) => {
                    self.shared.poison("another process has taken over the log");
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
        let unavailable = |trouble| match trouble {
            Trouble::Lost(reason)
            | Trouble::Collision(reason)
            | Trouble::Broken(reason)
            | Trouble::Unfit(reason)
            | Trouble::Foreign(reason) => StoreError::Unavailable(reason),
            Trouble::Otherwise | Trouble::Fenced => {
                StoreError::Unavailable("another process opened the store at once".to_owned())
            }
        };
        let link = Link::open(&self.connector).await.map_err(unavailable)?;
        super::schema::check(link.client(), self.connector.schema(), &self.tables).await?;
        self.registered = register(&link, self.messages, &self.random).await?;
        let head = self.registered.head(&link, &self.shared).await;
        self.shared.start_at(head.map_err(unavailable)?);
        self.link = Some(link);
        Ok(())
    }

    async fn apply(&mut self, jobs: Vec<Job>) {
        let started = Instant::now();
        let waiting_since = jobs.iter().map(|job| job.at).min().unwrap_or(started);
        let (submissions, replies): (Vec<_>, Vec<_>) = jobs
            .into_iter()
            .map(|job| (job.submission, job.reply))
            .unzip();
        let commits: usize = submissions.iter().map(|it| it.commits.len()).sum();
        match self.transact(&submissions, waiting_since).await {
            Ok(applied) => {
                fail::fail_point!("store.after_commit", |_| std::process::abort());
                self.metrics
                    .commit_secs
                    .observe(started.elapsed().as_secs_f64());
                self.metrics.commit_size.observe(commits as f64);
                // Before the replies, so that whoever was told of a commit finds its messages on the log.
                let outcomes = self.take_effect(applied);
                for (reply, outcome) in replies.into_iter().zip(outcomes) {
                    // A waiter that went away does not undo its commit.
                    let _ = reply.send(Ok(outcome));
                }
            }
            Err(error) => {
                for (reply, submission) in replies.into_iter().zip(submissions) {
                    let size = submission.commits.len().max(1);
                    let answer = match (&error, &mut self.unresolved) {
                        (StoreError::Unknown(reason), Some(lost)) => Err(lost.owe(reason.clone())),
                        _ => Ok(vec![Err(error.clone().into()); size]),
                    };
                    let _ = reply.send(answer);
                }
            }
        }
    }

    /// What a committed batch changes in memory.
    fn take_effect(&mut self, applied: Applied) -> Vec<Vec<Outcome>> {
        let published = applied.published.len() as u64;
        self.metrics.messages_published.inc_by(published);
        self.shared
            .take_effect(applied.published, applied.positions);
        applied.outcomes
    }

    /// Writes a batch until it is there, or it has waited long enough.
    async fn transact(
        &mut self,
        submissions: &[Submission],
        waiting_since: Instant,
    ) -> Result<Applied, StoreError> {
        self.shared.check_failure()?;
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
                Err(trouble) => Err(trouble),
            };
            let reason = match tried {
                Ok(applied) => {
                    self.is_unfit = false;
                    self.shared.is_back();
                    return Ok(applied);
                }
                // The row of a writer that was idle for very long was cleaned away.
                Err(Trouble::Fenced) if self.messages == MessageTable::Outbox => {
                    self.link = None;
                    "the writer was no longer registered".to_owned()
                }
                Err(Trouble::Fenced) => {
                    return Err(self.shared.poison("another process has taken over the log"));
                }
                Err(Trouble::Otherwise) => "the batch could not be put together".to_owned(),
                Err(Trouble::Foreign(reason)) => {
                    self.link = None;
                    return Err(self.shared.poison(&reason));
                }
                Err(Trouble::Unfit(reason)) => {
                    self.link = None;
                    self.is_unfit = true;
                    reason
                }
                Err(Trouble::Collision(reason)) => self.undo(reason).await,
                Err(Trouble::Lost(reason) | Trouble::Broken(reason)) => {
                    self.link = None;
                    self.is_unfit = false;
                    reason
                }
            };
            if self.link.is_none() {
                self.shared.is_away(&reason);
            }
            let is_over = waiting_since.elapsed() >= self.wait_max || *self.closing.borrow();
            if is_over && self.is_unfit && !is_unknown {
                return Err(self.shared.poison(&reason));
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

    /// A connection that may write. If one was lost in the middle of a commit, what became of that: of the batch in
    /// hand, what it has done, if it was committed; of an earlier one, its submitters are told.
    async fn connected(&mut self) -> Result<Option<Applied>, Trouble> {
        if self.link.is_some() {
            return Ok(None);
        }
        let link = Link::open(&self.connector).await?;
        let last_batch = self.registered.come_back(&link).await?;
        self.link = Some(link);
        // A server that refuses every commit is not back because it takes connections.
        if !self.is_unfit {
            self.shared.is_back();
        }
        let Some(lost) = self.unresolved.take() else {
            return Ok(None);
        };
        let was_committed = last_batch == self.registered.batch;
        if !lost.is_owed() {
            return Ok(was_committed.then_some(lost.applied));
        }
        if was_committed {
            self.take_effect(lost.applied.clone());
        }
        lost.tell(was_committed);
        Ok(None)
    }

    async fn attempt(&mut self, submissions: &[Submission]) -> Result<Applied, Trouble> {
        let Some(link) = &mut self.link else {
            return Err(Trouble::Lost("there is no connection".to_owned()));
        };
        self.registered.batch += 1;
        let batch = Batch {
            statements: &self.statements,
            messages: self.messages,
            next_offset: self.shared.head() + 1,
            writer: &self.registered.name,
            epoch: self.registered.epoch,
            number: self.registered.batch,
        };
        let applied = session::write(link, &batch, submissions).await?;
        fail::fail_point!("store.before_commit", |_| std::process::abort());
        match link.run("COMMIT").await {
            Ok(()) => Ok(applied),
            Err(Trouble::Collision(reason)) => Err(Trouble::Collision(reason)),
            Err(Trouble::Lost(reason) | Trouble::Broken(reason)) => {
                self.unresolved = Some(Lost::new(applied));
                Err(Trouble::Lost(reason))
            }
            Err(other) => Err(other),
        }
    }

    /// Undoes what a collision left of the transaction.
    async fn undo(&mut self, reason: String) -> String {
        let undone = match &self.link {
            Some(link) => link.run("ROLLBACK").await.is_ok(),
            None => false,
        };
        if !undone {
            self.link = None;
        }
        reason
    }
}

/// A writer that broke takes nothing more, and says so.
impl Drop for Writer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.poison("the writer broke");
        }
    }
}

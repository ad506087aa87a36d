//! What a store's writer shares with the store's handle: the newest messages of the log, the notifications of commits, the
//! number of submissions that wait, and the failure that stops the store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::sync::{oneshot, watch};

use crate::{
    CommitHandle, CommitOutcome, Metrics, StoreError,
    commit_handle::SubmissionResult,
    log_cache::{LogCache, StoredMessage},
    store::Submission,
};

/// Submissions that may wait for the writer; the next is rejected.
const SUBMISSIONS_WAITING_MAX: usize = 8192;

pub type Reply = oneshot::Sender<SubmissionResult>;

pub struct WriterState {
    pub(crate) log_cache: LogCache,
    pub(crate) metrics: Arc<Metrics>,
    waiting: AtomicUsize,
    /// Counts transactions.
    committed: watch::Sender<i64>,
    /// The offset of the last message.
    head: watch::Sender<i64>,
    failure: watch::Sender<Option<String>>,
}

impl WriterState {
    pub fn new(head: i64, metrics: Arc<Metrics>) -> Self {
        Self {
            log_cache: LogCache::new(head),
            metrics,
            waiting: AtomicUsize::new(0),
            committed: watch::Sender::new(0),
            head: watch::Sender::new(head),
            failure: watch::Sender::new(None),
        }
    }

    /// Queues a submission. If the writer has stopped, `send` drops the reply, which the handle reports.
    pub fn submit(
        &self,
        submission: Submission,
        send: impl FnOnce(Submission, Reply) -> bool,
    ) -> CommitHandle {
        let commits = submission.commits.len();
        if let Err(error) = self.check_failure() {
            return CommitHandle::rejected(error, commits);
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= SUBMISSIONS_WAITING_MAX {
            self.received(1);
            return CommitHandle::rejected(StoreError::Overloaded, commits);
        }
        let (reply, outcomes) = oneshot::channel();
        if !send(submission, reply) {
            self.received(1);
        }
        CommitHandle::pending(outcomes, commits)
    }

    /// These submissions wait no longer.
    pub fn received(&self, submissions: usize) {
        self.waiting.fetch_sub(submissions, Ordering::Relaxed);
    }

    pub(crate) fn observe(&self, started: Instant, commits: usize) {
        let secs = started.elapsed().as_secs_f64();
        self.metrics.commit_secs.observe(secs);
        self.metrics.commit_size.observe(commits as f64);
    }

    pub(crate) fn start_at(&self, head: i64) {
        self.log_cache.start_at(head);
        self.head.send_replace(head);
    }

    pub(crate) fn next_offset(&self) -> i64 {
        *self.head.borrow() + 1
    }

    pub(crate) fn head(&self) -> watch::Receiver<i64> {
        self.head.subscribe()
    }

    pub(crate) fn committed(&self) -> watch::Receiver<i64> {
        self.committed.subscribe()
    }

    /// Publishes what a transaction committed: first the messages, then the notifications. Only messages wake consumers:
    /// most commits of a sale publish none.
    pub fn publish(&self, messages: Vec<StoredMessage>) {
        self.metrics
            .messages_published
            .inc_by(messages.len() as u64);
        if let Some(last) = messages.last().map(|stored| stored.offset) {
            self.log_cache.append(messages);
            self.head.send_replace(last);
        }
        self.committed.send_modify(|commits| *commits += 1);
    }

    pub fn poison(&self, reason: &str) -> StoreError {
        tracing::error!(reason, "the store has failed; stop the process");
        self.failure.send_replace(Some(reason.to_owned()));
        StoreError::Poisoned(reason.to_owned())
    }

    /// Fails if the store has failed for good.
    pub fn check_failure(&self) -> Result<(), StoreError> {
        match self.failure.borrow().as_ref() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Poisoned(reason.clone())),
        }
    }

    /// Resolves when the store has failed for good.
    pub(crate) async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await;
        let reason = failed.ok().and_then(|reason| reason.clone());
        match reason {
            Some(reason) => reason,
            None => std::future::pending().await,
        }
    }
}

/// Answers each submission. A dropped waiter does not undo its commit.
pub(crate) fn answer(replies: Vec<Reply>, outcomes: Vec<Vec<CommitOutcome>>) {
    for (reply, outcome) in replies.into_iter().zip(outcomes) {
        let _ = reply.send(Ok(outcome));
    }
}

//! The worker: receive, decide, commit, acknowledge. A consumer is a pure decision on records; the worker does
//! everything else, in batches whose number of statements does not depend on the number of their messages. State: the
//! current batch.

mod consumer;
mod records;
mod rejected;
mod repeated_conflict;

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    Batch, Commit, CommitError, Message, Rejection, Shutdown, StoreError, Submission,
    backoff::Backoff,
    bus::Subscription,
    log_limit::LogLimit,
    message::Reissue,
    metrics::GroupLabel,
    record::{Key, Ref, Table},
    trace,
};

pub use consumer::{Consumer, WorkerContext};
pub use records::Records;
use rejected::{Rejected, RejectedMessage};
use repeated_conflict::RepeatedConflict;

/// Messages taken at once.
pub const BATCH_MESSAGES_MAX: usize = 128;
/// How often one batch is decided because of conflicts before the worker waits.
const ROUNDS_MAX: u32 = 16;
/// How often a batch is tried whole (some seconds, by its backoff) before a dead letter that the store refuses is stripped
/// to what every store takes: the cause may be temporary.
const STRIP_AFTER_FAILURES: u32 = 8;
/// The longest wait for an unreachable store.
const BACKOFF_MILLIS_MAX: u64 = 5_000;
/// How many messages for other groups are passed over before the position is stored because of them alone.
const SKIP_MESSAGES: i64 = 1024;
/// How long the current batch may take after a shutdown request.
const FINISH_MILLIS_MAX: u64 = 2_000;

/// A consumer with its subscription.
pub struct Worker<C: Consumer> {
    consumer: C,
    subscription: Subscription,
    /// Taken and not yet committed: kept here so that a dropped step loses nothing.
    current: Option<Batch>,
    /// How often the current batch has failed.
    failures: u32,
    /// The stored position, or one a little before it.
    stored_offset: i64,
    context: WorkerContext,
    label: GroupLabel,
    /// For rejections: a peer may cause any number of them.
    log: LogLimit,
}

impl<C: Consumer> Worker<C> {
    /// # Errors
    /// [`StoreError`] if the group's position cannot be read.
    pub fn new(consumer: C, context: WorkerContext) -> Result<Self, StoreError> {
        let subscription = context.bus.subscribe(consumer.group(), consumer.topics())?;
        let label = GroupLabel {
            group: consumer.group(),
        };
        let stored_offset = subscription.position().map_or(0, |it| it.offset);
        Ok(Self {
            consumer,
            subscription,
            current: None,
            failures: 0,
            stored_offset,
            context,
            label,
            log: LogLimit::default(),
        })
    }

    /// Handles messages until shutdown is requested; the current batch is finished first.
    pub async fn run(mut self, shutdown: Shutdown) {
        self.work(shutdown).await;
        self.subscription.close().await;
    }

    async fn work(&mut self, mut shutdown: Shutdown) {
        while !shutdown.is_requested() {
            let mut stop = shutdown.clone();
            let overdue = async {
                stop.requested().await;
                tokio::time::sleep(Duration::from_millis(FINISH_MILLIS_MAX)).await;
            };
            let stepped = tokio::select! {
                stepped = self.step() => stepped,
                () = overdue => return,
            };
            match stepped {
                Ok(0) => self.skip_ahead().await,
                Ok(_) => continue,
                Err(error) => {
                    tracing::error!(group = self.label.group, %error, "the consumer has stopped");
                    return;
                }
            }
            tokio::select! {
                () = shutdown.requested() => return,
                () = self.subscription.changed() => {}
            }
        }
    }

    /// Waits until new messages may be there since the last step.
    pub async fn changed(&mut self) {
        self.subscription.changed().await;
    }

    /// Whether this group has handled everything committed so far.
    ///
    /// # Errors
    /// [`StoreError`] if store or brokers do not answer.
    pub async fn is_drained(&self) -> Result<bool, StoreError> {
        let (group, topics) = (self.consumer.group(), self.consumer.topics());
        self.context.bus.is_drained(group, topics).await
    }

    /// Handles one batch of the messages that are there now, and retries through transient failures; returns their number.
    ///
    /// # Errors
    /// [`StoreError::Poisoned`] if the store will never answer again.
    pub async fn step(&mut self) -> Result<usize, StoreError> {
        let random = self.context.random.clone();
        let mut backoff = Backoff::new(&random, BACKOFF_MILLIS_MAX);
        loop {
            let stepped = self.try_step().await;
            let lag = self.subscription.lag();
            self.context.metrics.lag.get_or_create(&self.label).set(lag);
            match stepped {
                Ok(taken) => return Ok(taken),
                Err(error) => backoff.wait_out(self.label.group, error).await?,
            }
        }
    }

    async fn try_step(&mut self) -> Result<usize, StoreError> {
        if self.current.is_none() {
            self.current = self.subscription.try_next(BATCH_MESSAGES_MAX).await?;
        }
        let Some(batch) = &self.current else {
            return Ok(0);
        };
        self.subscription.trying();
        // A batch with messages for other groups only is empty: its position is passed.
        if !batch.messages.is_empty() {
            let handled = self.handle(batch).await;
            self.failures = match handled {
                Ok(()) => 0,
                Err(_) => self.failures.saturating_add(1),
            };
            handled?;
        }
        self.subscription.acknowledge(batch);
        let taken = batch.messages.len();
        if let Some(position) = batch.position() {
            self.stored_offset = position.offset;
        }
        self.current = None;
        Ok(taken)
    }

    /// Moves the stored position over messages for other groups, so that they can be cleaned.
    async fn skip_ahead(&mut self) {
        let Some(position) = self.subscription.position() else {
            return;
        };
        if position.offset < self.stored_offset + SKIP_MESSAGES {
            return;
        }
        let offset = position.offset;
        let submission = Submission {
            commits: [].into(),
            position: Some(position),
        };
        // After a failure it is tried again with the next messages.
        let outcomes = self.context.store.submit(submission).outcomes().await;
        if outcomes.iter().all(Result::is_ok) {
            self.stored_offset = offset;
        }
    }

    async fn handle(&self, batch: &Batch) -> Result<(), StoreError> {
        let mut rejected = Rejected::new(self.failures >= STRIP_AFTER_FAILURES);
        let mut conflict = None;
        let mut pending = self.unseen(&batch.messages).await?;
        for _ in 0..ROUNDS_MAX {
            let commits: Arc<[Commit]> = self.decide(&pending, &rejected).await?.into();
            let position = batch.position();
            fail::fail_point!("worker.before_submit", |_| std::process::abort());
            let receipt = self.context.store.submit(Submission {
                commits: Arc::clone(&commits),
                position,
            });
            let outcomes = receipt.outcomes().await;
            fail::fail_point!("worker.after_commit", |_| std::process::abort());
            let first = RepeatedConflict::of(&pending, &commits, &outcomes);
            if first == conflict
                && let Some(first) = &first
                && let Some(message) = pending.first()
            {
                rejected.add(message, first.rejection());
            }
            conflict = first;
            pending = self.settle(&pending, &commits, outcomes, &mut rejected)?;
            if pending.is_empty() {
                return Ok(());
            }
            pending = self.unseen(&pending).await?;
        }
        Err(StoreError::Unavailable(
            "a batch kept conflicting with other writers".to_owned(),
        ))
    }

    async fn unseen(&self, messages: &[Arc<Message>]) -> Result<Vec<Arc<Message>>, StoreError> {
        let done: Vec<String> = messages
            .iter()
            .filter_map(|message| message.reissue.as_ref().map(Reissue::mark))
            .collect();
        let own: Vec<_> = messages.iter().map(|message| message.inbox_id()).collect();
        let ids: Vec<&str> = own
            .iter()
            .map(AsRef::as_ref)
            .chain(done.iter().map(String::as_str))
            .collect();
        let mut taken = self.context.store.seen(self.consumer.group(), &ids).await?;
        let before = messages.len();
        // A batch may hold the same message twice.
        let unseen: Vec<_> = messages
            .iter()
            .filter(|message| {
                let reissue = message.reissue.as_ref();
                reissue.is_none_or(|reissue| !taken.contains(&reissue.mark()))
                    && taken.insert(message.inbox_id().into_owned())
            })
            .cloned()
            .collect();
        let duplicates = (before - unseen.len()) as u64;
        if duplicates > 0 {
            self.context
                .metrics
                .messages_duplicate
                .get_or_create(&self.label)
                .inc_by(duplicates);
        }
        Ok(unseen)
    }

    /// Loads the records that the messages require, one statement a table, and decides each message in order.
    async fn decide(
        &self,
        messages: &[Arc<Message>],
        rejected: &Rejected,
    ) -> Result<Vec<Commit>, StoreError> {
        let now = self.context.clock.now();
        let required_records: Vec<_> = messages
            .iter()
            .map(|message| self.consumer.required_records(message))
            .collect();
        let kept: Vec<_> = messages
            .iter()
            .filter_map(|message| self.stored_letter(message))
            .collect();
        let mut records = self
            .load(required_records.iter().flatten().flatten().chain(&kept))
            .await?;
        let prefetched = self.consumer.prefetch(messages).await?;
        let decide = |(message, concern): (&Arc<Message>, Result<Vec<Ref>, Rejection>)| {
            let (required_records, read) = match concern {
                Ok(required_records) => (required_records, Ok(())),
                Err(rejection) => (Vec::new(), Err(rejection)),
            };
            let mut commit = trace::handling(message, self.label.group, || {
                let decided = match (rejected.get(message), read) {
                    (Some(rejected_message), _) => Err(rejected_message.clone()),
                    (None, Err(rejection)) => Err(rejection.into()),
                    (None, Ok(())) => self
                        .consumer
                        .decide(message, &records, &prefetched, now)
                        .map_err(RejectedMessage::from),
                };
                let was_rejected = decided.is_err();
                let mut commit = decided.unwrap_or_else(|rejected_message| {
                    self.dead_letter(message, &rejected_message, &records, now)
                });
                self.mark(message, was_rejected, &records, &mut commit, now);
                commit
            });
            commit.required_records.extend(required_records);
            records.apply(&commit);
            commit
        };
        Ok(messages.iter().zip(required_records).map(decide).collect())
    }

    async fn load(&self, refs: impl Iterator<Item = &Ref>) -> Result<Records, StoreError> {
        let mut keys: HashMap<&'static str, (&'static Table, Vec<Key>)> = HashMap::new();
        for Ref { table, key } in refs {
            keys.entry(table.name)
                .or_insert_with(|| (table, Vec::new()))
                .1
                .push(key.clone());
        }
        let mut records = Records::default();
        for (name, (table, mut keys)) in keys {
            keys.sort_unstable();
            keys.dedup();
            for row in self.context.store.load_rows(table, &keys).await? {
                if let Some(key) = Key::of(table, &row) {
                    records.rows.insert((name, key), row);
                }
            }
        }
        Ok(records)
    }

    /// Counts committed messages and returns those that must be decided again.
    fn settle(
        &self,
        messages: &[Arc<Message>],
        commits: &[Commit],
        outcomes: Vec<Result<(), CommitError>>,
        rejected: &mut Rejected,
    ) -> Result<Vec<Arc<Message>>, StoreError> {
        if let Some(error) = failure(&outcomes) {
            return Err(error);
        }
        let mut again = Vec::new();
        for ((message, commit), outcome) in messages.iter().zip(commits).zip(outcomes) {
            match outcome {
                Ok(()) => {
                    self.context
                        .metrics
                        .messages_handled
                        .get_or_create(&self.label)
                        .inc();
                    self.consumer.committed(message, commit);
                }
                Err(CommitError::Conflict { .. }) => again.push(Arc::clone(message)),
                Err(CommitError::Constraint { detail }) => {
                    rejected.add(message, Rejection::new(detail));
                    again.push(Arc::clone(message));
                }
                // Already reported by `failure()`.
                Err(CommitError::Fenced { .. } | CommitError::Store(_)) => {}
            }
        }
        if !again.is_empty() {
            self.context
                .metrics
                .decisions_repeated
                .get_or_create(&self.label)
                .inc_by(again.len() as u64);
        }
        Ok(again)
    }
}

/// The failure for which the whole batch must wait.
fn failure(outcomes: &[Result<(), CommitError>]) -> Option<StoreError> {
    outcomes.iter().find_map(|outcome| match outcome {
        Err(CommitError::Store(error)) => Some(error.clone()),
        Err(CommitError::Fenced { lease }) => {
            Some(StoreError::Unavailable(format!("lost the lease {lease}")))
        }
        Ok(()) | Err(CommitError::Conflict { .. } | CommitError::Constraint { .. }) => None,
    })
}

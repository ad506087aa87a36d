//! The worker: receive, decide, commit, acknowledge. A consumer is a pure decision on records; the worker does
//! everything else, in batches whose number of statements does not depend on the number of their messages. State: the
//! current batch.
//!
//! **What the store answers to a message's Commit**, in up to 16 rounds for a batch (`handle`). A stored one is final. Otherwise:
//! - [`CommitError::Conflict`]: the next round decides it again, with those decided on its records, which conflict too. A round
//!   reads inbox, records and `prefetch` anew. If its first message repeats its conflict over the same version, it is rejected.
//! - [`CommitError::Constraint`], a broken `CHECK`: it is rejected, and the next round commits its dead letter instead.
//! - Any other error, or no round is left: `step` tries the whole batch anew, with waits of up to 5 s and without an
//!   end; the inbox drops what was stored. Only [`StoreError::Poisoned`] ends the worker.

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

pub use consumer::{Consumer, Decision, WorkerContext};
pub use records::Records;
use rejected::{Rejected, RejectedMessage};
use repeated_conflict::RepeatedConflict;

/// Messages taken at once.
pub const BATCH_MESSAGES_MAX: usize = 128;
/// How often one batch is decided before the worker waits.
const ROUNDS_MAX: u32 = 16;
/// Tries of a whole batch before a dead letter that the store refuses is stripped: the cause may be temporary.
const STRIP_AFTER_FAILURES: u32 = 8;
/// The longest wait for an unreachable store.
const BACKOFF_MILLIS_MAX: u64 = 5_000;
/// How many messages for other groups are passed over before the position is stored because of them alone.
const SKIP_MESSAGES: i64 = 1024;
/// How long the current batch may take after a shutdown request.
const FINISH_MILLIS_MAX: u64 = 2_000;

/// A message of the current batch, parsed once.
struct Received<I> {
    message: Arc<Message>,
    input: Result<I, Rejection>,
}

impl<I> AsRef<Message> for Received<I> {
    fn as_ref(&self) -> &Message {
        &self.message
    }
}

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
        let group = consumer.group();
        let subscription = context.bus.subscribe(group.name, group.topics)?;
        let label = GroupLabel { group: group.name };
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
        let group = self.consumer.group();
        let bus = &self.context.bus;
        bus.is_drained(group.name, group.topics).await
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
        let unseen = self.unseen(batch.messages.clone()).await?;
        let mut pending: Vec<_> = unseen.into_iter().map(|it| self.read(it)).collect();
        for _ in 0..ROUNDS_MAX {
            let decided = self.decide(&pending, &rejected).await?;
            let (commits, decided): (Vec<_>, Vec<_>) = decided.into_iter().unzip();
            let commits: Arc<[Commit]> = commits.into();
            let position = batch.position();
            fail::fail_point!("worker.before_submit", |_| std::process::abort());
            let receipt = self.context.store.submit(Submission {
                commits: Arc::clone(&commits),
                position,
            });
            let outcomes = receipt.outcomes().await;
            fail::fail_point!("worker.after_commit", |_| std::process::abort());
            if let Some(Received { message, .. }) = pending.first() {
                let first = RepeatedConflict::of(message, &commits, &outcomes);
                if let Some(first) = first.as_ref().filter(|_| first == conflict) {
                    rejected.add(message, first.rejection());
                }
                conflict = first;
            }
            pending = self.settle(pending, decided, outcomes, &mut rejected)?;
            if pending.is_empty() {
                return Ok(());
            }
            pending = self.unseen(pending).await?;
        }
        Err(StoreError::Unavailable(
            "a batch kept conflicting with other writers".to_owned(),
        ))
    }

    fn read(&self, message: Arc<Message>) -> Received<C::Input> {
        let input = self.consumer.read(&message);
        Received { message, input }
    }

    async fn unseen<M: AsRef<Message>>(&self, mut messages: Vec<M>) -> Result<Vec<M>, StoreError> {
        let all = || messages.iter().map(AsRef::as_ref);
        let done: Vec<String> = all()
            .filter_map(|message| message.reissue.as_ref().map(Reissue::mark))
            .collect();
        let own: Vec<_> = all().map(Message::inbox_id).collect();
        let ids: Vec<&str> = own
            .iter()
            .map(AsRef::as_ref)
            .chain(done.iter().map(String::as_str))
            .collect();
        let mut taken = self.context.store.seen(self.label.group, &ids).await?;
        drop(own);
        let before = messages.len();
        // A batch may hold the same message twice.
        messages.retain(|message| {
            let message = message.as_ref();
            let reissue = message.reissue.as_ref();
            reissue.is_none_or(|reissue| !taken.contains(&reissue.mark()))
                && taken.insert(message.inbox_id().into_owned())
        });
        let duplicates = (before - messages.len()) as u64;
        if duplicates > 0 {
            self.context
                .metrics
                .messages_duplicate
                .get_or_create(&self.label)
                .inc_by(duplicates);
        }
        Ok(messages)
    }

    /// Loads the records that the messages require, one statement a table, and decides each message in order. A message
    /// that is rejected has no outcome.
    async fn decide(
        &self,
        received: &[Received<C::Input>],
        rejected: &Rejected,
    ) -> Result<Vec<(Commit, Option<C::Outcome>)>, StoreError> {
        let now = self.context.clock.now();
        let inputs = || received.iter().map(|it| it.input.as_ref().ok());
        let required_records: Vec<Vec<Ref>> = inputs()
            .map(|input| input.map_or_else(Vec::new, |it| self.consumer.required_records(it)))
            .collect();
        let kept: Vec<_> = received
            .iter()
            .filter_map(|it| self.stored_letter(&it.message))
            .collect();
        let mut records = self
            .load(required_records.iter().flatten().chain(&kept))
            .await?;
        let prefetched = self.consumer.prefetch(inputs().flatten().collect()).await?;
        let decide = |(it, required_records): (&Received<C::Input>, Vec<Ref>)| {
            let message = &*it.message;
            let (mut commit, outcome) = trace::handling(message, self.label.group, || {
                let input = rejected
                    .check(message)
                    .and(it.input.as_ref().map_err(RejectedMessage::from));
                let decided = input.and_then(|input| {
                    self.consumer
                        .decide(message, input, &records, &prefetched, now)
                        .map_err(RejectedMessage::from)
                });
                let was_rejected = decided.is_err();
                let (mut commit, outcome) = match decided {
                    Ok(decision) => (decision.commit, Some(decision.outcome)),
                    Err(rejected) => (self.dead_letter(message, &rejected, &records, now), None),
                };
                self.mark(message, was_rejected, &records, &mut commit, now);
                (commit, outcome)
            });
            commit.required_records.extend(required_records);
            records.apply(&commit);
            (commit, outcome)
        };
        Ok(received.iter().zip(required_records).map(decide).collect())
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
                if let Some(key) = row.key() {
                    records.rows.insert((name, key), row);
                }
            }
        }
        Ok(records)
    }

    /// Counts committed messages and returns those that must be decided again.
    fn settle(
        &self,
        received: Vec<Received<C::Input>>,
        decided: Vec<Option<C::Outcome>>,
        outcomes: Vec<Result<(), CommitError>>,
        rejected: &mut Rejected,
    ) -> Result<Vec<Received<C::Input>>, StoreError> {
        if let Some(error) = failure(&outcomes) {
            return Err(error);
        }
        let mut again = Vec::new();
        for ((it, decided), outcome) in received.into_iter().zip(decided).zip(outcomes) {
            match outcome {
                Ok(()) => {
                    self.context
                        .metrics
                        .messages_handled
                        .get_or_create(&self.label)
                        .inc();
                    if let Some(decided) = decided {
                        self.consumer.committed(decided);
                    }
                }
                Err(CommitError::Conflict { .. }) => again.push(it),
                Err(CommitError::Constraint { detail }) => {
                    rejected.add(&it.message, Rejection::new(detail));
                    again.push(it);
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

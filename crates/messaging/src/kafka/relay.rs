//! Publishes rows that no process has published for a while: those of a crashed process, and those that their own process
//! could not publish. In the order of their offsets.
//!
//! There is one relay at a time, by a [lease](crate::lease); each holding begins with a new relay. Rows of one topic and
//! subject are sent in their order, and a row is overdue only if all earlier ones of its subject are.
//!
//! **A leader that was paused for longer than its lease** goes on where it was, and meets one of these:
//!
//! - `Renewal::renew` sees that the lease expired, which is final even if no process took it. `Lease::lost` resolves, and
//!   `Leader` ends the relay after its round.
//! - `run_once` proves the lease before each batch (`verify_lease`, a Commit of the fence only). If another process took it, the
//!   token has moved, the Commit is fenced, and `reset` drops the producer and what is queued in it. If none took it, no
//!   other relay publishes.
//! - It was paused between that proof and its sends: it repeats rows that were pending then, under their own ids, and the
//!   inbox drops them. To delete acknowledged rows, or to park the followers of a parked row, needs no lease; to park a
//!   row does (`parked`).
//!
//! Brokers may reject a whole batch because of one row, so rejected rows are then sent one by one. A row that is rejected
//! alone is parked, with the later rows of its subject ([`parked`]); all others are published. If the brokers reject a
//! topic, its rows wait, and are sent again after a pause. State: when each pending row was first seen, and what was rejected.

mod parked;
mod sending;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::Timestamp;
use tokio::sync::mpsc;

use super::{
    Kafka,
    producer::{Delivery, Producer, TOPIC_PAUSE_SECS},
};
use crate::{
    Clock, Commit, CommitError, Fence, Metrics, Periodic, Schedule, Store, StoreError, Tick,
    log_cache::StoredMessage,
};

/// Rows published in one round.
const ROWS_MAX: u32 = 1_024;
/// The pause between two rounds.
const ROUND_MILLIS: i64 = 1_000;
/// Deliveries are awaited for this fraction of the lease's time.
const SENDS_PER_LEASE: i64 = 3;

pub struct Relay {
    kafka: Arc<Kafka>,
    store: Store,
    clock: Clock,
    metrics: Arc<Metrics>,
    fence: Fence,
    /// When each pending row was first seen.
    first_seen: HashMap<i64, Timestamp>,
    /// Rows that were rejected in a batch.
    suspects: HashSet<i64>,
    /// Topics that the brokers reject, and since when.
    rejected_topics: HashMap<String, Timestamp>,
    producer: Option<(Producer, mpsc::UnboundedReceiver<Delivery>)>,
}

impl Periodic for Relay {
    fn schedule(&self) -> Schedule {
        Schedule {
            name: "relay",
            interval_millis: ROUND_MILLIS,
            is_interruptible: false,
        }
    }

    async fn tick(&mut self) -> Result<Tick, StoreError> {
        let published = self.run_once().await?;
        if published == 0 {
            return Ok(Tick::Done);
        }
        tracing::warn!(published, "messages that were left behind are published");
        Ok(Tick::More)
    }

    async fn end(&mut self) {
        // The next leader counts them.
        self.metrics.topics_refused.set(0);
    }
}

impl Relay {
    /// The name of the lease.
    pub const LEASE: &'static str = "relay";

    /// `fence` is that of the lease, which the caller holds as long as the relay runs.
    #[must_use]
    pub fn new(
        kafka: Arc<Kafka>,
        store: Store,
        clock: Clock,
        metrics: Arc<Metrics>,
        fence: Fence,
    ) -> Self {
        Self {
            kafka,
            store,
            clock,
            metrics,
            fence,
            first_seen: HashMap::new(),
            suspects: HashSet::new(),
            rejected_topics: HashMap::new(),
            producer: None,
        }
    }

    /// Runs one round; returns how many rows it published.
    ///
    /// # Errors
    /// [`StoreError`] if store or brokers are unreachable; unacknowledged rows stay pending.
    pub async fn run_once(&mut self) -> Result<usize, StoreError> {
        let decided = self.apply_decisions().await?;
        let overdue = self.overdue().await?;
        if overdue.is_empty() || !self.verify_lease().await? {
            return Ok(decided);
        }
        let published = match overdue.iter().any(|it| self.suspects.contains(&it.offset)) {
            true => self.publish_one_by_one(&overdue).await,
            false => self.publish(&overdue).await,
        };
        if published.is_err() {
            self.reset();
        }
        Ok(published? + decided)
    }

    /// Drops the producer, whose queue must not be sent while another process leads, and gives rows their full wait again,
    /// because live processes publish their own.
    fn reset(&mut self) {
        self.producer = None;
        self.first_seen.clear();
        self.suspects.clear();
    }

    /// Proves the lease to the store by a commit with its fence.
    async fn verify_lease(&mut self) -> Result<bool, StoreError> {
        let mut commit = Commit::new();
        commit.fences.push(self.fence.clone());
        match self.store.commit(commit).await {
            Ok(()) => Ok(true),
            Err(CommitError::Store(error)) => Err(error),
            Err(_) => {
                self.reset();
                Ok(false)
            }
        }
    }

    /// Rows that have been pending for `relay_after_millis`, in order.
    async fn overdue(&mut self) -> Result<Vec<StoredMessage>, StoreError> {
        let now = self.clock.now();
        let pause_secs = i64::try_from(TOPIC_PAUSE_SECS).unwrap_or(i64::MAX);
        let is_paused = |since: &Timestamp| now.millis_since(*since) < pause_secs * 1_000;
        let paused = self
            .rejected_topics
            .iter()
            .filter(|(_, since)| is_paused(since));
        let paused: Vec<String> = paused.map(|(topic, _)| topic.clone()).collect();
        let outbox = self.kafka.outbox();
        let pending = outbox.publishable(&paused, ROWS_MAX).await?;
        let first_seen: HashMap<i64, Timestamp> = pending
            .iter()
            .map(|row| {
                (
                    row.offset,
                    self.first_seen.get(&row.offset).copied().unwrap_or(now),
                )
            })
            .collect();
        self.first_seen = first_seen;
        self.suspects
            .retain(|offset| self.first_seen.contains_key(offset));
        // A topic without pending rows is accepted again: their own processes have published them.
        let has_rows = |topic: &String| pending.iter().any(|row| row.message.topic == *topic);
        self.rejected_topics
            .retain(|topic, since| is_paused(since) || has_rows(topic));
        self.metrics
            .topics_refused
            .set(self.rejected_topics.len() as i64);
        let after = self.kafka.settings().relay_after_millis;
        let is_overdue = |row: &StoredMessage| {
            let since = self.first_seen.get(&row.offset);
            since.is_some_and(|since| now.millis_since(*since) >= after)
        };
        Ok(pending.into_iter().filter(is_overdue).collect())
    }
}

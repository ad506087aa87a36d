//! Publishes rows that no process has published for a while: those of a crashed process, and those that their own process
//! could not publish. In the order of their offsets.
//!
//! There is one leader at a time, by a lease whose token grows with each change of the holder. The leader proves its lease
//! to the store before each batch; a leader that lost it publishes nothing. A leader that is suspended between that proof
//! and its sends can only repeat rows that were pending then, under their own ids: the inbox drops them. Rows of one key are
//! sent in their order, and a row is overdue only if all earlier rows of its key are.
//!
//! Brokers may reject a whole batch because of one row, so rejected rows are then sent one by one. A row that is rejected
//! alone is parked, with the later rows of its subject ([`parked`]); all others are published. If the brokers reject a
//! topic, its rows wait, and are sent again after a pause. State: when each pending row was first seen, what was rejected,
//! and the lease.

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
    Clock, Commit, CommitError, Metrics, Periodic, Schedule, Store, StoreError, Tick,
    lease::LeaseRecord, log_cache::StoredMessage,
};

/// The name of the lease.
const LEASE: &str = "relay";
/// Rows published in one round.
const ROWS_MAX: u32 = 1_024;
/// The pause between two rounds.
const ROUND_MILLIS: i64 = 1_000;
/// The lease is renewed after this fraction of its time.
const RENEWALS_PER_LEASE: i64 = 3;

pub struct Relay {
    kafka: Arc<Kafka>,
    store: Store,
    clock: Clock,
    holder: String,
    metrics: Arc<Metrics>,
    lease: Option<LeaseRecord>,
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
        self.release_lease().await;
    }
}

impl Relay {
    /// `holder` names the process to operators.
    #[must_use]
    pub fn new(
        kafka: Arc<Kafka>,
        store: Store,
        clock: Clock,
        metrics: Arc<Metrics>,
        holder: String,
    ) -> Self {
        Self {
            kafka,
            store,
            clock,
            holder,
            metrics,
            lease: None,
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
        if !self.acquire_lease().await? {
            self.reset();
            self.rejected_topics.clear();
            self.metrics.topics_refused.set(0);
            return Ok(0);
        }
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

    /// Takes or renews the lease; returns whether this process holds it.
    async fn acquire_lease(&mut self) -> Result<bool, StoreError> {
        let now = self.clock.now();
        let lease_millis = self.kafka.settings().relay_lease_millis;
        let renew_after = lease_millis / RENEWALS_PER_LEASE;
        if let Some(lease) = &self.lease {
            let fresh = lease.expires_at.millis_since(now) > lease_millis - renew_after;
            if fresh {
                return Ok(true);
            }
        }
        let stored: Option<LeaseRecord> = self.store.load(LEASE).await?;
        let mine = |stored: &LeaseRecord| {
            let held = self.lease.as_ref();
            held.is_some_and(|held| held.token == stored.token) && now < stored.expires_at
        };
        let (token, version) = match &stored {
            Some(stored) if mine(stored) => (stored.token, stored.version),
            Some(stored) if stored.stands(now, lease_millis) => {
                self.lease = None;
                return Ok(false);
            }
            Some(stored) => (stored.token + 1, stored.version),
            None => (1, 0),
        };
        let lease = LeaseRecord {
            name: LEASE.to_owned(),
            holder: self.holder.clone(),
            token,
            expires_at: now.plus_millis(lease_millis),
            version,
        };
        let mut commit = Commit::new();
        commit.put(&lease);
        self.lease = match self.store.commit(commit).await {
            Ok(()) => Some(LeaseRecord {
                version: version + 1,
                ..lease
            }),
            Err(CommitError::Store(error)) => return Err(error),
            // Another process took it.
            Err(_) => None,
        };
        Ok(self.lease.is_some())
    }

    /// Proves the lease to the store by a commit with its fence.
    async fn verify_lease(&mut self) -> Result<bool, StoreError> {
        let Some(lease) = &self.lease else {
            return Ok(false);
        };
        let mut commit = Commit::new();
        commit.fences.push(lease.fence());
        match self.store.commit(commit).await {
            Ok(()) => Ok(true),
            Err(CommitError::Store(error)) => Err(error),
            Err(_) => {
                tracing::warn!(
                    holder = self.holder,
                    "the relay lost its lease to another process"
                );
                self.lease = None;
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

    /// Ends the lease, so that another process takes it at once.
    async fn release_lease(&mut self) {
        let Some(lease) = self.lease.take() else {
            return;
        };
        let mut commit = Commit::new();
        commit.put(&LeaseRecord {
            token: lease.token + 1,
            expires_at: Timestamp::from_millis(0),
            ..lease
        });
        if let Err(error) = self.store.commit(commit).await {
            tracing::info!(%error, "cannot release the relay's lease; it expires by itself");
        }
    }
}

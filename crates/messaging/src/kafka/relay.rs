//! Publishes what a crash left behind, and what its own process could not: rows that nobody published for a while, in
//! the order of their offsets.
//!
//! One leader at a time, by a lease whose token grows with each change of hands. The leader proves its lease to the
//! store before each batch; one that lost it publishes nothing. A leader that is stopped between that proof and its
//! sends can only repeat rows that were pending then, under their own ids: the inbox drops them. Rows of one key are
//! sent in their order, and a row is old enough only where all earlier ones of its key are.
//!
//! A row that is refused in company is sent alone, since brokers may refuse all of a batch over one of it. One that is
//! refused alone is parked, with what stands behind it of its subject ([`parked`]); all else goes on. Where everything of a
//! topic is refused, its rows wait and are tried again after a while. State: since when each pending row is known, what was
//! refused, and the lease.

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
    Clock, Commit, CommitError, Metrics, Shutdown, Store, StoreError, lease::LeaseRecord,
    tail::Stored,
};

/// The name of the lease.
const LEASE: &str = "relay";
/// Rows published by one look.
const ROWS_MAX: u32 = 1_024;
/// Between two looks.
const LOOK_MILLIS: i64 = 1_000;
/// A lease is renewed when it stands for less than its time by this part.
const RENEWALS_PER_LEASE: i64 = 3;

pub struct Relay {
    kafka: Arc<Kafka>,
    store: Store,
    clock: Clock,
    holder: String,
    metrics: Arc<Metrics>,
    lease: Option<LeaseRecord>,
    /// Since when each pending row is known.
    known: HashMap<i64, Timestamp>,
    /// Rows that were refused in company.
    suspects: HashSet<i64>,
    /// Topics of which the brokers take nothing, and since when.
    refused: HashMap<String, Timestamp>,
    producer: Option<(Producer, mpsc::UnboundedReceiver<Delivery>)>,
}

impl Relay {
    /// `holder` names the process for people.
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
            known: HashMap::new(),
            suspects: HashSet::new(),
            refused: HashMap::new(),
            producer: None,
        }
    }

    /// Relays until told to stop.
    pub async fn run(mut self, mut shutdown: Shutdown) {
        loop {
            match self.look().await {
                Ok(0) => {}
                Ok(published) => {
                    tracing::warn!(published, "messages that were left behind are published");
                    if !shutdown.is_requested() {
                        continue;
                    }
                }
                Err(StoreError::Poisoned(_)) => return,
                Err(error) => tracing::warn!(%error, "the relay waits"),
            }
            let next = self.clock.now().plus_millis(LOOK_MILLIS);
            tokio::select! {
                () = shutdown.requested() => return self.step_down().await,
                () = self.clock.wait_until(next) => {}
            }
        }
    }

    /// Looks once; returns how many rows it published.
    ///
    /// # Errors
    /// [`StoreError`] where store or brokers are away; what was not acknowledged is still pending.
    pub async fn look(&mut self) -> Result<usize, StoreError> {
        if !self.lead().await? {
            self.forget();
            self.refused.clear();
            self.metrics.topics_refused.set(0);
            return Ok(0);
        }
        let decided = self.follow_decisions().await?;
        let overdue = self.overdue().await?;
        if overdue.is_empty() || !self.still_leads().await? {
            return Ok(decided);
        }
        let published = match overdue.iter().any(|it| self.suspects.contains(&it.offset)) {
            true => self.publish_alone(&overdue).await,
            false => self.publish(&overdue).await,
        };
        if published.is_err() {
            self.forget();
        }
        Ok(published? + decided)
    }

    /// What it has queued must not go out later, when another leads; and who is alive publishes its own.
    fn forget(&mut self) {
        self.producer = None;
        self.known.clear();
        self.suspects.clear();
    }

    /// Takes or renews the lease, where that can be.
    async fn lead(&mut self) -> Result<bool, StoreError> {
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
        let claim = LeaseRecord {
            name: LEASE.to_owned(),
            holder: self.holder.clone(),
            token,
            expires_at: now.plus_millis(lease_millis),
            version,
        };
        let mut commit = Commit::new();
        commit.put(&claim);
        self.lease = match self.store.commit(commit).await {
            Ok(()) => Some(LeaseRecord {
                version: version + 1,
                ..claim
            }),
            Err(CommitError::Store(error)) => return Err(error),
            // Another was faster.
            Err(_) => None,
        };
        Ok(self.lease.is_some())
    }

    /// Whether the store still takes this leader's word.
    async fn still_leads(&mut self) -> Result<bool, StoreError> {
        let Some(lease) = &self.lease else {
            return Ok(false);
        };
        let mut commit = Commit::new();
        commit.fences.push(lease.fence());
        match self.store.commit(commit).await {
            Ok(()) => Ok(true),
            Err(CommitError::Store(error)) => Err(error),
            Err(_) => {
                tracing::warn!(holder = self.holder, "the relay's lease was lost");
                self.lease = None;
                Ok(false)
            }
        }
    }

    /// Rows that are known as pending for long enough, in order.
    async fn overdue(&mut self) -> Result<Vec<Stored>, StoreError> {
        let now = self.clock.now();
        let pause_secs = i64::try_from(TOPIC_PAUSE_SECS).unwrap_or(i64::MAX);
        let is_paused = |since: &Timestamp| now.millis_since(*since) < pause_secs * 1_000;
        let paused = self.refused.iter().filter(|(_, since)| is_paused(since));
        let paused: Vec<String> = paused.map(|(topic, _)| topic.clone()).collect();
        let outbox = self.kafka.outbox();
        let pending = outbox.publishable(&paused, ROWS_MAX).await?;
        let known: HashMap<i64, Timestamp> = pending
            .iter()
            .map(|row| {
                (
                    row.offset,
                    self.known.get(&row.offset).copied().unwrap_or(now),
                )
            })
            .collect();
        self.known = known;
        self.suspects
            .retain(|offset| self.known.contains_key(offset));
        // One whose rows are gone was published by their own processes.
        let is_there = |topic: &String| pending.iter().any(|row| row.message.topic == *topic);
        self.refused
            .retain(|topic, since| is_paused(since) || is_there(topic));
        self.metrics.topics_refused.set(self.refused.len() as i64);
        let after = self.kafka.settings().relay_after_millis;
        let is_overdue = |row: &Stored| {
            let since = self.known.get(&row.offset);
            since.is_some_and(|since| now.millis_since(*since) >= after)
        };
        Ok(pending.into_iter().filter(is_overdue).collect())
    }

    /// Leaves the lease to whoever comes first.
    async fn step_down(self) {
        let Some(lease) = self.lease else { return };
        let mut commit = Commit::new();
        commit.put(&LeaseRecord {
            token: lease.token + 1,
            expires_at: Timestamp::from_millis(0),
            ..lease
        });
        if let Err(error) = self.store.commit(commit).await {
            tracing::info!(%error, "the relay's lease runs out by itself");
        }
    }
}

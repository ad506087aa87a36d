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

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use contract::Timestamp;
use tokio::{sync::mpsc, time::Instant};

use super::{
    Kafka,
    producer::{Delivery, Producer, Refusal, TOPIC_PAUSE_SECS},
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

/// What became of some rows; of those in neither list nobody knows.
#[derive(Default)]
struct Sent {
    acknowledged: Vec<i64>,
    refused: Vec<(i64, Refusal)>,
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

    /// Publishes rows together; returns how many the brokers have.
    async fn publish(&mut self, rows: &[Stored]) -> Result<usize, StoreError> {
        let Sent {
            acknowledged,
            refused,
        } = self.send(rows).await?;
        self.delete(rows, &acknowledged).await?;
        let refused_topics = self.refused.len();
        let mut away = Some("no answer in time".to_owned());
        for (offset, refusal) in refused {
            match refusal {
                Refusal::Message(_) => {
                    self.suspects.insert(offset);
                }
                Refusal::Topic(reason) => self.refuse_topic(rows, offset, &reason),
                // Mostly given up together with one of the others.
                Refusal::Passing(reason) => away = away.map(|_| reason),
            }
        }
        if !self.suspects.is_empty() || refused_topics < self.refused.len() {
            away = None;
        }
        match away.filter(|_| acknowledged.is_empty()) {
            Some(reason) => Err(StoreError::Unavailable(format!("Kafka: {reason}"))),
            None => Ok(acknowledged.len()),
        }
    }

    /// Publishes the subjects of suspects row by row, for a part of the lease's time; parks what is refused. Returns how
    /// many the brokers have.
    async fn publish_alone(&mut self, rows: &[Stored]) -> Result<usize, StoreError> {
        let until = Instant::now() + self.patience();
        let suspects = rows.iter().filter(|it| self.suspects.contains(&it.offset));
        let mut subjects: HashSet<_> = suspects.map(subject).collect();
        let mut published = 0;
        for row in rows {
            if Instant::now() >= until {
                break;
            }
            if !subjects.contains(&subject(row)) {
                continue;
            }
            let is_sent = match self.try_alone(row).await? {
                Ok(()) => {
                    self.delete(std::slice::from_ref(row), &[row.offset])
                        .await?;
                    true
                }
                Err(Refusal::Message(reason)) => {
                    self.park(row, &reason).await?;
                    false
                }
                Err(Refusal::Topic(_)) => false,
                Err(Refusal::Passing(reason)) => return Err(StoreError::Unavailable(reason)),
            };
            self.suspects.remove(&row.offset);
            if is_sent {
                published += 1;
            } else {
                // What is behind it waits with it.
                subjects.remove(&subject(row));
            }
        }
        Ok(published)
    }

    async fn try_alone(&mut self, row: &Stored) -> Result<Result<(), Refusal>, StoreError> {
        let mut sent = self.send(std::slice::from_ref(row)).await?;
        Ok(match (sent.acknowledged.pop(), sent.refused.pop()) {
            (Some(_), _) => Ok(()),
            (None, Some((offset, refusal))) => {
                if let Refusal::Topic(reason) = &refusal {
                    self.refuse_topic(std::slice::from_ref(row), offset, reason);
                }
                Err(refusal)
            }
            (None, None) => Err(Refusal::Passing("no answer in time".to_owned())),
        })
    }

    /// Sends rows in their order, none behind one of its subject that was refused, and waits for the answers.
    async fn send(&mut self, rows: &[Stored]) -> Result<Sent, StoreError> {
        let patience = self.patience();
        let (producer, deliveries) = match &mut self.producer {
            Some(open) => open,
            closed => {
                let (told, deliveries) = mpsc::unbounded_channel();
                // It answers within the patience that its answer is waited for.
                let topic_millis = u64::try_from(patience.as_millis() / 2).unwrap_or(1).max(1);
                let producer = Producer::open(self.kafka.settings(), 0, &told, topic_millis)?;
                closed.insert((producer, deliveries))
            }
        };
        let (mut sent, mut count, mut behind) = (Sent::default(), 0, HashSet::new());
        for row in rows {
            if behind.contains(&subject(row)) {
                continue;
            }
            match producer.send(row).await {
                Ok(()) => count += 1,
                Err(refusal) => {
                    let is_over = matches!(refusal, Refusal::Passing(_));
                    sent.refused.push((row.offset, refusal));
                    behind.insert(subject(row));
                    if is_over {
                        break;
                    }
                }
            }
        }
        let answered = async {
            let mut failed = false;
            for _ in 0..count {
                let Some(delivery) = deliveries.recv().await else {
                    break;
                };
                match delivery.outcome {
                    Ok(()) => sent.acknowledged.push(delivery.offset),
                    Err(refusal) => {
                        failed = true;
                        sent.refused.push((delivery.offset, refusal));
                    }
                }
            }
            !failed
        };
        let is_whole = tokio::time::timeout(patience, answered)
            .await
            .unwrap_or(false);
        let is_passing = |(_, refusal): &(i64, Refusal)| matches!(refusal, Refusal::Passing(_));
        if !is_whole || sent.refused.iter().any(is_passing) {
            // Its stream has ended, or answers that come later belong to nothing.
            self.producer = None;
        }
        Ok(sent)
    }

    /// What the brokers have is done with, whoever leads now.
    async fn delete(&mut self, rows: &[Stored], offsets: &[i64]) -> Result<(), StoreError> {
        self.kafka.outbox().published(offsets).await?;
        for offset in offsets {
            self.known.remove(offset);
        }
        let is_taken = |topic: &String| {
            let mut taken = rows.iter().filter(|row| offsets.contains(&row.offset));
            taken.any(|row| row.message.topic == *topic)
        };
        self.refused.retain(|topic, _| !is_taken(topic));
        Ok(())
    }

    fn refuse_topic(&mut self, rows: &[Stored], offset: i64, reason: &str) {
        let Some(row) = rows.iter().find(|row| row.offset == offset) else {
            return;
        };
        let topic = &row.message.topic;
        if self
            .refused
            .insert(topic.clone(), self.clock.now())
            .is_none()
        {
            tracing::error!(
                topic,
                reason,
                "the brokers take nothing of a topic; its messages wait"
            );
        }
        self.metrics.topics_refused.set(self.refused.len() as i64);
    }

    /// How long answers are waited for.
    fn patience(&self) -> Duration {
        let millis = self.kafka.settings().relay_lease_millis / RENEWALS_PER_LEASE;
        Duration::from_millis(u64::try_from(millis).unwrap_or(1))
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

/// What orders a row.
fn subject(row: &Stored) -> (String, String) {
    let message = &row.message;
    (message.topic.clone(), message.ordered_by().to_owned())
}

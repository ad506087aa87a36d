//! Publishes what this process committed, at once and in the order of the commits.
//!
//! **Order.** A row is sent only when every earlier row of its topic and subject (its key, where it names none) is
//! acknowledged (and so gone from the table) or was sent by this very producer before it, whose stream cannot be
//! reordered. An earlier row of another process holds it back, and with it every later one of its subject: it is looked
//! for again until that row is gone, and after a while left to the relay, which publishes both in the order of their
//! rows. An earlier row of the same subject is always visible by then: who commits the later one has seen the record
//! that the earlier one changed. Rows of one key and different subjects have no such order, and a key like an event's
//! is everybody's in a sale: waiting for it would let one process publish at a time.
//!
//! **A send that fails** ends the stream of its producer, so that nothing arrives before what should stand in front of
//! it: another producer sends everything that has no answer again, in its order. What the brokers refuse whenever it is
//! sent is left to the relay, with what comes behind it of its subject; everything else goes on.
//!
//! **A crash** leaves rows in the table and nothing else; a row that was sent and not deleted yet is published twice,
//! under one id, and the inbox of each group drops the second. State: which rows were sent or wait.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use super::{
    KafkaSettings,
    in_flight::InFlight,
    producer::{Delivery, HASTY_PAYLOAD_BYTES_MAX, Haste, Producer, Refusal, TOPIC_PAUSE_SECS},
};
use crate::{
    Postgres, Random, Shutdown, StoreError, backoff::Backoff, postgres::Pending, tail::Stored,
};

/// Rows taken, or deleted, at once.
const ROWS_MAX: usize = 1_024;
/// A row that is held back is looked at again after this time.
const HELD_LOOK_MILLIS: u64 = 10;
const BACKOFF_MILLIS_MAX: u64 = 1_000;
/// Between two producers.
const REOPEN_PAUSE_MILLIS: u64 = 1_000;
/// A record that waits for its brokers keeps the time at which it was sent, and they delete by that time: what has no
/// answer for this part of the retention is sent anew.
const RESENDS_PER_RETENTION: u32 = 4;
const HASTE: Haste = Haste {
    requests_max: 5,
    topic_millis_max: 30_000,
};
/// How long the last sends may take when the process stops.
const FLUSH_MILLIS_MAX: u64 = 2_000;

struct Held {
    stored: Stored,
    since: Instant,
}

impl Held {
    /// What it must not overtake: an earlier row of the same.
    fn subject(&self) -> (String, String) {
        let message = &self.stored.message;
        (message.topic.clone(), message.ordered_by().to_owned())
    }
}

pub(super) struct Publisher {
    outbox: Arc<Postgres>,
    settings: KafkaSettings,
    /// `None` where none can be opened now.
    producer: Option<Producer>,
    opened_at: Instant,
    /// It takes nothing any more.
    is_broken: bool,
    /// What was sent last is large: nothing is sent behind it until it is answered.
    is_alone: bool,
    deliveries: mpsc::UnboundedSender<Delivery>,
    random: Random,
    /// The last row that was taken.
    taken: i64,
    held: VecDeque<Held>,
    in_flight: Arc<InFlight>,
    /// Topics of which the brokers take nothing, and since when that is known.
    refused: HashMap<String, Instant>,
    give_up_after: Duration,
    resend_after: Duration,
}

impl Publisher {
    /// Publishes what is committed from now on; the deletion of what was acknowledged runs beside it.
    ///
    /// # Errors
    /// [`StoreError`] where librdkafka cannot be started with these settings.
    pub(super) fn start(
        outbox: Arc<Postgres>,
        settings: KafkaSettings,
        random: Random,
        shutdown: Shutdown,
    ) -> Result<[tokio::task::JoinHandle<()>; 2], StoreError> {
        let in_flight = Arc::<InFlight>::default();
        let (deliveries, told) = mpsc::unbounded_channel();
        let deleter = Deleter {
            outbox: Arc::clone(&outbox),
            deliveries: told,
            random: random.clone(),
            in_flight: Arc::clone(&in_flight),
        };
        // Twice what the relay waits: whatever is given up here is the relay's by then.
        let give_up_millis = u64::try_from(settings.relay_after_millis * 2).unwrap_or(0);
        let retention_secs = u64::try_from(settings.retention_secs).unwrap_or(1);
        let publisher = Self {
            outbox,
            producer: Some(Producer::open(&settings, 0, &deliveries, HASTE)?),
            opened_at: Instant::now(),
            is_broken: false,
            is_alone: false,
            deliveries,
            random,
            // Whatever was committed since the store was opened.
            taken: 0,
            held: VecDeque::new(),
            in_flight,
            refused: HashMap::new(),
            give_up_after: Duration::from_millis(give_up_millis),
            resend_after: Duration::from_secs(retention_secs) / RESENDS_PER_RETENTION,
            settings,
        };
        Ok([
            tokio::spawn(publisher.run(shutdown)),
            tokio::spawn(deleter.run()),
        ])
    }

    async fn run(mut self, mut shutdown: Shutdown) {
        let mut head = self.outbox.head();
        loop {
            while self.publish().await {}
            let look_again = async {
                match self.held.is_empty() {
                    true => std::future::pending().await,
                    false => tokio::time::sleep(Duration::from_millis(HELD_LOOK_MILLIS)).await,
                }
            };
            tokio::select! {
                changed = head.changed() => if changed.is_err() { break },
                () = look_again => {}
                () = self.in_flight.failure(self.resend_after) => {}
                () = shutdown.requested() => break,
            }
        }
        while self.publish().await {}
        if let Some(producer) = self.producer {
            // librdkafka waits on the thread that asks it to.
            let flush = move || producer.flush(FLUSH_MILLIS_MAX);
            let _ = tokio::task::spawn_blocking(flush).await;
        }
    }

    /// Publishes what was committed since, and what was held and is free now. Whether there may be more.
    async fn publish(&mut self) -> bool {
        self.recover().await;
        let before = self.taken;
        self.take();
        self.is_alone &= !self.in_flight.is_idle();
        if self.is_alone {
            return self.taken > before;
        }
        let candidates: Vec<Held> = self.held.drain(..).collect();
        if candidates.is_empty() {
            return false;
        }
        let mut blocked = self.foreign(&candidates).await;
        for held in candidates {
            if self.is_broken || self.is_alone || !self.in_flight.room(self.resend_after).await {
                self.held.push_back(held);
                continue;
            }
            // What is left to the relay holds back what comes behind it, here and in other processes.
            if self.is_refused(&held.stored.message.topic) {
                continue;
            }
            let subject = held.subject();
            let first = blocked.get(&subject);
            if first.is_some_and(|first| *first < held.stored.offset) {
                if held.since.elapsed() < self.give_up_after {
                    self.held.push_back(held);
                }
                continue;
            }
            let is_large = held.stored.message.payload.len() > HASTY_PAYLOAD_BYTES_MAX;
            if is_large && !self.in_flight.is_idle() {
                blocked.insert(subject, held.stored.offset);
                if held.since.elapsed() < self.give_up_after {
                    self.held.push_back(held);
                }
                continue;
            }
            self.is_alone = is_large;
            match self.send(&held.stored).await {
                Ok(()) => {}
                Err(Refusal::Passing(reason)) => {
                    tracing::warn!(reason, "a producer takes nothing any more");
                    self.is_broken = true;
                    self.held.push_back(held);
                }
                Err(refusal) => {
                    self.leave(&held.stored, &refusal);
                    blocked.insert(subject, held.stored.offset);
                }
            }
        }
        self.taken > before
    }

    /// After a failed send, another producer takes over what has no answer.
    async fn recover(&mut self) {
        if !self.is_broken && !self.in_flight.has_failed(self.resend_after) {
            return;
        }
        if let Some(producer) = self.producer.take() {
            // What it has queued must not arrive behind what is sent again.
            let _ = tokio::task::spawn_blocking(move || drop(producer)).await;
        }
        let pause = Duration::from_millis(REOPEN_PAUSE_MILLIS);
        tokio::time::sleep_until(self.opened_at + pause).await;
        let (generation, unsent) = self.in_flight.take_back();
        let since = Instant::now();
        for (stored, refusal) in unsent {
            match refusal {
                Refusal::Passing(_) => self.held.push_back(Held { stored, since }),
                refusal => self.leave(&stored, &refusal),
            }
        }
        let by_offset = |held: &Held| held.stored.offset;
        self.held.make_contiguous().sort_by_key(by_offset);
        self.opened_at = Instant::now();
        match Producer::open(&self.settings, generation, &self.deliveries, HASTE) {
            Ok(producer) => self.producer = Some(producer),
            Err(error) => tracing::warn!(%error, "publishing waits for a producer"),
        }
        self.is_broken = self.producer.is_none();
    }

    /// The relay finds out what is to become of a row that was refused.
    fn leave(&mut self, stored: &Stored, refusal: &Refusal) {
        let message = &stored.message;
        match refusal {
            Refusal::Topic(reason) => {
                let before = self.refused.insert(message.topic.clone(), Instant::now());
                if before.is_none() {
                    tracing::error!(
                        topic = message.topic,
                        reason,
                        "the brokers take nothing of a topic; its messages wait"
                    );
                }
            }
            Refusal::Message(reason) | Refusal::Passing(reason) => {
                tracing::warn!(
                    message.id,
                    topic = message.topic,
                    reason,
                    "the brokers refuse a message; it is left to the relay"
                );
            }
        }
    }

    /// Whether nothing of this topic is sent at the moment.
    fn is_refused(&self, topic: &str) -> bool {
        let pause = Duration::from_secs(TOPIC_PAUSE_SECS);
        let since = self.refused.get(topic);
        since.is_some_and(|since| since.elapsed() < pause)
    }

    /// What was committed here since the last look; what is no longer in memory is left to the relay.
    fn take(&mut self) {
        let Some(rows) = self.outbox.committed_here(self.taken, ROWS_MAX) else {
            self.taken = *self.outbox.head().borrow();
            tracing::warn!("too many messages wait for Kafka; the relay publishes them");
            return;
        };
        if let Some(last) = rows.last() {
            self.taken = last.offset;
        }
        let since = Instant::now();
        self.held
            .extend(rows.into_iter().map(|stored| Held { stored, since }));
    }

    /// The first pending row, by topic and subject, that this process has neither sent nor is about to send.
    async fn foreign(&self, candidates: &[Held]) -> HashMap<(String, String), i64> {
        let mut subjects: Vec<&str> = candidates
            .iter()
            .map(|held| held.stored.message.ordered_by())
            .collect();
        subjects.sort_unstable();
        subjects.dedup();
        let last = candidates
            .iter()
            .map(|held| held.stored.offset)
            .max()
            .unwrap_or(0);
        let mut own: HashSet<i64> = candidates.iter().map(|held| held.stored.offset).collect();
        own.extend(self.in_flight.own());
        let mut backoff = Backoff::new(&self.random, BACKOFF_MILLIS_MAX);
        let pending: Vec<Pending> = loop {
            match self.outbox.pending_before(last, &subjects).await {
                Ok(pending) => break pending,
                Err(error) => {
                    tracing::warn!(%error, "publishing waits for the store");
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        };
        let mut first = HashMap::new();
        for row in pending.into_iter().filter(|row| !own.contains(&row.offset)) {
            let known = first.entry((row.topic, row.subject)).or_insert(row.offset);
            *known = row.offset.min(*known);
        }
        first
    }

    async fn send(&self, stored: &Stored) -> Result<(), Refusal> {
        let Some(producer) = &self.producer else {
            return Err(Refusal::Passing("there is no producer".to_owned()));
        };
        // Its answer may come before this returns.
        self.in_flight.add(stored);
        let sent = producer.send(stored).await;
        if sent.is_err() {
            self.in_flight.remove(stored.offset);
        }
        sent
    }
}

/// Deletes rows that the brokers have.
struct Deleter {
    outbox: Arc<Postgres>,
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    random: Random,
    in_flight: Arc<InFlight>,
}

impl Deleter {
    /// Until the publisher is gone.
    async fn run(mut self) {
        let mut told = Vec::new();
        while self.deliveries.recv_many(&mut told, ROWS_MAX).await > 0 {
            let acknowledged = self.in_flight.answer(told.drain(..));
            if self.delete(&acknowledged).await.is_err() {
                return;
            }
            self.in_flight.deleted(&acknowledged);
        }
    }

    async fn delete(&self, offsets: &[i64]) -> Result<(), StoreError> {
        if offsets.is_empty() {
            return Ok(());
        }
        let mut backoff = Backoff::new(&self.random, BACKOFF_MILLIS_MAX);
        loop {
            match self.outbox.published(offsets).await {
                Ok(_) => return Ok(()),
                Err(error @ StoreError::Poisoned(_)) => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "published rows stay for now");
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }
}

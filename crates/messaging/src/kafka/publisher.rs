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
//! **A crash** leaves rows in the table and nothing else; a row that was sent and not deleted yet is published twice,
//! under one id, and the inbox of each group drops the second. State: which rows were sent or wait.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::Instant,
};

use super::producer::{Delivery, Producer};
use crate::{
    Postgres, Random, Shutdown, StoreError, backoff::Backoff, postgres::Pending, tail::Stored,
};

/// Sends that may wait for their acknowledgement.
const WINDOW_MESSAGES: usize = 8_192;
/// Rows taken, or deleted, at once.
const ROWS_MAX: usize = 1_024;
/// A row that is held back is looked at again after this time.
const HELD_LOOK_MILLIS: u64 = 10;
const BACKOFF_MILLIS_MAX: u64 = 1_000;
/// How long the last sends may take when the process stops.
const FLUSH_MILLIS_MAX: u64 = 2_000;

/// Rows that this process has sent, until they are deleted.
type Sent = Arc<Mutex<HashSet<i64>>>;

struct Held {
    stored: Stored,
    since: Instant,
}

pub(super) struct Publisher {
    outbox: Arc<Postgres>,
    producer: Producer,
    random: Random,
    /// The last row that was taken.
    taken: i64,
    held: VecDeque<Held>,
    sent: Sent,
    window: Arc<Semaphore>,
    give_up_after: Duration,
    failure: watch::Sender<Option<String>>,
}

impl Publisher {
    /// Publishes what is committed from now on; the deletion of what was acknowledged runs beside it.
    pub(super) fn start(
        outbox: Arc<Postgres>,
        (producer, deliveries): (Producer, mpsc::UnboundedReceiver<Delivery>),
        random: Random,
        give_up_after: Duration,
        failure: watch::Sender<Option<String>>,
        shutdown: Shutdown,
    ) -> [tokio::task::JoinHandle<()>; 2] {
        let (sent, window) = (Sent::default(), Arc::new(Semaphore::new(WINDOW_MESSAGES)));
        let deleter = Deleter {
            outbox: Arc::clone(&outbox),
            deliveries,
            random: random.clone(),
            sent: Arc::clone(&sent),
            window: Arc::clone(&window),
            failure: failure.clone(),
        };
        let publisher = Self {
            outbox,
            producer,
            random,
            // Whatever was committed since the store was opened.
            taken: 0,
            held: VecDeque::new(),
            sent,
            window,
            give_up_after,
            failure,
        };
        [
            tokio::spawn(publisher.run(shutdown)),
            tokio::spawn(deleter.run()),
        ]
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
                () = shutdown.requested() => break,
            }
        }
        while self.publish().await {}
        let producer = self.producer;
        // librdkafka waits on the thread that asks it to.
        let _ = tokio::task::spawn_blocking(move || producer.flush(FLUSH_MILLIS_MAX)).await;
    }

    /// Publishes what was committed since, and what was held and is free now. Whether there may be more.
    async fn publish(&mut self) -> bool {
        if self.failure.borrow().is_some() {
            return false;
        }
        let before = self.taken;
        self.take();
        let candidates: Vec<Held> = self.held.drain(..).collect();
        if candidates.is_empty() {
            return false;
        }
        let blocked = self.foreign(&candidates).await;
        for held in candidates {
            let key = (
                held.stored.message.topic.clone(),
                held.stored.message.ordered_by().to_owned(),
            );
            // Whatever comes behind a message that could not be sent stays behind it.
            if self.failure.borrow().is_some() {
                return false;
            }
            let waits = blocked
                .get(&key)
                .is_some_and(|first| *first < held.stored.offset);
            if !waits {
                self.send(held.stored).await;
            } else if held.since.elapsed() < self.give_up_after {
                self.held.push_back(held);
            }
        }
        self.taken > before
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
        own.extend(
            self.sent
                .lock()
                .expect("no holder of this lock panics")
                .iter(),
        );
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

    async fn send(&self, stored: Stored) {
        // The semaphore is never closed.
        if let Ok(permit) = self.window.acquire().await {
            permit.forget();
        }
        self.sent
            .lock()
            .expect("no holder of this lock panics")
            .insert(stored.offset);
        if let Err(reason) = self.producer.send(&stored).await {
            fail(&self.failure, reason);
        }
    }
}

/// What follows a message that cannot be delivered must not be: the process ends, and its rows stay.
fn fail(failure: &watch::Sender<Option<String>>, reason: String) {
    tracing::error!(reason, "publishing has failed; the process must stop");
    failure.send_replace(Some(reason));
}

/// Deletes rows that the brokers have.
struct Deleter {
    outbox: Arc<Postgres>,
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    random: Random,
    sent: Sent,
    window: Arc<Semaphore>,
    failure: watch::Sender<Option<String>>,
}

impl Deleter {
    /// Until the producer is gone.
    async fn run(mut self) {
        let mut told = Vec::new();
        while self.deliveries.recv_many(&mut told, ROWS_MAX).await > 0 {
            self.window.add_permits(told.len());
            let mut acknowledged = Vec::with_capacity(told.len());
            for (offset, outcome) in told.drain(..) {
                match outcome {
                    Ok(()) => acknowledged.push(offset),
                    Err(reason) => fail(&self.failure, reason),
                }
            }
            if self.delete(&acknowledged).await.is_err() {
                return;
            }
            let mut sent = self.sent.lock().expect("no holder of this lock panics");
            for offset in acknowledged {
                sent.remove(&offset);
            }
        }
    }

    async fn delete(&self, offsets: &[i64]) -> Result<(), StoreError> {
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

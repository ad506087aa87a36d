//! Publishes what this process committed, at once and in the order of the commits.
//!
//! **Order.** A row is sent only after every earlier row of its topic and subject (its key, if it has no subject) is
//! acknowledged, and so deleted, or was sent before it by the same producer, which keeps the order. An earlier row that
//! another process committed blocks it, and all later rows of its subject: the publisher checks again until that row is
//! gone, and after a while leaves them to the relay, which publishes all of them in the order of their rows. An earlier row
//! of a subject is always visible by then, because the later commit was decided on the record that the earlier one changed.
//! Rows of one key and different subjects are not ordered: in a sale all processes share the key of an event, and ordering
//! by it would let one process publish at a time.
//!
//! **A failed send** ends its producer, so that no later row overtakes it; the next producer sends all rows in flight again,
//! in order. A row that the brokers reject permanently is left to the relay, with the later rows of its subject; all others
//! are published.
//!
//! **A crash** leaves rows in the outbox. The process that starts again publishes only what it commits itself; the relay takes
//! the others (`Relay::overdue`). A row that was acknowledged and not yet deleted is published twice, under one id, and the
//! inbox of each group drops the second. State: the rows that are sent or not sent yet.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, time::Instant};

use super::{
    KafkaSettings,
    in_flight::InFlight,
    producer::{
        Delivery, PIPELINED_PAYLOAD_BYTES_MAX, Producer, SendError, SendLimits, TOPIC_PAUSE_SECS,
    },
};
use crate::{
    Postgres, Random, Shutdown, StoreError, backoff::Backoff, log_cache::StoredMessage,
    postgres::Pending,
};

/// Rows read, or deleted, at once.
const ROWS_MAX: usize = 1_024;
/// The interval of checks whether blocked rows can be sent.
const BLOCKED_CHECK_MILLIS: u64 = 10;
const BACKOFF_MILLIS_MAX: u64 = 1_000;
/// The least time between two producers.
const REOPEN_PAUSE_MILLIS: u64 = 1_000;
/// A record in librdkafka's queue keeps the timestamp of its send, from which retention counts. Without an acknowledgement
/// for the retention divided by this, it is sent again, with a new timestamp.
const RESENDS_PER_RETENTION: u32 = 4;
const SEND_LIMITS: SendLimits = SendLimits {
    requests_max: 5,
    topic_millis_max: 30_000,
};
/// How long a stopping process waits for its last sends.
const FLUSH_MILLIS_MAX: u64 = 2_000;

struct UnsentRow {
    stored: StoredMessage,
    since: Instant,
}

impl UnsentRow {
    /// Rows of the same subject are published in order.
    fn subject(&self) -> (String, String) {
        let message = &self.stored.message;
        (message.topic.clone(), message.ordered_by().to_owned())
    }
}

pub(super) struct Publisher {
    outbox: Arc<Postgres>,
    settings: KafkaSettings,
    /// `None` if the last attempt to open one failed.
    producer: Option<Producer>,
    opened_at: Instant,
    /// A send failed: the producer must be replaced.
    is_broken: bool,
    /// The last row is large: nothing more is sent before it is acknowledged.
    is_exclusive: bool,
    deliveries: mpsc::UnboundedSender<Delivery>,
    random: Random,
    /// The offset of the last row that was read.
    read_to: i64,
    unsent: VecDeque<UnsentRow>,
    in_flight: Arc<InFlight>,
    /// Topics that the brokers reject, and since when.
    rejected_topics: HashMap<String, Instant>,
    give_up_after: Duration,
    resend_after: Duration,
}

impl Publisher {
    /// Starts two tasks: one publishes what is committed, the other deletes what is acknowledged.
    ///
    /// # Errors
    /// [`StoreError`] if librdkafka rejects these settings.
    pub(super) fn start(
        outbox: Arc<Postgres>,
        settings: KafkaSettings,
        random: Random,
        shutdown: Shutdown,
    ) -> Result<[tokio::task::JoinHandle<()>; 2], StoreError> {
        let in_flight = Arc::<InFlight>::default();
        let (deliveries, reports) = mpsc::unbounded_channel();
        let deleter = OutboxDeleter {
            outbox: Arc::clone(&outbox),
            deliveries: reports,
            random: random.clone(),
            in_flight: Arc::clone(&in_flight),
        };
        // Twice the relay's wait: the relay publishes a row by the time it is given up here.
        let give_up_millis = u64::try_from(settings.relay_after_millis * 2).unwrap_or(0);
        let retention_secs = u64::try_from(settings.retention_secs).unwrap_or(1);
        let publisher = Self {
            outbox,
            producer: Some(Producer::open(&settings, 0, &deliveries, SEND_LIMITS)?),
            opened_at: Instant::now(),
            is_broken: false,
            is_exclusive: false,
            deliveries,
            random,
            // All that was committed since the store was opened.
            read_to: 0,
            unsent: VecDeque::new(),
            in_flight,
            rejected_topics: HashMap::new(),
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
            let recheck = async {
                match self.unsent.is_empty() {
                    true => std::future::pending().await,
                    false => tokio::time::sleep(Duration::from_millis(BLOCKED_CHECK_MILLIS)).await,
                }
            };
            tokio::select! {
                changed = head.changed() => if changed.is_err() { break },
                () = recheck => {}
                () = self.in_flight.failure(self.resend_after) => {}
                () = shutdown.requested() => break,
            }
        }
        while self.publish().await {}
        if let Some(producer) = self.producer {
            // A flush blocks its thread.
            let flush = move || producer.flush(FLUSH_MILLIS_MAX);
            let _ = tokio::task::spawn_blocking(flush).await;
        }
    }

    /// Sends new rows, and blocked ones that can be sent now; returns whether there may be more.
    async fn publish(&mut self) -> bool {
        self.recover().await;
        let before = self.read_to;
        self.read_committed();
        self.is_exclusive &= !self.in_flight.is_idle();
        if self.is_exclusive {
            return self.read_to > before;
        }
        let candidates: Vec<UnsentRow> = self.unsent.drain(..).collect();
        if candidates.is_empty() {
            return false;
        }
        let mut blocked = self.first_foreign(&candidates).await;
        for row in candidates {
            if self.is_broken
                || self.is_exclusive
                || !self.in_flight.has_capacity(self.resend_after).await
            {
                self.unsent.push_back(row);
                continue;
            }
            // A row that is left to the relay blocks later ones of its subject, here and in other processes.
            if self.is_topic_paused(&row.stored.message.topic) {
                continue;
            }
            let subject = row.subject();
            let first = blocked.get(&subject);
            if first.is_some_and(|first| *first < row.stored.offset) {
                if row.since.elapsed() < self.give_up_after {
                    self.unsent.push_back(row);
                }
                continue;
            }
            let is_large = row.stored.message.payload.len() > PIPELINED_PAYLOAD_BYTES_MAX;
            if is_large && !self.in_flight.is_idle() {
                blocked.insert(subject, row.stored.offset);
                if row.since.elapsed() < self.give_up_after {
                    self.unsent.push_back(row);
                }
                continue;
            }
            self.is_exclusive = is_large;
            match self.send(&row.stored).await {
                Ok(()) => {}
                Err(SendError::Transient(reason)) => {
                    tracing::warn!(reason, "a producer has failed; another one replaces it");
                    self.is_broken = true;
                    self.unsent.push_back(row);
                }
                Err(error) => {
                    self.leave_to_relay(&row.stored, &error);
                    blocked.insert(subject, row.stored.offset);
                }
            }
        }
        self.read_to > before
    }

    /// Replaces a failed producer, and queues the rows in flight again.
    async fn recover(&mut self) {
        if !self.is_broken && !self.in_flight.has_failed(self.resend_after) {
            return;
        }
        if let Some(producer) = self.producer.take() {
            // Its queue must be gone before the rows are sent again.
            let _ = tokio::task::spawn_blocking(move || drop(producer)).await;
        }
        let pause = Duration::from_millis(REOPEN_PAUSE_MILLIS);
        tokio::time::sleep_until(self.opened_at + pause).await;
        let (generation, unsent) = self.in_flight.next_generation();
        let since = Instant::now();
        for (stored, error) in unsent {
            match error {
                SendError::Transient(_) => self.unsent.push_back(UnsentRow { stored, since }),
                error => self.leave_to_relay(&stored, &error),
            }
        }
        let by_offset = |row: &UnsentRow| row.stored.offset;
        self.unsent.make_contiguous().sort_by_key(by_offset);
        self.opened_at = Instant::now();
        match Producer::open(&self.settings, generation, &self.deliveries, SEND_LIMITS) {
            Ok(producer) => self.producer = Some(producer),
            Err(error) => tracing::warn!(%error, "cannot open a producer; publishing is retried"),
        }
        self.is_broken = self.producer.is_none();
    }

    /// Leaves a rejected row in the outbox, where the relay sends or parks it.
    fn leave_to_relay(&mut self, stored: &StoredMessage, error: &SendError) {
        let message = &stored.message;
        match error {
            SendError::Topic(reason) => {
                let before = self
                    .rejected_topics
                    .insert(message.topic.clone(), Instant::now());
                if before.is_none() {
                    tracing::error!(
                        topic = message.topic,
                        reason,
                        "the brokers reject a topic; its messages wait in the outbox"
                    );
                }
            }
            SendError::Message(reason) | SendError::Transient(reason) => {
                tracing::warn!(
                    message.id,
                    topic = message.topic,
                    reason,
                    "the brokers reject a message; it is left to the relay"
                );
            }
        }
    }

    fn is_topic_paused(&self, topic: &str) -> bool {
        let pause = Duration::from_secs(TOPIC_PAUSE_SECS);
        let since = self.rejected_topics.get(topic);
        since.is_some_and(|since| since.elapsed() < pause)
    }

    /// Queues what this process has committed since the last call. What is no longer in memory is left to the relay.
    fn read_committed(&mut self) {
        let Some(rows) = self.outbox.committed_here(self.read_to, ROWS_MAX) else {
            self.read_to = *self.outbox.head().borrow();
            tracing::warn!("too many messages wait for Kafka; the relay publishes them");
            return;
        };
        if let Some(last) = rows.last() {
            self.read_to = last.offset;
        }
        let since = Instant::now();
        self.unsent
            .extend(rows.into_iter().map(|stored| UnsentRow { stored, since }));
    }

    /// The first pending row of each topic and subject that this process has neither sent nor queued.
    async fn first_foreign(&self, candidates: &[UnsentRow]) -> HashMap<(String, String), i64> {
        let mut subjects: Vec<&str> = candidates
            .iter()
            .map(|row| row.stored.message.ordered_by())
            .collect();
        subjects.sort_unstable();
        subjects.dedup();
        let last = candidates
            .iter()
            .map(|row| row.stored.offset)
            .max()
            .unwrap_or(0);
        let mut own: HashSet<i64> = candidates.iter().map(|row| row.stored.offset).collect();
        own.extend(self.in_flight.sent());
        let mut backoff = Backoff::new(&self.random, BACKOFF_MILLIS_MAX);
        let pending: Vec<Pending> = loop {
            match self.outbox.pending_before(last, &subjects).await {
                Ok(pending) => break pending,
                Err(error) => {
                    tracing::warn!(%error, "cannot read the outbox; publishing is retried");
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

    async fn send(&self, stored: &StoredMessage) -> Result<(), SendError> {
        let Some(producer) = &self.producer else {
            return Err(SendError::Transient("there is no producer".to_owned()));
        };
        self.in_flight.add(stored);
        let sent = producer.send(stored).await;
        if sent.is_err() {
            self.in_flight.remove(stored.offset);
        }
        sent
    }
}

/// Deletes acknowledged rows.
struct OutboxDeleter {
    outbox: Arc<Postgres>,
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    random: Random,
    in_flight: Arc<InFlight>,
}

impl OutboxDeleter {
    /// Runs until all senders of deliveries are dropped.
    async fn run(mut self) {
        let mut reports = Vec::new();
        while self.deliveries.recv_many(&mut reports, ROWS_MAX).await > 0 {
            let acknowledged = self.in_flight.record(reports.drain(..));
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
                    tracing::warn!(%error, "cannot delete published rows; retrying");
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }
}

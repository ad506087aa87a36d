//! This process's consumer of one group. It polls on its own thread, which never waits for the store.
//!
//! Offsets are committed to the brokers after the worker's commit: at an interval and before a revocation, and again until
//! the brokers confirm them. If partitions are revoked, the rebalance callback waits until the batch in progress is
//! finished. After `revoke_millis_max` it gives them up anyway; the inbox drops what is then processed twice. If the worker
//! falls behind, the partitions are paused, and polling continues. State: the consumer, and its [`PartitionBuffer`].

use std::{
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rdkafka::{
    ClientContext, Message as _, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
    topic_partition_list::Offset,
};

use super::{
    KafkaSettings, codec, is_dead_letter,
    log_throttle::LogThrottle,
    partition_buffer::{BufferedRecord, PartitionBuffer, PartitionOffset, TopicPartition},
    unavailable,
};
use crate::{Message, StoreError};

/// Queued records at which the partitions are paused, and at which they are resumed.
const QUEUE_MAX: usize = 4_096;
const QUEUE_LOW: usize = 512;
const POLL_MILLIS: u64 = 20;
/// After this time without an answer, offsets are committed again.
const COMMIT_ANSWER_MILLIS_MAX: u64 = 1_000;
/// A member learns of a rebalance by its next heartbeat, and the partitions that move are not consumed until all members
/// have learnt of it.
const HEARTBEAT_MILLIS_MAX: u32 = 500;
const HEARTBEATS_PER_SESSION: u32 = 5;
const STATISTICS_MILLIS: &str = "1000";
/// The interval of checks whether the thread has left the group.
const CLOSE_CHECK_MILLIS: u64 = 5;
const CLOSE_MILLIS_MAX: u64 = 5_000;

/// The worker's side of the consumer. Dropping it ends the polling thread.
pub struct GroupConsumer {
    buffer: Arc<PartitionBuffer>,
}

struct Callbacks {
    buffer: Arc<PartitionBuffer>,
    group: &'static str,
    revoke_millis_max: u64,
    /// When offsets were sent that the brokers have not confirmed yet.
    commit_sent_at: Mutex<Option<Instant>>,
    log: LogThrottle,
}

impl ClientContext for Callbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.log.line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The poll returns this error too, but without the reason. librdkafka retries by itself in any case.
        if self.log.admit("error", reason, Instant::now()).is_some() {
            tracing::warn!(group = self.group, %error, reason, "a consumer cannot reach its brokers; librdkafka retries");
        }
    }

    fn stats(&self, statistics: Statistics) {
        let partitions = statistics
            .topics
            .values()
            .flat_map(|topic| topic.partitions.values());
        let lags = partitions
            .filter(|partition| partition.desired)
            .map(|partition| {
                // The lag of a group without a committed offset.
                let all = partition
                    .hi_offset
                    .saturating_sub(partition.lo_offset.max(0))
                    .max(0);
                if partition.consumer_lag >= 0 {
                    partition.consumer_lag
                } else {
                    all
                }
            });
        let lag = lags.sum();
        // The worker publishes the lag when it steps, and nothing else wakes an idle one.
        if self.buffer.lag.swap(lag, Ordering::Relaxed) != lag {
            self.buffer.changed.notify_one();
        }
    }
}

impl ConsumerContext for Callbacks {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                self.buffer.assign(topic_partitions(partitions));
                tracing::info!(
                    group = self.group,
                    count = partitions.count(),
                    "partitions assigned"
                );
            }
            Rebalance::Revoke(partitions) => {
                let partitions = topic_partitions(partitions);
                let timeout = Duration::from_millis(self.revoke_millis_max);
                let finished = self.buffer.drain(&partitions, timeout);
                commit_offsets(consumer, &self.buffer, CommitMode::Sync);
                self.buffer.revoke(&partitions);
                tracing::info!(
                    group = self.group,
                    count = partitions.len(),
                    finished,
                    "partitions revoked"
                );
            }
            Rebalance::Error(error) => {
                tracing::warn!(group = self.group, %error, "the group could not be rebalanced");
            }
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        *self.commit_sent_at.lock() = None;
        set_committed(&self.buffer, &result, offsets);
    }
}

fn topic_partitions(partitions: &TopicPartitionList) -> Vec<TopicPartition> {
    let elements = partitions.elements();
    elements
        .iter()
        .map(|it| (Arc::from(it.topic()), it.partition()))
        .collect()
}

/// Commits the processed offsets to the brokers, unless they have yet to confirm the previous ones.
fn commit_offsets(consumer: &BaseConsumer<Callbacks>, buffer: &PartitionBuffer, mode: CommitMode) {
    let sent_at = &consumer.context().commit_sent_at;
    let since = *sent_at.lock();
    let answer_max = Duration::from_millis(COMMIT_ANSWER_MILLIS_MAX);
    let is_waiting = since.is_some_and(|since| since.elapsed() < answer_max);
    let uncommitted = buffer.uncommitted();
    if uncommitted.is_empty() || (is_waiting && matches!(mode, CommitMode::Async)) {
        return;
    }
    let mut offsets = TopicPartitionList::new();
    for PartitionOffset {
        partition: (topic, partition),
        next,
        ..
    } in &uncommitted
    {
        let added = offsets.add_partition_offset(topic, *partition, Offset::Offset(*next));
        added.expect("the offset of a record is a valid offset");
    }
    let result = consumer.commit(&offsets, mode);
    match mode {
        CommitMode::Async if result.is_ok() => {
            *sent_at.lock() = Some(Instant::now());
        }
        CommitMode::Async | CommitMode::Sync => set_committed(buffer, &result, &offsets),
    }
}

/// During a rebalance the brokers reject commits: the offsets stay uncommitted and are sent again.
fn set_committed(buffer: &PartitionBuffer, result: &KafkaResult<()>, offsets: &TopicPartitionList) {
    if let Err(error) = result {
        tracing::debug!(%error, "offsets were not committed; they are sent again");
        return;
    }
    for partition in offsets.elements() {
        if let (Offset::Offset(next), Ok(())) = (partition.offset(), partition.error()) {
            buffer.set_committed(&(Arc::from(partition.topic()), partition.partition()), next);
        }
    }
}

impl GroupConsumer {
    pub(super) fn start(
        settings: &KafkaSettings,
        group: &'static str,
        topics: &'static [&'static str],
        buffer: Arc<PartitionBuffer>,
    ) -> Result<Self, StoreError> {
        let brokers = brokers(settings, group, topics)?;
        let context = Callbacks {
            buffer: Arc::clone(&buffer),
            group,
            revoke_millis_max: settings.revoke_millis_max,
            commit_sent_at: Mutex::default(),
            log: LogThrottle::default(),
        };
        let consumer: BaseConsumer<Callbacks> = settings
            .client(brokers)
            .set("group.id", format!("{}{group}", settings.prefix))
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set(
                "session.timeout.ms",
                settings.session_timeout_millis.to_string(),
            )
            .set(
                "heartbeat.interval.ms",
                (settings.session_timeout_millis / HEARTBEATS_PER_SESSION)
                    .min(HEARTBEAT_MILLIS_MAX)
                    .to_string(),
            )
            .set("queued.min.messages", QUEUE_MAX.to_string())
            .set("fetch.wait.max.ms", "100")
            .set("statistics.interval.ms", STATISTICS_MILLIS)
            .create_with_context(context)
            .map_err(unavailable)?;
        let names: Vec<String> = topics
            .iter()
            .map(|topic| settings.broker_topic(topic))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(unavailable)?;
        let settings = settings.clone();
        let reader = Self {
            buffer: Arc::clone(&buffer),
        };
        thread::Builder::new()
            .name(format!("kafka-{group}"))
            .spawn(move || {
                let ended = EndGuard(buffer);
                poll(&consumer, group, topics, &settings, &ended.0);
                // A dropped consumer leaves its group.
                drop(consumer);
            })
            .map_err(unavailable)?;
        Ok(reader)
    }

    pub(crate) fn take(&self, max: usize) -> Option<(Vec<Arc<Message>>, Vec<PartitionOffset>)> {
        self.buffer.take(max)
    }

    pub(crate) fn record_attempt(&self) {
        self.buffer.record_attempt();
    }

    pub(crate) fn acknowledge(&self, offsets: &[PartitionOffset]) {
        self.buffer.acknowledge(offsets);
    }

    pub(crate) async fn changed(&self) {
        self.buffer.changed.notified().await;
    }

    pub(crate) fn lag(&self) -> i64 {
        self.buffer.lag.load(Ordering::Relaxed)
    }

    /// Leaves the group, so that its partitions are reassigned at once.
    pub(crate) async fn close(&self) {
        self.buffer.stop();
        let ended = async {
            while !self.buffer.has_ended() {
                tokio::time::sleep(Duration::from_millis(CLOSE_CHECK_MILLIS)).await;
            }
        };
        if tokio::time::timeout(Duration::from_millis(CLOSE_MILLIS_MAX), ended)
            .await
            .is_err()
        {
            tracing::warn!(
                "a consumer did not leave its group in time; its partitions move when its session times out"
            );
        }
    }
}

impl Drop for GroupConsumer {
    fn drop(&mut self) {
        self.buffer.stop();
    }
}

struct EndGuard(Arc<PartitionBuffer>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        // A thread that panicked stops polling, and the watchdog reports it.
        if !thread::panicking() {
            self.0.set_ended();
        }
    }
}

/// The brokers that hold the topics of a group.
fn brokers<'a>(
    settings: &'a KafkaSettings,
    group: &str,
    topics: &[&str],
) -> Result<&'a str, StoreError> {
    let dead = topics.iter().filter(|topic| is_dead_letter(topic)).count();
    if dead != 0 && dead != topics.len() && settings.dead_letter_brokers.is_some() {
        return Err(unavailable(format_args!(
            "group {group} cannot read topics of dead letters together with others: dead_letter_brokers puts them on other brokers"
        )));
    }
    Ok(settings.brokers_of(topics.first().copied().unwrap_or_default()))
}

fn poll(
    consumer: &BaseConsumer<Callbacks>,
    group: &'static str,
    topics: &'static [&'static str],
    settings: &KafkaSettings,
    buffer: &PartitionBuffer,
) {
    let prefix = settings.prefix.len();
    let interval = Duration::from_millis(settings.commit_interval_millis.into());
    let zone = settings.foreign_zone();
    let (mut paused, mut committed_at) = (false, Instant::now());
    while buffer.record_poll() {
        let queued = match consumer.poll(Duration::from_millis(POLL_MILLIS)) {
            Some(Ok(record)) => {
                let topic = record.topic().get(prefix..).unwrap_or_default();
                let mut message = codec::decode(&record, topic);
                if let Some(named) = zone
                    .as_ref()
                    .and_then(|it| it.name_in(&message.payload, settings.payload_rules.time_fields))
                {
                    message.payload = named;
                }
                let message = message.is_for(group, topics).then(|| Arc::new(message));
                let partition = (Arc::from(record.topic()), record.partition());
                buffer.push(BufferedRecord {
                    partition,
                    offset: record.offset(),
                    message,
                })
            }
            Some(Err(error)) => {
                // The error callback has usually logged it before, with its reason.
                let log = &consumer.context().log;
                if log
                    .admit("error", &error.to_string(), Instant::now())
                    .is_some()
                {
                    tracing::warn!(group, %error, "a consumer cannot reach its brokers; librdkafka retries");
                }
                buffer.queue_len()
            }
            None => buffer.queue_len(),
        };
        if committed_at.elapsed() >= interval {
            commit_offsets(consumer, buffer, CommitMode::Async);
            committed_at = Instant::now();
        }
        let full = if paused {
            queued > QUEUE_LOW
        } else {
            queued >= QUEUE_MAX
        };
        if full != paused {
            paused = full;
        } else if !paused {
            continue;
        }
        // Repeated in each round while paused: newly assigned partitions are not paused yet.
        set_paused(consumer, group, paused);
    }
    commit_offsets(consumer, buffer, CommitMode::Sync);
}

fn set_paused(consumer: &BaseConsumer<Callbacks>, group: &'static str, paused: bool) {
    let result = consumer.assignment().and_then(|partitions| match paused {
        true => consumer.pause(&partitions),
        false => consumer.resume(&partitions),
    });
    if let Err(error) = result {
        tracing::warn!(group, %error, "partitions could not be paused or resumed");
    }
}

//! One consumer for one group in this process, on a thread of its own that polls and never waits for the store.
//!
//! What was handled is told to the brokers after the worker's commit, at an interval and before a partition goes, until
//! they confirm it. When partitions are taken away, the thread waits in the callback until the batch in hand is
//! finished; where that takes too long they go all the same, and the inbox makes what is handled twice harmless. Where
//! the worker falls behind, the partitions are paused, and polling goes on.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext, Message as _, Statistics, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
    topic_partition_list::Offset,
};

use super::{
    KafkaSettings,
    desk::{Arrived, Desk, Mark, Place},
    is_dead_letter,
    log::Log,
    unavailable, wire,
};
use crate::{Message, StoreError};

/// Messages that wait for the worker before the partitions are paused, and when they go on.
const WAITING_MAX: usize = 4_096;
const WAITING_LOW: usize = 512;
/// How long a poll waits for something.
const POLL_MILLIS: u64 = 20;
/// Brokers that did not answer for so long are told again.
const ANSWER_MILLIS_MAX: u64 = 1_000;
/// A member hears with its next heartbeat that partitions are shared out anew, and until all have heard of it those
/// that move stand still.
const HEARTBEAT_MILLIS_MAX: u32 = 500;
const HEARTBEATS_PER_SESSION: u32 = 5;
const STATISTICS_MILLIS: &str = "1000";
/// Between two looks whether the thread has left the group.
const CLOSE_LOOK_MILLIS: u64 = 5;
const CLOSE_MILLIS_MAX: u64 = 5_000;

/// The worker's end.
pub struct Reader {
    desk: Arc<Desk>,
}

pub(super) struct Group {
    desk: Arc<Desk>,
    name: &'static str,
    revoke_millis_max: u64,
    /// When the brokers were told something that they have not answered yet.
    telling: Mutex<Option<Instant>>,
    log: Log,
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.log.line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // It comes out of the poll too, but without its reason. librdkafka tries again by itself, whatever it is.
        if self.log.may_say("error", reason, Instant::now()).is_some() {
            tracing::warn!(group = self.name, %error, reason, "a consumer waits for its brokers");
        }
    }

    fn stats(&self, statistics: Statistics) {
        let partitions = statistics
            .topics
            .values()
            .flat_map(|topic| topic.partitions.values());
        let behind = partitions
            .filter(|partition| partition.desired)
            .map(|partition| {
                // Nothing was handled yet: everything is ahead.
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
        let behind = behind.sum();
        // The worker tells of its lag when it steps, and nothing else wakes one whose messages are all handled.
        if self.desk.lag.swap(behind, Ordering::Relaxed) != behind {
            self.desk.arrived.notify_one();
        }
    }
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                self.desk.assign(places(partitions));
                tracing::info!(
                    group = self.name,
                    count = partitions.count(),
                    "partitions came"
                );
            }
            Rebalance::Revoke(partitions) => {
                let places = places(partitions);
                let patience = Duration::from_millis(self.revoke_millis_max);
                let finished = self.desk.finish(&places, patience);
                tell(consumer, &self.desk, CommitMode::Sync);
                self.desk.revoke(&places);
                tracing::info!(
                    group = self.name,
                    count = places.len(),
                    finished,
                    "partitions went"
                );
            }
            Rebalance::Error(error) => {
                tracing::warn!(group = self.name, %error, "the group's partitions could not be shared out");
            }
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, offsets: &TopicPartitionList) {
        *self.telling.lock().expect("no holder of this lock panics") = None;
        told(&self.desk, &result, offsets);
    }
}

fn places(partitions: &TopicPartitionList) -> Vec<Place> {
    let elements = partitions.elements();
    elements
        .iter()
        .map(|it| (Arc::from(it.topic()), it.partition()))
        .collect()
}

/// Tells the brokers what was handled, unless they still have to answer to the last time.
fn tell(consumer: &BaseConsumer<Group>, desk: &Desk, mode: CommitMode) {
    let telling = &consumer.context().telling;
    let since = *telling.lock().expect("no holder of this lock panics");
    let answer_max = Duration::from_millis(ANSWER_MILLIS_MAX);
    let is_waiting = since.is_some_and(|since| since.elapsed() < answer_max);
    let untold = desk.untold();
    if untold.is_empty() || (is_waiting && matches!(mode, CommitMode::Async)) {
        return;
    }
    let mut offsets = TopicPartitionList::new();
    for Mark {
        place: (topic, partition),
        next,
        ..
    } in &untold
    {
        let added = offsets.add_partition_offset(topic, *partition, Offset::Offset(*next));
        added.expect("an offset of a message is an offset");
    }
    let result = consumer.commit(&offsets, mode);
    match mode {
        CommitMode::Async if result.is_ok() => {
            *telling.lock().expect("no holder of this lock panics") = Some(Instant::now());
        }
        CommitMode::Async | CommitMode::Sync => told(desk, &result, &offsets),
    }
}

/// While the group's partitions are shared out anew, the brokers take nothing: they are told again later.
fn told(desk: &Desk, result: &KafkaResult<()>, offsets: &TopicPartitionList) {
    if let Err(error) = result {
        tracing::debug!(%error, "what was handled is told again");
        return;
    }
    for partition in offsets.elements() {
        if let (Offset::Offset(next), Ok(())) = (partition.offset(), partition.error()) {
            desk.told(&(Arc::from(partition.topic()), partition.partition()), next);
        }
    }
}

impl Reader {
    pub(super) fn start(
        settings: &KafkaSettings,
        group: &'static str,
        topics: &'static [&'static str],
        desk: Arc<Desk>,
    ) -> Result<Self, StoreError> {
        let brokers = brokers(settings, group, topics)?;
        let context = Group {
            desk: Arc::clone(&desk),
            name: group,
            revoke_millis_max: settings.revoke_millis_max,
            telling: Mutex::default(),
            log: Log::default(),
        };
        let consumer: BaseConsumer<Group> = settings
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
            .set("queued.min.messages", WAITING_MAX.to_string())
            .set("fetch.wait.max.ms", "100")
            .set("statistics.interval.ms", STATISTICS_MILLIS)
            .create_with_context(context)
            .map_err(unavailable)?;
        let names: Vec<String> = topics
            .iter()
            .map(|topic| settings.wire_topic(topic))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(unavailable)?;
        let settings = settings.clone();
        let reader = Self {
            desk: Arc::clone(&desk),
        };
        thread::Builder::new()
            .name(format!("kafka-{group}"))
            .spawn(move || {
                let ended = EndsLoudly(desk);
                poll(&consumer, group, topics, &settings, &ended.0);
                // Leaves the group.
                drop(consumer);
            })
            .map_err(unavailable)?;
        Ok(reader)
    }

    pub(crate) fn take(&self, max: usize) -> Option<(Vec<Arc<Message>>, Vec<Mark>)> {
        self.desk.take(max)
    }

    pub(crate) fn trying(&self) {
        self.desk.trying();
    }

    pub(crate) fn acknowledge(&self, marks: &[Mark]) {
        self.desk.acknowledge(marks);
    }

    pub(crate) async fn arrived(&self) {
        self.desk.arrived.notified().await;
    }

    pub(crate) fn lag(&self) -> i64 {
        self.desk.lag.load(Ordering::Relaxed)
    }

    /// Leaves the group, so that its partitions go to others at once.
    pub(crate) async fn close(&self) {
        self.desk.stop();
        let ended = async {
            while !self.desk.has_ended() {
                tokio::time::sleep(Duration::from_millis(CLOSE_LOOK_MILLIS)).await;
            }
        };
        if tokio::time::timeout(Duration::from_millis(CLOSE_MILLIS_MAX), ended)
            .await
            .is_err()
        {
            tracing::warn!("a consumer could not leave its group in time");
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.desk.stop();
    }
}

struct EndsLoudly(Arc<Desk>);

impl Drop for EndsLoudly {
    fn drop(&mut self) {
        // A thread that broke is found by the watchdog: it polls no more.
        if !thread::panicking() {
            self.0.ended();
        }
    }
}

/// A group reads from the brokers that hold its topics.
fn brokers<'a>(
    settings: &'a KafkaSettings,
    group: &str,
    topics: &[&str],
) -> Result<&'a str, StoreError> {
    let dead = topics.iter().filter(|topic| is_dead_letter(topic)).count();
    if dead != 0 && dead != topics.len() && settings.dead_letter_brokers.is_some() {
        return Err(unavailable(format_args!(
            "group {group} reads dead letters and others, which lie at different brokers"
        )));
    }
    Ok(settings.brokers_of(topics.first().copied().unwrap_or_default()))
}

fn poll(
    consumer: &BaseConsumer<Group>,
    group: &'static str,
    topics: &'static [&'static str],
    settings: &KafkaSettings,
    desk: &Desk,
) {
    let prefix = settings.prefix.len();
    let interval = Duration::from_millis(settings.commit_interval_millis.into());
    let zone = settings.foreign_zone();
    let (mut paused, mut told_at) = (false, Instant::now());
    while desk.polled() {
        let waiting = match consumer.poll(Duration::from_millis(POLL_MILLIS)) {
            Some(Ok(record)) => {
                let topic = record.topic().get(prefix..).unwrap_or_default();
                let mut message = wire::message(&record, topic);
                if let Some(named) = zone
                    .as_ref()
                    .and_then(|it| it.name_in(&message.payload, settings.payload_rules.time_fields))
                {
                    message.payload = named;
                }
                let message = message.is_for(group, topics).then(|| Arc::new(message));
                let place = (Arc::from(record.topic()), record.partition());
                desk.put(Arrived {
                    place,
                    offset: record.offset(),
                    message,
                })
            }
            Some(Err(error)) => {
                // Mostly one that was told of a moment ago, with its reason; librdkafka tries again by itself.
                let log = &consumer.context().log;
                if log
                    .may_say("error", &error.to_string(), Instant::now())
                    .is_some()
                {
                    tracing::warn!(group, %error, "a consumer waits for its brokers");
                }
                desk.waiting()
            }
            None => desk.waiting(),
        };
        if told_at.elapsed() >= interval {
            tell(consumer, desk, CommitMode::Async);
            told_at = Instant::now();
        }
        let full = if paused {
            waiting > WAITING_LOW
        } else {
            waiting >= WAITING_MAX
        };
        if full != paused {
            paused = full;
        } else if !paused {
            continue;
        }
        // Again on each round while it lasts: partitions that came meanwhile are not paused yet.
        hold(consumer, group, paused);
    }
    tell(consumer, desk, CommitMode::Sync);
}

fn hold(consumer: &BaseConsumer<Group>, group: &'static str, paused: bool) {
    let held = consumer.assignment().and_then(|partitions| match paused {
        true => consumer.pause(&partitions),
        false => consumer.resume(&partitions),
    });
    if let Err(error) = held {
        tracing::warn!(group, %error, "partitions could not be paused or resumed");
    }
}

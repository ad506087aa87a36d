//! The bus over several processes: Apache Kafka, 3.7 and later, by librdkafka.
//!
//! Messages are committed to the outbox table of a PostgreSQL store ([`MessageTable::Outbox`]). The process that committed
//! them publishes them at once ([`publisher`]); if it dies before, a [`Relay`] does. Each group has one consumer in each
//! process ([`group_consumer`]). Kafka delivers at least once and in order of each key; the inbox drops the duplicates.
//!
//! State: the rows that this process is publishing, and the consumers of its groups.
//!
//! [`MessageTable::Outbox`]: crate::MessageTable::Outbox

mod client;
mod codec;
mod connectivity;
mod group_consumer;
mod identity;
mod in_flight;
mod initial_offset;
mod log_throttle;
mod partition_buffer;
mod producer;
mod publisher;
mod relay;
mod scan;
mod topics;
mod watchdog;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rdkafka::{
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    topic_partition_list::{Offset, TopicPartitionList},
};
use tokio::{sync::watch, task::JoinHandle};

pub use group_consumer::GroupConsumer;
pub use partition_buffer::PartitionOffset;
pub use relay::Relay;
pub use scan::scan;

pub use crate::bus::OpenError;
use crate::{
    BackoffPolicy, Group, KafkaSettings, Payload, Postgres, Random, ShutdownSwitch, Store,
    StoreError,
    dead_letters::{DeadLetter, DeadLetterResolved},
};
use partition_buffer::PartitionBuffer;
use publisher::Publisher;
use watchdog::Watchdog;

/// How long a request to the brokers may take.
const REQUEST_SECS_MAX: u64 = 20;
/// The waits before a failed request is repeated.
const RETRY_BACKOFF: BackoffPolicy = BackoffPolicy {
    millis_min: 50,
    millis_max: 500,
};
/// Unpublished rows are counted up to this number.
const UNPUBLISHED_MAX: i64 = 10_000;

pub struct Kafka {
    settings: KafkaSettings,
    outbox: Arc<Postgres>,
    watchdog: Watchdog,
    failure: watch::Sender<Option<String>>,
    switch: ShutdownSwitch,
    publisher: Mutex<Vec<JoinHandle<()>>>,
}

impl Kafka {
    /// Creates or checks the topics, commits initial offsets for all groups of the deployment (also for those that other
    /// processes run), and starts to publish what `store` commits, until this is closed or dropped.
    ///
    /// # Errors
    /// [`OpenError`] if the store is not PostgreSQL, the brokers are unreachable or reject the request, a topic has fewer
    /// partitions than configured, the inbox's retention is shorter than the topics', or a group without committed
    /// offsets reads a topic that has records and `initial_offset` is not set.
    pub async fn open(
        settings: KafkaSettings,
        store: &Store,
        topics: &[&'static str],
        groups: &[Group],
        inbox_retention_secs: i64,
    ) -> Result<Arc<Self>, OpenError> {
        let Store::Postgres(outbox) = store else {
            return Err(OpenError::kafka(
                "the bus publishes from PostgreSQL, and this store is SQLite: choose a PostgreSQL store, or the local bus",
            ));
        };
        settings.validate().map_err(OpenError::kafka)?;
        topics::ensure(&settings, topics, inbox_retention_secs).await?;
        initial_offset::ensure(&settings, groups).await?;
        let failure = watch::Sender::new(None);
        let stall_after = Duration::from_secs(settings.stall_secs_max);
        let watchdog = Watchdog::start(stall_after, failure.clone()).map_err(OpenError::kafka)?;
        let (switch, shutdown) = ShutdownSwitch::new();
        let tasks = Publisher::start(
            Arc::clone(outbox),
            settings.clone(),
            Random::System,
            shutdown,
        )?;
        Ok(Arc::new(Self {
            settings,
            outbox: Arc::clone(outbox),
            watchdog,
            failure,
            switch,
            publisher: Mutex::new(tasks.into()),
        }))
    }

    #[must_use]
    pub fn settings(&self) -> &KafkaSettings {
        &self.settings
    }

    pub(crate) fn outbox(&self) -> &Postgres {
        &self.outbox
    }

    pub(crate) fn subscribe(
        &self,
        group: &'static str,
        topics: &'static [&'static str],
    ) -> Result<GroupConsumer, StoreError> {
        let buffer = Arc::new(PartitionBuffer::new());
        let consumer = GroupConsumer::start(&self.settings, group, topics, Arc::clone(&buffer))?;
        self.watchdog.watch(group, &buffer);
        Ok(consumer)
    }

    /// Resolves with the reason if a group stalls: the process must stop.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Publishes what is committed so far, then stops.
    pub async fn close(&self) {
        self.switch.stop();
        let tasks = std::mem::take(&mut *self.publisher.lock());
        for task in tasks {
            // The relay publishes what a task that panicked leaves.
            let _ = task.await;
        }
    }

    /// Committed messages of this store that the brokers have not acknowledged, counted up to 10,000: during an outage of
    /// Kafka, counting them all would load the database.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not answer.
    pub async fn unpublished(&self) -> Result<i64, StoreError> {
        self.outbox.pending_count(UNPUBLISHED_MAX).await
    }

    /// The [`lag`] of `group` on these topics, plus 1 if a message is unpublished: 0 if nothing is in flight. It queries
    /// the brokers; for operators and tests.
    ///
    /// # Errors
    /// [`StoreError`] if brokers or store do not answer.
    pub async fn backlog(&self, group: &str, topics: &[&'static str]) -> Result<i64, StoreError> {
        let pending = self.outbox.pending(1).await?.len() as i64;
        Ok(pending + lag(&self.settings, group, topics).await?)
    }
}

/// Records of these topics beyond the committed offsets of `group`. It needs no open bus; for operators and tests.
///
/// # Errors
/// [`StoreError::Unavailable`] if the brokers do not answer.
pub async fn lag(
    settings: &KafkaSettings,
    group: &str,
    topics: &[&'static str],
) -> Result<i64, StoreError> {
    let settings = settings.clone();
    let (group, topics) = (group.to_owned(), topics.to_vec());
    let query = move || lag_of(&settings, &group, &topics);
    let queried = tokio::task::spawn_blocking(query).await;
    queried.map_err(unavailable)?
}

fn lag_of(settings: &KafkaSettings, group: &str, topics: &[&str]) -> Result<i64, StoreError> {
    let by_brokers = settings.by_brokers(topics);
    let lags = by_brokers.iter().map(|(brokers, names)| {
        // One client for all topics: connecting takes longer than the queries.
        let consumer: BaseConsumer = settings
            .client(brokers)
            .set("group.id", format!("{}{group}", settings.prefix))
            .create()
            .map_err(unavailable)?;
        lag_at(&consumer, names)
    });
    lags.sum()
}

fn lag_at(consumer: &BaseConsumer, names: &[String]) -> Result<i64, StoreError> {
    let timeout = Duration::from_secs(REQUEST_SECS_MAX);
    let mut partitions = TopicPartitionList::new();
    for name in names {
        let metadata = consumer.fetch_metadata(Some(name), timeout);
        let metadata = metadata.map_err(unavailable)?;
        let topics = metadata.topics().iter();
        for partition in topics.flat_map(|topic| topic.partitions()) {
            partitions.add_partition(name, partition.id());
        }
    }
    let committed = committed(consumer, &partitions)?;
    let mut lag = 0;
    for partition in committed.elements() {
        let fetch = || consumer.fetch_watermarks(partition.topic(), partition.partition(), timeout);
        let (low, high) = retry(fetch, is_transient).map_err(unavailable)?;
        lag += match partition.offset() {
            Offset::Offset(next) => high - next,
            _ => high - low,
        };
    }
    Ok(lag)
}

/// The committed offsets of the consumer's group.
fn committed(
    consumer: &BaseConsumer,
    partitions: &TopicPartitionList,
) -> Result<TopicPartitionList, StoreError> {
    let timeout = Duration::from_secs(REQUEST_SECS_MAX);
    let fetch = || consumer.committed_offsets(partitions.clone(), timeout);
    retry(fetch, is_transient).map_err(unavailable)
}

/// Repeats a request for up to 20 s while it fails by an error that passes.
fn retry<T, E>(request: impl Fn() -> Result<T, E>, passes: impl Fn(&E) -> bool) -> Result<T, E> {
    let until = Instant::now() + Duration::from_secs(REQUEST_SECS_MAX);
    let mut failures = 0;
    loop {
        match request() {
            Err(error) if passes(&error) && Instant::now() < until => {
                let wait = RETRY_BACKOFF.wait_millis(failures);
                std::thread::sleep(Duration::from_millis(wait));
                failures += 1;
            }
            result => return result,
        }
    }
}

/// A group has no coordinator or a partition no leader: it was just created, or moves to another broker.
fn is_transient(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::NotLeaderForPartition
                | RDKafkaErrorCode::LeaderNotAvailable
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
        )
    )
}

/// The topics that `dead_letter_brokers` moves to other brokers.
fn is_dead_letter(topic: &str) -> bool {
    [DeadLetter::TOPIC, DeadLetterResolved::TOPIC].contains(&topic)
}

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("Kafka: {error}"))
}

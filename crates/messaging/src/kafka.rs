//! The bus of several processes: Apache Kafka, 3.7 and later, by librdkafka.
//!
//! Messages are committed into the message table of a PostgreSQL store ([`MessageTable::Outbox`]) and published from
//! there: by the process that committed them, at once ([`publisher`]), and by a [`Relay`] where that one died. Groups
//! read by a consumer each ([`reader`]). What the brokers promise is at least once, in order of each key; what the inbox
//! makes of it is once.
//!
//! State: the rows that this process is publishing, and the consumers of its groups.
//!
//! [`MessageTable::Outbox`]: crate::MessageTable::Outbox

mod beginnings;
mod desk;
mod identity;
mod in_flight;
mod kept;
mod log;
mod producer;
mod publisher;
mod reach;
mod reader;
mod relay;
mod settings;
mod topics;
mod watchdog;
mod wire;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use rdkafka::{
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    topic_partition_list::{Offset, TopicPartitionList},
};
use tokio::{sync::watch, task::JoinHandle};

pub use beginnings::{Group, InitialOffset};
pub use desk::Mark;
pub use identity::MessageIdentity;
pub use kept::kept;
pub use reader::Reader;
pub use relay::Relay;
pub use settings::{InvalidSetting, KafkaSecurity, KafkaSettings};

use crate::{
    Payload, Postgres, Random, ShutdownSwitch, Store, StoreError,
    dead_letters::{DeadLetter, DeadLetterResolved},
};
use desk::Desk;
use publisher::Publisher;
use watchdog::Watchdog;

/// Why the bus cannot be opened: a setting, the brokers, or the store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("Kafka: {0}")]
    Kafka(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    fn of(reason: impl std::fmt::Display) -> Self {
        Self::Kafka(reason.to_string())
    }
}

/// How long a question to the brokers may take.
const ANSWER_SECS_MAX: u64 = 20;
/// Between two questions while a group has no coordinator.
const COORDINATOR_PAUSE_MILLIS: u64 = 50;
/// Rows that are counted at most.
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
    /// Makes or checks the topics, says where the deployment's groups begin (all of them, also those that other processes
    /// run), and begins to publish what `store` commits, until this is closed or dropped.
    ///
    /// # Errors
    /// [`OpenError`] where the store is not PostgreSQL, the brokers cannot be reached or refuse, a topic has fewer
    /// partitions than configured, the inbox forgets before the topics do, or a group is new on topics with a history and
    /// the settings do not say where it begins.
    pub async fn open(
        settings: KafkaSettings,
        store: &Store,
        topics: &[&'static str],
        groups: &[Group],
        inbox_retention_secs: i64,
    ) -> Result<Arc<Self>, OpenError> {
        let Store::Postgres(outbox) = store else {
            return Err(OpenError::of("it needs a PostgreSQL store to publish from"));
        };
        settings.validate().map_err(OpenError::of)?;
        topics::ensure(&settings, topics, inbox_retention_secs).await?;
        beginnings::ensure(&settings, groups).await?;
        let failure = watch::Sender::new(None);
        let stall_after = Duration::from_secs(settings.stall_secs_max);
        let watchdog = Watchdog::start(stall_after, failure.clone()).map_err(OpenError::of)?;
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

    pub(crate) fn read(
        &self,
        group: &'static str,
        topics: &'static [&'static str],
    ) -> Result<Reader, StoreError> {
        let desk = Arc::new(Desk::new());
        let reader = Reader::start(&self.settings, group, topics, Arc::clone(&desk))?;
        self.watchdog.watch(group, &desk);
        Ok(reader)
    }

    /// Resolves when a group stands still: the process must stop.
    pub async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }

    /// Publishes what was committed so far, and nothing more.
    pub async fn close(&self) {
        self.switch.stop();
        let tasks = std::mem::take(
            &mut *self
                .publisher
                .lock()
                .expect("no holder of this lock panics"),
        );
        for task in tasks {
            // One that broke has nothing left to publish.
            let _ = task.await;
        }
    }

    /// Messages of this store's processes that the brokers do not have yet, counted up to a limit: where Kafka is away
    /// for long there are many, and counting them all would be one more load then.
    ///
    /// # Errors
    /// [`StoreError`] where the store does not answer.
    pub async fn unpublished(&self) -> Result<i64, StoreError> {
        self.outbox.pending_count(UNPUBLISHED_MAX).await
    }

    /// Records of these topics that `group` has not told the brokers of, and rows that are not published: none, where
    /// nothing is under way. Asks the brokers; for operators and tests.
    ///
    /// # Errors
    /// [`StoreError`] where brokers or store do not answer.
    pub async fn behind(&self, group: &str, topics: &[&'static str]) -> Result<i64, StoreError> {
        let pending = self.outbox.pending(1).await?.len() as i64;
        Ok(pending + lag(&self.settings, group, topics).await?)
    }
}

/// Records of these topics that `group` has not told the brokers of. Nothing need be open; for operators and tests.
///
/// # Errors
/// [`StoreError::Unavailable`] where the brokers do not answer.
pub async fn lag(
    settings: &KafkaSettings,
    group: &str,
    topics: &[&'static str],
) -> Result<i64, StoreError> {
    let settings = settings.clone();
    let (group, topics) = (group.to_owned(), topics.to_vec());
    let ask = move || lag_of(&settings, &group, &topics);
    let asked = tokio::task::spawn_blocking(ask).await;
    asked.map_err(unavailable)?
}

/// How far a group is behind on these topics.
fn lag_of(settings: &KafkaSettings, group: &str, topics: &[&str]) -> Result<i64, StoreError> {
    let by_brokers = settings.by_brokers(topics);
    let lags = by_brokers.iter().map(|(brokers, names)| {
        // One client for all of them: to connect takes longer than to ask.
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
    let timeout = Duration::from_secs(ANSWER_SECS_MAX);
    let mut asked = TopicPartitionList::new();
    for name in names {
        let metadata = consumer.fetch_metadata(Some(name), timeout);
        let metadata = metadata.map_err(unavailable)?;
        let topics = metadata.topics().iter();
        for partition in topics.flat_map(|topic| topic.partitions()) {
            asked.add_partition(name, partition.id());
        }
    }
    let committed = committed(consumer, &asked)?;
    let mut behind = 0;
    for partition in committed.elements() {
        let ask = || consumer.fetch_watermarks(partition.topic(), partition.partition(), timeout);
        let (low, high) = patiently(ask).map_err(unavailable)?;
        behind += match partition.offset() {
            Offset::Offset(next) => high - next,
            _ => high - low,
        };
    }
    Ok(behind)
}

/// How far a group is. While its coordinator moves, or is chosen for the first time, the brokers ask for patience.
fn committed(
    consumer: &BaseConsumer,
    asked: &TopicPartitionList,
) -> Result<TopicPartitionList, StoreError> {
    let timeout = Duration::from_secs(ANSWER_SECS_MAX);
    patiently(|| consumer.committed_offsets(asked.clone(), timeout)).map_err(unavailable)
}

/// Asks the brokers until they answer, for up to 20 s, while a group has no coordinator or a partition no leader: it was
/// made a moment ago, or moves to another broker.
fn patiently<T>(ask: impl Fn() -> Result<T, KafkaError>) -> Result<T, KafkaError> {
    let until = Instant::now() + Duration::from_secs(ANSWER_SECS_MAX);
    loop {
        match ask() {
            Err(error) if is_passing(&error) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(COORDINATOR_PAUSE_MILLIS));
            }
            answer => return answer,
        }
    }
}

fn is_passing(error: &KafkaError) -> bool {
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

/// Dead letters may lie at brokers of their own.
fn is_dead_letter(topic: &str) -> bool {
    [DeadLetter::TOPIC, DeadLetterResolved::TOPIC].contains(&topic)
}

fn unavailable(error: impl std::fmt::Display) -> StoreError {
    StoreError::Unavailable(format!("Kafka: {error}"))
}

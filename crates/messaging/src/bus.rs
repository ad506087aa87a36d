//! The bus: consumer groups read messages in the order of their commits. A closed choice of backends, matched here only.
//!
//! **Local:** the message table of the store is the log. A group's position is stored in the same transaction as
//! its work, so nothing is handled twice, and there is no separate acknowledgement.
//!
//! **Kafka** (feature `kafka`): the brokers' topics are the log. Offsets are committed to them after the store's commit.
//!
//! State: each subscription's position.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{
    Message, Store, StoreError,
    backend::{BusEngine, SubscriptionEngine},
    store::Position,
};

/// A handle to the bus.
#[derive(Clone)]
pub enum Bus {
    /// The log of the store: of the embedded one, or of PostgreSQL with [`crate::MessageTable::Log`].
    Local(Store),
    #[cfg(feature = "kafka")]
    Kafka(Arc<crate::Kafka>),
    /// An engine that this crate does not have.
    Other(Arc<dyn BusEngine>),
}

/// A consumer group, and the topics that it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    pub name: &'static str,
    pub topics: &'static [&'static str],
}

impl Group {
    #[must_use]
    pub const fn new(name: &'static str, topics: &'static [&'static str]) -> Self {
        Self { name, topics }
    }
}

/// Messages in order, and the position behind the last of them.
#[derive(Debug, Clone)]
pub struct Batch {
    pub messages: Vec<Arc<Message>>,
    pub place: Place,
}

/// What acknowledging a batch needs.
#[derive(Debug, Clone)]
pub enum Place {
    /// Stored with the batch's commits.
    Log(Position),
    /// Committed to the brokers after the batch's commits.
    #[cfg(feature = "kafka")]
    Partitions(Vec<crate::kafka::PartitionOffset>),
    /// The number by which another engine knows the batch.
    Other(u64),
}

impl Batch {
    /// The position to store with the commits.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        match &self.place {
            Place::Log(position) => Some(position.clone()),
            #[cfg(feature = "kafka")]
            Place::Partitions(_) => None,
            Place::Other(_) => None,
        }
    }
}

/// Why a bus cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    #[error("Kafka: {0}")]
    Kafka(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OpenError {
    pub(crate) fn kafka(reason: impl std::fmt::Display) -> Self {
        Self::Kafka(reason.to_string())
    }
}

/// One consumer group's subscription.
pub enum Subscription {
    Local(LogReader),
    #[cfg(feature = "kafka")]
    Kafka(crate::kafka::GroupConsumer),
    Other(Box<dyn SubscriptionEngine>),
}

/// A group's position in the log of a store.
pub struct LogReader {
    store: Store,
    group: &'static str,
    topics: &'static [&'static str],
    /// Everything up to here was read; ahead of the stored position if the last messages were for other groups.
    looked_at: i64,
    head: watch::Receiver<i64>,
}

impl Bus {
    /// Reading begins behind what the group has handled.
    ///
    /// # Errors
    /// [`StoreError`] if the group's position cannot be read.
    pub fn subscribe(
        &self,
        group: &'static str,
        topics: &'static [&'static str],
    ) -> Result<Subscription, StoreError> {
        match self {
            Self::Local(store) => Ok(Subscription::Local(LogReader {
                store: store.clone(),
                group,
                topics,
                looked_at: store.position(group)?,
                head: store.head(),
            })),
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.subscribe(group, topics).map(Subscription::Kafka),
            Self::Other(engine) => engine.subscribe(group, topics).map(Subscription::Other),
        }
    }

    /// Whether `group` has handled everything committed so far, in all processes.
    ///
    /// # Errors
    /// [`StoreError`] if store or brokers do not answer.
    pub async fn is_drained(
        &self,
        group: &str,
        topics: &[&'static str],
    ) -> Result<bool, StoreError> {
        match self {
            Self::Local(store) => {
                let wanted = |message: &Message| message.is_for(group, topics);
                let head = *store.head().borrow();
                let mut offset = store.position(group)?;
                while offset < head {
                    let (found, looked_at) = store.read_log(offset, 1, &wanted).await?;
                    if !found.is_empty() {
                        return Ok(false);
                    }
                    offset = looked_at;
                }
                Ok(true)
            }
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => Ok(kafka.backlog(group, topics).await? == 0),
            Self::Other(engine) => Ok(engine.backlog(group, topics).await? == 0),
        }
    }

    /// Messages that are committed and not on the bus yet, counted up to 10,000; none if the store is the bus.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not answer.
    pub async fn unpublished(&self) -> Result<i64, StoreError> {
        match self {
            Self::Local(_) => Ok(0),
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.unpublished().await,
            Self::Other(engine) => engine.unpublished().await,
        }
    }

    /// Publishes what was committed so far, and nothing more.
    pub async fn close(&self) {
        match self {
            Self::Local(_) | Self::Other(_) => {}
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.close().await,
        }
    }

    /// Resolves when the bus has failed for good and the process must stop.
    pub async fn failed(&self) -> String {
        match self {
            // The store reports its own failure.
            Self::Local(_) | Self::Other(_) => std::future::pending().await,
            #[cfg(feature = "kafka")]
            Self::Kafka(kafka) => kafka.failed().await,
        }
    }
}

impl Subscription {
    /// Up to `max` messages that are there now; `None` if there are none.
    ///
    /// # Errors
    /// [`StoreError`] if the log cannot be read.
    pub async fn try_next(&mut self, max: usize) -> Result<Option<Batch>, StoreError> {
        match self {
            Self::Local(log) => log.try_next(max).await,
            #[cfg(feature = "kafka")]
            Self::Kafka(reader) => Ok(reader.take(max).map(|(messages, marks)| Batch {
                messages,
                place: Place::Partitions(marks),
            })),
            Self::Other(reader) => Ok(reader.take(max).map(|(messages, batch)| Batch {
                messages,
                place: Place::Other(batch),
            })),
        }
    }

    /// Reports an attempt at the current batch; a batch without attempts for long has stalled.
    pub fn trying(&self) {
        match self {
            Self::Local(_) | Self::Other(_) => {}
            #[cfg(feature = "kafka")]
            Self::Kafka(reader) => reader.record_attempt(),
        }
    }

    /// The batch's commits are durable.
    pub fn acknowledge(&self, batch: &Batch) {
        match (self, &batch.place) {
            // Stored with the commits.
            (_, Place::Log(_)) => {}
            #[cfg(feature = "kafka")]
            (Self::Kafka(reader), Place::Partitions(marks)) => reader.acknowledge(marks),
            (Self::Other(reader), Place::Other(batch)) => reader.acknowledge(*batch),
            // A batch is acknowledged where it was taken.
            _ => {}
        }
    }

    /// Waits until there may be new messages since the last read.
    pub async fn changed(&mut self) {
        match self {
            Self::Local(log) => {
                // The store lives in the log's reader, so the sender does too.
                let _ = log.head.changed().await;
            }
            #[cfg(feature = "kafka")]
            Self::Kafka(reader) => reader.changed().await,
            Self::Other(reader) => reader.changed().await,
        }
    }

    /// How far this group has read, if the store keeps its position: the stored position may be moved here if no message in
    /// between was for the group.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        match self {
            Self::Local(log) => Some(log.position()),
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => None,
            Self::Other(_) => None,
        }
    }

    /// Messages on the bus that this group has not looked at; of a shared group, this process's part.
    #[must_use]
    pub fn lag(&self) -> i64 {
        match self {
            Self::Local(log) => (*log.head.borrow() - log.looked_at).max(0),
            #[cfg(feature = "kafka")]
            Self::Kafka(reader) => reader.lag(),
            Self::Other(reader) => reader.lag(),
        }
    }

    /// Leaves the group, so that others take over at once.
    pub async fn close(&self) {
        match self {
            Self::Local(_) => {}
            #[cfg(feature = "kafka")]
            Self::Kafka(reader) => reader.close().await,
            Self::Other(reader) => reader.close().await,
        }
    }
}

impl LogReader {
    async fn try_next(&mut self, max: usize) -> Result<Option<Batch>, StoreError> {
        loop {
            let head = *self.head.borrow_and_update();
            if self.looked_at >= head {
                return Ok(None);
            }
            let wanted = |message: &Message| message.is_for(self.group, self.topics);
            let read = self.store.read_log(self.looked_at, max, &wanted);
            let (found, looked_at) = read.await?;
            if looked_at == self.looked_at {
                return Ok(None);
            }
            self.looked_at = looked_at;
            if !found.is_empty() {
                let messages = found.into_iter().map(|stored| stored.message).collect();
                let place = Place::Log(self.position());
                return Ok(Some(Batch { messages, place }));
            }
        }
    }

    fn position(&self) -> Position {
        Position {
            group: self.group.to_owned(),
            offset: self.looked_at,
        }
    }
}

//! An idempotent producer: acknowledged by all replicas, in order, many sends in flight. Each delivery is reported with the
//! offset of its outbox row. State: the queue of librdkafka.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::sync::mpsc;

use super::{KafkaSettings, codec, is_dead_letter, log_throttle::LogThrottle, unavailable};
use crate::{StoreError, log_cache::StoredMessage};

/// The pause before a retry if the queue of librdkafka is full.
const QUEUE_PAUSE_MILLIS: u64 = 5;

/// How long sending to a topic is paused after the brokers rejected it.
pub(super) const TOPIC_PAUSE_SECS: u64 = 30;

/// Below the `max.message.bytes` of any sensible topic: a larger batch is rejected as a whole.
const BATCH_BYTES_MAX: usize = 262_144;
/// A longer payload is sent with nothing else in flight. A broker that has no batch of a producer yet accepts any
/// sequence number first, so a batch sent after a rejected one might be accepted.
pub(super) const PIPELINED_PAYLOAD_BYTES_MAX: usize = 65_536;

#[derive(Debug, Clone, Copy)]
pub(super) struct SendLimits {
    /// Requests in flight.
    pub(super) requests_max: u32,
    /// A topic that the brokers do not know for this time is taken for deleted: not every broker knows a topic at once that
    /// was just created.
    pub(super) topic_millis_max: u64,
}

/// The result of sending a row.
pub(super) struct Delivery {
    /// The generation of the producer that sent it.
    pub(super) generation: u64,
    pub(super) offset: i64,
    pub(super) outcome: Result<(), SendError>,
}

/// Why the brokers did not accept a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SendError {
    /// Its message, or another one of its batch, is rejected whenever it is sent.
    Message(String),
    /// Every message of its topic is rejected until an operator acts.
    Topic(String),
    /// The brokers are unreachable, or the send was aborted with others: a retry may succeed.
    Transient(String),
}

impl SendError {
    fn of(error: &KafkaError) -> Self {
        use RDKafkaErrorCode as Code;
        let text = error.to_string();
        match error.rdkafka_error_code() {
            Some(
                Code::MessageSizeTooLarge
                | Code::MessageBatchTooLarge
                | Code::InvalidMessageSize
                | Code::InvalidTimestamp
                | Code::InvalidRecord
                | Code::PolicyViolation,
            ) => Self::Message(text),
            Some(
                Code::TopicAuthorizationFailed
                | Code::InvalidTopic
                | Code::UnknownTopic
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition,
            ) => Self::Topic(text),
            _ => Self::Transient(text),
        }
    }
}

/// Passes delivery reports on.
pub(super) struct DeliveryReporter {
    generation: u64,
    deliveries: mpsc::UnboundedSender<Delivery>,
    log: LogThrottle,
}

impl ClientContext for DeliveryReporter {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.log.line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // librdkafka retries by itself in any case.
        if self.log.admit("error", reason, Instant::now()).is_some() {
            tracing::warn!(%error, reason, "a producer cannot reach its brokers; librdkafka retries");
        }
    }
}

impl ProducerContext for DeliveryReporter {
    type DeliveryOpaque = Box<i64>;

    fn delivery(&self, result: &DeliveryResult<'_>, offset: Box<i64>) {
        let outcome = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(SendError::of(error)),
        };
        // If the receiver is gone, the relay publishes the row.
        let _ = self.deliveries.send(Delivery {
            generation: self.generation,
            offset: *offset,
            outcome,
        });
    }
}

/// Sends each message to the brokers that hold its topic.
pub(super) struct Producer {
    settings: KafkaSettings,
    main: ThreadedProducer<DeliveryReporter>,
    dead_letters: Option<ThreadedProducer<DeliveryReporter>>,
}

impl Producer {
    /// Deliveries are reported on this channel, with this generation.
    pub(super) fn open(
        settings: &KafkaSettings,
        generation: u64,
        deliveries: &mpsc::UnboundedSender<Delivery>,
        limits: SendLimits,
    ) -> Result<Self, StoreError> {
        let open = |brokers: &str| {
            settings
                .client(brokers)
                .set("acks", "all")
                .set("enable.idempotence", "true")
                // After a failed delivery the producer sends nothing more: no later message of the partition overtakes it.
                .set("enable.gapless.guarantee", "true")
                // Messages do not expire while brokers are unreachable.
                .set("message.timeout.ms", "0")
                .set("linger.ms", "1")
                .set("batch.size", BATCH_BYTES_MAX.to_string())
                .set("max.in.flight", limits.requests_max.to_string())
                .set(
                    "topic.metadata.propagation.max.ms",
                    limits.topic_millis_max.to_string(),
                )
                .set("compression.type", "lz4")
                // The default partitioner of Java clients.
                .set("partitioner", "murmur2_random")
                .create_with_context(DeliveryReporter {
                    generation,
                    deliveries: deliveries.clone(),
                    log: LogThrottle::default(),
                })
                .map_err(unavailable)
        };
        Ok(Self {
            settings: settings.clone(),
            main: open(&settings.brokers)?,
            dead_letters: settings
                .dead_letter_brokers
                .as_deref()
                .map(open)
                .transpose()?,
        })
    }

    /// Queues a message after those sent before. The record's timestamp is the time of this call, or of its arrival if the
    /// topic says so: retention counts from it, and must not start before an outage ends. `ce_time` has the message's time.
    pub(super) async fn send(&self, stored: &StoredMessage) -> Result<(), SendError> {
        let message = &stored.message;
        let topic = self.settings.broker_topic(&message.topic);
        let producer = match &self.dead_letters {
            Some(dead_letters) if is_dead_letter(&message.topic) => dead_letters,
            _ => &self.main,
        };
        let (identity, rules) = (self.settings.message_identity, &self.settings.payload_rules);
        let (key, value) = (identity.key(rules, message), identity.value(rules, message));
        let mut record = BaseRecord::with_opaque_to(&topic, Box::new(stored.offset))
            .key(key.as_ref())
            .payload(value.as_ref())
            .headers(codec::headers(message, &self.settings.source));
        loop {
            match producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    tokio::time::sleep(Duration::from_millis(QUEUE_PAUSE_MILLIS)).await;
                }
                Err((error, _)) => return Err(SendError::of(&error)),
            }
        }
    }

    /// Waits for all deliveries, for up to this time.
    pub(super) fn flush(&self, millis_max: u64) {
        let wait = Duration::from_millis(millis_max);
        for producer in std::iter::once(&self.main).chain(&self.dead_letters) {
            if let Err(error) = producer.flush(wait) {
                tracing::warn!(%error, "the producer stops with undelivered messages; the relay publishes them");
            }
        }
    }
}

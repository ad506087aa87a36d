//! One connection that produces: idempotent, acknowledged by all replicas, in order, many sends in flight. What became
//! of each send is told by its row's offset. State: what librdkafka has queued.

use std::time::{Duration, Instant};

use rdkafka::{
    ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::sync::mpsc;

use super::{KafkaSettings, is_dead_letter, log::Log, unavailable, wire};
use crate::{StoreError, tail::Stored};

/// librdkafka's own queue is full for as long as this at most; then it is tried again.
const QUEUE_PAUSE_MILLIS: u64 = 5;

/// For how long nothing of a topic is sent that the brokers refused.
pub(super) const TOPIC_PAUSE_SECS: u64 = 30;

/// Less than any topic should take: a batch is refused as a whole.
const BATCH_BYTES_MAX: usize = 262_144;
/// A longer payload is sent while nothing else is under way. A broker that has nothing of a producer takes
/// whatever batch of it comes first, so what is sent behind a batch that it refuses might arrive.
pub(super) const HASTY_PAYLOAD_BYTES_MAX: usize = 65_536;

/// How much a producer does at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Haste {
    /// Requests that may be under way.
    pub(super) requests_max: u32,
    /// A topic that the brokers do not know for so long is taken to be gone: those that are made at the start are not known
    /// everywhere at once.
    pub(super) topic_millis_max: u64,
}

/// What became of a row.
pub(super) struct Delivery {
    /// Of the producer that sent it.
    pub(super) generation: u64,
    pub(super) offset: i64,
    pub(super) outcome: Result<(), Refusal>,
}

/// Why a row was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Its message, or one that was sent together with it, is such that it is refused whenever it is sent.
    Message(String),
    /// Everything of its topic is refused, until a person changes that.
    Topic(String),
    /// The brokers are away, or it was given up with others: it may be sent again.
    Passing(String),
}

impl Refusal {
    fn of(error: &KafkaError) -> Self {
        use RDKafkaErrorCode as Code;
        let told = error.to_string();
        match error.rdkafka_error_code() {
            Some(
                Code::MessageSizeTooLarge
                | Code::MessageBatchTooLarge
                | Code::InvalidMessageSize
                | Code::InvalidTimestamp
                | Code::InvalidRecord
                | Code::PolicyViolation,
            ) => Self::Message(told),
            Some(
                Code::TopicAuthorizationFailed
                | Code::InvalidTopic
                | Code::UnknownTopic
                | Code::UnknownTopicOrPartition
                | Code::UnknownPartition,
            ) => Self::Topic(told),
            _ => Self::Passing(told),
        }
    }
}

/// Tells of deliveries.
pub(super) struct Told {
    generation: u64,
    deliveries: mpsc::UnboundedSender<Delivery>,
    log: Log,
}

impl ClientContext for Told {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.log.line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // librdkafka tries again by itself, whatever it is.
        if self.log.may_say("error", reason, Instant::now()).is_some() {
            tracing::warn!(%error, reason, "publishing waits for the brokers");
        }
    }
}

impl ProducerContext for Told {
    type DeliveryOpaque = Box<i64>;

    fn delivery(&self, result: &DeliveryResult<'_>, offset: Box<i64>) {
        let outcome = match result {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(Refusal::of(error)),
        };
        // Whoever went away without listening leaves its rows to the relay.
        let _ = self.deliveries.send(Delivery {
            generation: self.generation,
            offset: *offset,
            outcome,
        });
    }
}

/// Sends to the brokers that hold a message's topic.
pub(super) struct Producer {
    settings: KafkaSettings,
    main: ThreadedProducer<Told>,
    dead_letters: Option<ThreadedProducer<Told>>,
}

impl Producer {
    /// Deliveries are told on this channel, under this number.
    pub(super) fn open(
        settings: &KafkaSettings,
        generation: u64,
        deliveries: &mpsc::UnboundedSender<Delivery>,
        haste: Haste,
    ) -> Result<Self, StoreError> {
        let open = |brokers: &str| {
            settings
                .client(brokers)
                .set("acks", "all")
                .set("enable.idempotence", "true")
                // A message that cannot be delivered is followed by none of its partition: the producer has failed then.
                .set("enable.gapless.guarantee", "true")
                // Brokers may be away for as long as they like; nothing is given up.
                .set("message.timeout.ms", "0")
                .set("linger.ms", "1")
                .set("batch.size", BATCH_BYTES_MAX.to_string())
                .set("max.in.flight", haste.requests_max.to_string())
                .set(
                    "topic.metadata.propagation.max.ms",
                    haste.topic_millis_max.to_string(),
                )
                .set("compression.type", "lz4")
                // The partition that Java's clients give a key.
                .set("partitioner", "murmur2_random")
                .create_with_context(Told {
                    generation,
                    deliveries: deliveries.clone(),
                    log: Log::default(),
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

    /// Queues a message behind those sent before. The record is stamped with the moment of this call (or of its arrival,
    /// as its topic says): brokers delete by that stamp, and a message that was committed during an outage is not old. The
    /// message's own time is in `ce_time`.
    pub(super) async fn send(&self, stored: &Stored) -> Result<(), Refusal> {
        let message = &stored.message;
        let topic = self.settings.wire_topic(&message.topic);
        let to = match &self.dead_letters {
            Some(dead_letters) if is_dead_letter(&message.topic) => dead_letters,
            _ => &self.main,
        };
        let (identity, rules) = (self.settings.message_identity, &self.settings.payload_rules);
        let (key, value) = (identity.key(rules, message), identity.value(rules, message));
        let mut record = BaseRecord::with_opaque_to(&topic, Box::new(stored.offset))
            .key(key.as_ref())
            .payload(value.as_ref())
            .headers(wire::headers(message, &self.settings.source));
        loop {
            match to.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    tokio::time::sleep(Duration::from_millis(QUEUE_PAUSE_MILLIS)).await;
                }
                Err((error, _)) => return Err(Refusal::of(&error)),
            }
        }
    }

    /// Waits until everything sent was answered, for a time.
    pub(super) fn flush(&self, millis_max: u64) {
        let wait = Duration::from_millis(millis_max);
        for producer in std::iter::once(&self.main).chain(&self.dead_letters) {
            if let Err(error) = producer.flush(wait) {
                tracing::warn!(%error, "what is not published yet is left to the relay");
            }
        }
    }
}

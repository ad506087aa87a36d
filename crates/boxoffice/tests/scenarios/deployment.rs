//! The deployments on which every scenario runs, and the resources that each of them needs outside of its process.

use boxoffice::config::Config;
use messaging::{Bus, Message};
use test_support::engines;
use ticketing::{ReservationsBackend, redis_server::RedisSettings};

#[cfg(feature = "kafka")]
use crate::engine_namespace::EngineNamespace;

/// No scenario stops Redis, so only a busy machine delays its answers.
const ANSWER_MILLIS_MAX: u64 = 20_000;

/// The backends of a [`crate::test_app::TestApp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeploymentKind {
    /// Everything in this process, on a folder.
    Embedded,
    /// The same, with reservations in Redis.
    Redis,
    /// Records in PostgreSQL, reservations in Redis, messages over Kafka.
    #[cfg(feature = "kafka")]
    Distributed,
}

impl DeploymentKind {
    pub const ALL: &[Self] = &[
        Self::Embedded,
        Self::Redis,
        #[cfg(feature = "kafka")]
        Self::Distributed,
    ];
}

/// The place of an app's durable data.
pub enum Environment {
    /// In its folder.
    Folder,
    #[cfg(feature = "kafka")]
    Engines(EngineNamespace),
}

/// A message that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedMessage {
    pub id: String,
    pub topic: String,
    pub key: String,
}

impl From<Message> for PublishedMessage {
    fn from(message: Message) -> Self {
        Self {
            id: message.id,
            topic: message.topic,
            key: message.key,
        }
    }
}

impl Environment {
    /// Provides the resources of a deployment and configures them.
    pub async fn open(deployment: DeploymentKind, config: &mut Config) -> Self {
        if deployment == DeploymentKind::Embedded {
            return Self::Folder;
        }
        config.ticketing.reservations = ReservationsBackend::Redis;
        config.ticketing.redis = RedisSettings {
            connect_timeout_millis: ANSWER_MILLIS_MAX,
            call_timeout_millis: ANSWER_MILLIS_MAX,
            url: engines::redis_url().to_owned(),
            prefix: engines::unique_name("test"),
            ..RedisSettings::default()
        };
        match deployment {
            DeploymentKind::Embedded | DeploymentKind::Redis => Self::Folder,
            #[cfg(feature = "kafka")]
            DeploymentKind::Distributed => Self::Engines(EngineNamespace::open(config).await),
        }
    }

    /// Whether commands can work on the app's folder.
    pub fn is_folder(&self) -> bool {
        matches!(self, Self::Folder)
    }

    /// Waits until every published message is acknowledged to the brokers; returns the number of messages.
    pub async fn wait_until_consumed(&self, bus: &Bus) -> usize {
        match self {
            Self::Folder => {
                assert!(
                    matches!(bus, Bus::Local(_)),
                    "the local bus stores offsets with the work"
                );
                0
            }
            #[cfg(feature = "kafka")]
            Self::Engines(namespace) => namespace.wait_until_consumed(bus).await,
        }
    }

    /// Returns the resources for the next app, if they can be reused.
    pub async fn close(self, consumed: usize) {
        match self {
            Self::Folder => assert_eq!(consumed, 0),
            #[cfg(feature = "kafka")]
            Self::Engines(namespace) => namespace.close(consumed).await,
        }
    }
}

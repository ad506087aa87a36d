//! The deployments that every story is played on, and what each of them stands on outside of its process.

use boxoffice::config::Config;
use messaging::{Bus, Message};
use ticketing::{ReservationsBackend, redis_server::RedisSettings};

#[cfg(feature = "kafka")]
use crate::distributed::Distributed;
use crate::redis_place;

/// Redis is there in every story, on a machine that may be busy.
const ANSWER_MILLIS_MAX: u64 = 20_000;

/// Where Boxoffice runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deployment {
    /// Everything in this process, on a folder.
    Embedded,
    /// The same, with reservations in Redis.
    Redis,
    /// Records in PostgreSQL, reservations in Redis, messages over Kafka.
    #[cfg(feature = "kafka")]
    Distributed,
}

impl Deployment {
    pub const ALL: &[Self] = &[
        Self::Embedded,
        Self::Redis,
        #[cfg(feature = "kafka")]
        Self::Distributed,
    ];
}

/// Where a house keeps what it must not lose.
pub enum Site {
    /// In its folder.
    Folder,
    #[cfg(feature = "kafka")]
    Distributed(Distributed),
}

/// Something that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    pub id: String,
    pub topic: String,
    pub key: String,
}

impl From<Message> for Said {
    fn from(message: Message) -> Self {
        Self {
            id: message.id,
            topic: message.topic,
            key: message.key,
        }
    }
}

impl Site {
    /// What the deployment needs, and the settings by which it is found.
    pub async fn open(deployment: Deployment, config: &mut Config) -> Self {
        if deployment == Deployment::Embedded {
            return Self::Folder;
        }
        config.ticketing.reservations = ReservationsBackend::Redis;
        config.ticketing.redis = RedisSettings {
            connect_timeout_millis: ANSWER_MILLIS_MAX,
            call_timeout_millis: ANSWER_MILLIS_MAX,
            ..redis_place::settings()
        };
        match deployment {
            Deployment::Embedded | Deployment::Redis => Self::Folder,
            #[cfg(feature = "kafka")]
            Deployment::Distributed => Self::Distributed(Distributed::open(config).await),
        }
    }

    /// Whether the house's folder holds all that a command needs.
    pub fn is_folder(&self) -> bool {
        matches!(self, Self::Folder)
    }

    /// Waits until brokers know that everything so far was handled; returns how much that is.
    pub async fn is_heard(&self, bus: &Bus) -> usize {
        match self {
            Self::Folder => {
                assert!(matches!(bus, Bus::Local(_)), "it is stored with the work");
                0
            }
            #[cfg(feature = "kafka")]
            Self::Distributed(distributed) => distributed.is_heard(bus).await,
        }
    }

    /// Gives back what the deployment needed, where it can be used again.
    pub async fn close(self, heard: usize) {
        match self {
            Self::Folder => assert_eq!(heard, 0),
            #[cfg(feature = "kafka")]
            Self::Distributed(distributed) => distributed.close(heard).await,
        }
    }
}

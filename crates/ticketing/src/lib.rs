//! The ticketing service: who gets a ticket.
//!
//! A reservation takes a ticket first, with a deadline ([`reserve`]). A purchase then runs as a saga over the user and
//! payment services ([`process`], [`sagas`]). When the payment succeeds the ticket is issued ([`issue`]); if the deadline
//! passes unpaid, everything that the purchase took is undone ([`expiry`]), as when the buyer releases the reservation
//! ([`release`]). A payment that gets no ticket is refunded, and a refunded payment cancels its ticket ([`refund`]), as
//! when the buyer cancels it ([`cancel`]).
//!
//! - [`model`]: the records: allocation, ticket, reservation and purchase
//! - [`reservations`]: one atomic operation decides who gets a ticket; the backend is hidden here
//! - [`consumers`] and [`http`]: messages and requests, both to the same use cases
//! - [`redis_server`]: the connection to Redis

pub mod cancel;
pub mod consumers;
pub mod expiry;
pub mod http;
pub mod issue;
pub mod metrics;
pub mod model;
pub mod process;
pub mod progress;
pub mod redis_server;
pub mod refund;
pub mod release;
pub mod reservations;
pub mod reserve;
pub mod resume;
pub mod sagas;
pub mod tickets;

use std::{collections::BTreeMap, sync::Arc};

use contract::EventId;
use messaging::{Clock, Random, Record, Store, StoreError, Table};
use serde::Deserialize;

pub use metrics::Metrics;
pub use redis_server::RedisSettings;
pub use reservations::Reservations;

use redis_server::{ConnectError, RedisServer};
use reservations::{ClaimSnapshot, RedisHold};

/// The tables of this service.
pub const TABLES: &[&Table] = &[
    <model::Allocation as Record>::TABLE,
    <model::Ticket as Record>::TABLE,
    <model::ReservationRecord as Record>::TABLE,
    <model::Purchase as Record>::TABLE,
    <refund::PurchaseRefund as Record>::TABLE,
];

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long a reservation waits for payment.
    pub hold_ttl_secs: i64,
    /// How much later than its deadline a reservation expires: longer than the gateway's timeouts together.
    pub hold_grace_secs: i64,
    /// Where reservations are decided.
    pub reservations: ReservationsBackend,
    /// Used if that is Redis.
    pub redis: RedisSettings,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReservationsBackend {
    /// In this process.
    #[default]
    Local,
    /// Shared by several.
    Redis,
}

/// Why the store or Redis cannot be opened, or read at the start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] ConnectError),
}

impl Settings {
    /// Checks the settings without connecting to a server.
    ///
    /// # Errors
    /// A [`ConnectError`] naming the setting.
    pub fn validate(&self) -> Result<(), ConnectError> {
        match self.reservations {
            ReservationsBackend::Local => Ok(()),
            ReservationsBackend::Redis => self.redis.validate(),
        }
    }

    /// Claims that are kept outside the store, for audits; `None` if all claims are rows of the store.
    ///
    /// # Errors
    /// [`OpenError`] if the server does not answer.
    pub async fn read_claims(
        &self,
        events: &[EventId],
    ) -> Result<Option<BTreeMap<EventId, ClaimSnapshot>>, OpenError> {
        match self.reservations {
            ReservationsBackend::Local => Ok(None),
            ReservationsBackend::Redis if events.is_empty() => Ok(Some(BTreeMap::new())),
            ReservationsBackend::Redis => {
                ClaimSnapshot::read_all(&self.redis, events).await.map(Some)
            }
        }
    }

    fn redis_hold(&self) -> RedisHold {
        let (claim_secs, grace_secs) = (
            self.hold_ttl_secs + self.hold_grace_secs,
            self.hold_grace_secs,
        );
        RedisHold {
            claim_millis_min: claim_secs.saturating_mul(1000),
            grace_millis: grace_secs.saturating_mul(1000),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hold_ttl_secs: 1800,
            hold_grace_secs: 90,
            reservations: ReservationsBackend::default(),
            redis: RedisSettings::default(),
        }
    }
}

/// The use cases and their dependencies; clones share them.
#[derive(Clone)]
pub struct Service(Arc<Inner>);

struct Inner {
    store: Store,
    clock: Clock,
    random: Random,
    settings: Settings,
    reservations: Reservations,
    metrics: Metrics,
}

impl Service {
    /// Opens the service. Reservations in memory are rebuilt from the store.
    ///
    /// # Errors
    /// [`OpenError`] if the store cannot be read, or Redis cannot be reached.
    pub async fn open(
        store: Store,
        clock: Clock,
        random: Random,
        settings: Settings,
        metrics: Metrics,
    ) -> Result<Self, OpenError> {
        let reservations = match settings.reservations {
            ReservationsBackend::Local => {
                Reservations::open_local(store.clone(), clock.now()).await?
            }
            ReservationsBackend::Redis => {
                let server = RedisServer::connect(&settings.redis).await?;
                let hold = settings.redis_hold();
                Reservations::on_redis(server, store.clone(), clock.clone(), hold)
            }
        };
        Ok(Self(Arc::new(Inner {
            store,
            clock,
            random,
            settings,
            reservations,
            metrics,
        })))
    }

    #[must_use]
    pub fn reservations(&self) -> &Reservations {
        &self.0.reservations
    }
}

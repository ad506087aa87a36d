//! The ticketing service: who gets a ticket.
//!
//! A reservation takes the ticket first, with a deadline ([`reserve`]). A purchase then runs as a saga over the user
//! and payment services ([`process`], [`sagas`]). When the payment has succeeded the ticket is issued ([`issue`]);
//! when the deadline passes unpaid, everything that the purchase took is given back ([`expiry`]). Money for which there
//! is no ticket goes back, and a ticket goes with its money ([`refund`]), as when its buyer gives it back ([`cancel`]).
//!
//! - [`model`]: allocation, ticket, reservation and purchase
//! - [`reservations`]: one atomic operation decides who gets a ticket
//! - [`consumers`] and [`http`]: the two doors to the use cases
//! - [`redis_server`]: a server that several processes share
//! - [`lock`]: a lease with fencing, for what is not one atomic operation

pub mod cancel;
pub mod consumers;
pub mod expiry;
pub mod http;
pub mod issue;
pub mod lock;
pub mod metrics;
pub mod model;
pub mod process;
pub mod progress;
pub mod redis_server;
pub mod refund;
pub mod release;
pub mod reservations;
pub mod reserve;
pub mod sagas;
pub mod tickets;

use std::sync::Arc;

use messaging::{Clock, Random, Record, Store, StoreError, Table};
use serde::Deserialize;

pub use metrics::Metrics;
pub use redis_server::RedisSettings;
pub use reservations::Reservations;

use redis_server::{ConnectError, RedisServer};
use reservations::RedisHold;

/// The tables of this service.
pub const TABLES: &[&Table] = &[
    <model::Allocation as Record>::TABLE,
    <model::Ticket as Record>::TABLE,
    <model::Reservation as Record>::TABLE,
    <model::Purchase as Record>::TABLE,
    <refund::PurchaseRefund as Record>::TABLE,
];

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long a reservation waits for payment.
    pub hold_ttl_secs: i64,
    /// How much later than its deadline a reservation lapses: longer than the gateway's timeouts together.
    pub hold_grace_secs: i64,
    /// Where reservations are decided.
    pub reservations: ReservationsBackend,
    /// Where that is Redis.
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

/// Why the service cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Redis(#[from] ConnectError),
}

impl Settings {
    /// Says what is wrong without asking any server.
    ///
    /// # Errors
    /// A [`ConnectError`] naming the setting.
    pub fn validate(&self) -> Result<(), ConnectError> {
        match self.reservations {
            ReservationsBackend::Local => Ok(()),
            ReservationsBackend::Redis => self.redis.validate(),
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

/// The use cases, with what they need; clones share it.
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
    /// Opens the service. In the process itself, reservations are rebuilt from what is stored.
    ///
    /// # Errors
    /// [`OpenError`] where the store cannot be read, or Redis cannot be reached.
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

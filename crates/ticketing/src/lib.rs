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
pub mod refund;
pub mod release;
pub mod reservations;
pub mod reserve;
pub mod sagas;

use std::sync::Arc;

use messaging::{Clock, Random, Record, Store, StoreError, Table};
use serde::{Deserialize, Serialize};

pub use metrics::Metrics;
pub use reservations::Reservations;

/// The tables of this service.
pub const TABLES: &[&Table] = &[
    <model::Allocation as Record>::TABLE,
    <model::Ticket as Record>::TABLE,
    <model::Reservation as Record>::TABLE,
    <model::Purchase as Record>::TABLE,
    <refund::PurchaseRefund as Record>::TABLE,
];

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// How long a reservation waits for payment.
    pub hold_ttl_secs: i64,
    /// How much later than its deadline a reservation lapses: longer than the gateway's timeouts together.
    pub hold_grace_secs: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hold_ttl_secs: 1800,
            hold_grace_secs: 90,
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
    /// Opens the service on the embedded backend and rebuilds its reservations from what is stored.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be read.
    pub async fn open(
        store: Store,
        clock: Clock,
        random: Random,
        settings: Settings,
        metrics: Metrics,
    ) -> Result<Self, StoreError> {
        let reservations = Reservations::open_local(store.clone()).await?;
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

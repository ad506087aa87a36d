//! The event service: shows, how many tickets each has, and when they are on sale.
//!
//! It owns one table and has one API, HTTP. Each change is published as `domain.event` in the same Commit, with the
//! whole state and a version; no other service calls this one while tickets are being sold.
//!
//! - [`model`]: [`model::Event`] and its rules
//! - [`register`], [`modify`], [`read`]: the use cases
//! - [`http`]: the HTTP API

pub mod http;
pub mod model;
pub mod modify;
pub mod read;
pub mod register;

use std::sync::Arc;

use contract::{EventId, Timestamp, domain::DomainMessage};
use messaging::{Clock, Commit, CommitError, Message, Record, Store, StoreError, Table};

use crate::model::{Event, Invalid};

/// The tables of this service; the store must be opened with them.
pub const TABLES: &[&Table] = &[Event::TABLE];

/// The use cases and their dependencies. Clones share them.
#[derive(Clone)]
pub struct Service(Arc<Parts>);

struct Parts {
    store: Store,
    clock: Clock,
}

impl Service {
    #[must_use]
    pub fn new(store: Store, clock: Clock) -> Self {
        Self(Arc::new(Parts { store, clock }))
    }
}

/// Why a use case changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("there is no event {0}")]
    NotFound(EventId),
    #[error("event {id} has version {stored}, not {expected}")]
    VersionConflict {
        id: EventId,
        stored: i64,
        expected: i64,
    },
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A Commit that saves `event` and publishes it. The message carries the version that the store will have.
fn save(event: &Event, now: Timestamp) -> Commit {
    let envelope = DomainMessage::new(event.to_domain(), event.version + 1, now);
    let mut commit = Commit::new();
    commit
        .put(event)
        .publish(Message::new(envelope.event_id.clone(), &envelope, now));
    commit
}

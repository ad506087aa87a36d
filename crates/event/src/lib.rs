//! The event service: shows, how many tickets each has, and when they are on sale.
//!
//! It owns one table and has one door, HTTP. Whatever changes here is told to the others as `domain.event`, in the
//! same Commit, with the whole state and a version; nobody asks this service anything while tickets are being sold.
//!
//! - [`model`]: [`model::Event`] and what may be said of one
//! - [`register`], [`modify`], [`read`]: the use cases
//! - [`http`]: the door

pub mod http;
pub mod model;
pub mod modify;
pub mod read;
pub mod register;

use std::sync::Arc;

use contract::{EventId, Timestamp, domain::DomainMessage};
use messaging::{Clock, Commit, CommitError, Message, Record, Store, StoreError, Table};

use crate::model::{Event, Invalid};

/// The tables that a store must be opened with.
pub const TABLES: &[&Table] = &[Event::TABLE];

/// The use cases, and what they need. Clones share it.
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

/// Why a use case did nothing.
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

/// A Commit that saves `event` and tells everybody. The others see the same version as the store.
fn save(event: &Event, now: Timestamp) -> Commit {
    let envelope = DomainMessage::new(event.to_domain(), event.version + 1, now);
    let mut commit = Commit::new();
    commit
        .put(event)
        .publish(Message::new(envelope.event_id.clone(), &envelope, now));
    commit
}

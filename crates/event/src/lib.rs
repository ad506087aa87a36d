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

use contract::{EventId, domain::DomainMessage, text::Invalid};
use messaging::{Clock, Commit, CommitError, Record, Store, StoreError, Table};

use crate::model::Event;

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

    /// Saves an event and publishes it. `answer` gets the event as it will be stored, and may add to the Commit what must
    /// become durable with it.
    async fn save<T>(
        &self,
        mut event: Event,
        answer: impl FnOnce(&mut Commit, &Event) -> T,
    ) -> Result<T, Error> {
        let (version, now) = (event.version + 1, event.updated_at);
        let message = DomainMessage::publish(event.to_domain(), version, now);
        let mut commit = Commit::new();
        commit.put(&event).publish(message);
        event.version = version;
        let answer = answer(&mut commit, &event);
        self.0.store.commit(commit).await?;
        Ok(answer)
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

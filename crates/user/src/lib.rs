//! The user service: which users may buy, their points, and the fraud check.
//!
//! The purchase saga asks it by message; a repeated request gets the same reply. Operators register and change users and
//! grant points over HTTP. A balance changes only together with a ledger entry, in one Commit.
//!
//! - [`model`]: [`model::User`] and its rules
//! - [`points`]: points held by a saga: reserve, restore, apply a payment
//! - [`ledger`]: all changes of balances
//! - [`fraud`]: the fraud rules
//! - [`register`], [`modify`], [`grant`], [`read`]: the use cases of operators
//! - [`consumers`]: the message consumer
//! - [`http`]: the HTTP API

pub mod consumers;
pub mod fraud;
pub mod grant;
pub mod http;
pub mod ledger;
pub mod model;
pub mod modify;
pub mod points;
pub mod read;
pub mod register;

use std::sync::Arc;

use contract::{UserId, text::Invalid};
use messaging::{Clock, CommitError, Entry, Record, Store, StoreError, Table};
use serde::Deserialize;

use crate::{ledger::LedgerEntry, model::User, points::Hold};

/// The tables of this service; the store must be opened with them.
pub const TABLES: &[&Table] = &[User::TABLE, Hold::TABLE, LedgerEntry::TABLE];

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub fraud: fraud::Rules,
}

/// The use cases and their dependencies. Clones share them.
#[derive(Clone)]
pub struct Service(Arc<Parts>);

struct Parts {
    store: Store,
    clock: Clock,
    settings: Settings,
}

impl Service {
    #[must_use]
    pub fn new(store: Store, clock: Clock, settings: Settings) -> Self {
        Self(Arc::new(Parts {
            store,
            clock,
            settings,
        }))
    }
}

/// Why a use case changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("there is no user {0}")]
    NotFound(UserId),
    #[error("user {0} is registered already")]
    Exists(UserId),
    #[error("user {id} has version {stored}, not {expected}")]
    VersionConflict {
        id: UserId,
        stored: i64,
        expected: i64,
    },
    /// Each try conflicted with another writer.
    #[error("too many changes at the same moment")]
    Contended,
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

//! The user service: who may buy, the points they hold, and whether a purchase looks like fraud.
//!
//! Two doors into one house. By message it answers the purchase saga's questions, each saga the same way however
//! often it asks. By HTTP people register and change users and grant points. A balance is never only a number: it
//! changes together with a ledger entry, in one Commit, and [`audit`] holds the one against the other.
//!
//! - [`model`]: [`model::User`], and what may be said of one
//! - [`points`]: what a saga holds: reserve, restore, settle
//! - [`ledger`]: every change of a balance
//! - [`fraud`]: the rules about suspicious purchases
//! - [`register`], [`modify`], [`grant`], [`read`]: the use cases of people
//! - [`consumers`]: the door for messages
//! - [`http`]: the door for requests
//! - [`audit`]: whether every balance is the sum of its ledger

pub mod audit;
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

use contract::UserId;
use messaging::{Clock, CommitError, Entry, Record, Store, StoreError, Table};
use serde::Deserialize;

use crate::{
    ledger::LedgerEntry,
    model::{Invalid, User},
    points::Hold,
};

/// The tables that a store must be opened with.
pub const TABLES: &[&Table] = &[User::TABLE, Hold::TABLE, LedgerEntry::TABLE];

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub fraud: fraud::Rules,
}

/// The use cases, and what they need. Clones share it.
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

/// Why a use case did nothing.
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
    /// Others kept changing the same thing first.
    #[error("too many changes at the same moment")]
    Contended,
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Whether a commit was refused because somebody else put this user first.
fn is_users_conflict(error: &CommitError) -> bool {
    matches!(error, CommitError::Conflict { table, .. } if table == User::TABLE.name)
}

//! A Commit: everything that one decision changes, as data, applied atomically or not at all.

use std::sync::Arc;

use crate::Timestamp;

use crate::{
    Message,
    record::{Entry, Key, Record, Ref, Table},
    row::Row,
    trace,
};

/// Everything that one handled message (or one request) changes.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    pub puts: Vec<Put>,
    pub deletes: Vec<Delete>,
    /// Entries to add: each is rejected if one of its key is stored.
    pub appends: Vec<Put>,
    pub messages: Vec<Arc<Message>>,
    pub timers: Vec<TimerChange>,
    /// The inbox mark: this group has handled this message.
    pub handled: Option<Handled>,
    /// The commit is rejected if any of these leases is lost.
    pub fences: Vec<Fence>,
    /// The records that this was decided on. If an earlier commit of the same submission would have changed one of them
    /// and was rejected, this commit is rejected too.
    pub required_records: Vec<Ref>,
}

/// A record to save if the stored version is still `expected` (0: if none is stored).
#[derive(Debug, Clone)]
pub struct Put {
    pub table: &'static Table,
    pub key: Key,
    pub expected: i64,
    /// Carries the version `expected + 1`.
    pub row: Row,
}

/// A record to remove if the stored version is still `expected`; without one, whatever its version.
#[derive(Debug, Clone)]
pub struct Delete {
    pub table: &'static Table,
    pub key: Key,
    pub expected: Option<i64>,
}

/// A timer publishes a message at a time. Setting it again replaces it.
#[derive(Debug, Clone)]
pub enum TimerChange {
    Set {
        id: String,
        due_at: Timestamp,
        message: Message,
    },
    Cancel {
        id: String,
    },
    /// Remove the timer and publish `message`, if the stored timer still has this due time and message id. `message` is
    /// the timer's own, or a dead letter in its place.
    Fire {
        id: String,
        due_at: Timestamp,
        message_id: String,
        message: Message,
    },
}

#[derive(Debug, Clone)]
pub struct Handled {
    pub group: String,
    pub message_id: String,
    /// The message's key: if this commit is rejected, no later one of the key may be applied before it.
    pub key: String,
    pub at: Timestamp,
}

/// Proof that a lease is still held: its token.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Fence {
    pub lease: String,
    pub token: i64,
}

impl Commit {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Saves a record under the version after the one it was loaded with.
    pub fn put<R: Record>(&mut self, record: &R) -> &mut Self {
        let mut row = Row::of(R::TABLE, record);
        let expected = version_of(&row);
        row.set("version", (expected + 1).into());
        self.puts.push(Put {
            table: R::TABLE,
            key: key_of(&row),
            expected,
            row,
        });
        self
    }

    pub fn delete<R: Record>(&mut self, record: &R) -> &mut Self {
        let row = Row::of(R::TABLE, record);
        self.deletes.push(Delete {
            table: R::TABLE,
            key: key_of(&row),
            expected: Some(version_of(&row)),
        });
        self
    }

    /// Removes a record whatever its version; no conflict if it is not stored.
    pub fn remove<R: Record>(&mut self, key: impl Into<Key>) -> &mut Self {
        self.deletes.push(Delete {
            table: R::TABLE,
            key: key.into(),
            expected: None,
        });
        self
    }

    pub fn append<E: Entry>(&mut self, entry: &E) -> &mut Self {
        let row = Row::of(E::TABLE, entry);
        self.appends.push(Put {
            table: E::TABLE,
            key: key_of(&row),
            expected: 0,
            row,
        });
        self
    }

    pub fn publish(&mut self, message: Message) -> &mut Self {
        self.messages.push(Arc::new(traced(message)));
        self
    }

    /// Publishes `message` at `due_at`, in place of an earlier timer of the same id.
    pub fn set_timer(
        &mut self,
        id: impl Into<String>,
        due_at: Timestamp,
        message: Message,
    ) -> &mut Self {
        self.timers.push(TimerChange::Set {
            id: id.into(),
            due_at,
            message: traced(message),
        });
        self
    }

    pub fn cancel_timer(&mut self, id: impl Into<String>) -> &mut Self {
        self.timers.push(TimerChange::Cancel { id: id.into() });
        self
    }

    pub fn fenced_by(&mut self, fence: Fence) -> &mut Self {
        self.fences.push(fence);
        self
    }

    /// Adds everything that `other` changes.
    pub fn merge(&mut self, other: Commit) -> &mut Self {
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
        self.appends.extend(other.appends);
        self.messages.extend(other.messages);
        self.timers.extend(other.timers);
        self.handled = other.handled.or(self.handled.take());
        self.fences.extend(other.fences);
        self.required_records.extend(other.required_records);
        self
    }

    /// The records that this changes.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (&'static str, &Key)> {
        let puts = self.puts.iter().map(|put| (put.table.name, &put.key));
        puts.chain(self.deletes.iter().map(|it| (it.table.name, &it.key)))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.puts.is_empty()
            && self.deletes.is_empty()
            && self.appends.is_empty()
            && self.messages.is_empty()
            && self.timers.is_empty()
            && self.handled.is_none()
            && self.fences.is_empty()
    }
}

fn key_of(row: &Row) -> Key {
    row.key().expect("a record or entry has a key")
}

fn version_of(row: &Row) -> i64 {
    let version = row["version"].as_i64();
    version.expect("a record has a version")
}

/// A message without a trace belongs to the trace of the work that publishes it.
fn traced(mut message: Message) -> Message {
    message.trace = message.trace.or_else(trace::current);
    message
}

/// Why a Commit was not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Another writer changed the record first: load and decide again.
    #[error("{table} {key} was changed by another")]
    Conflict { table: String, key: String },
    /// The change breaks a rule of the table, such as `CHECK (sold <= quantity)`.
    #[error("{detail}")]
    Constraint { detail: String },
    /// The lease was lost: another process holds it.
    #[error("the lease {lease} is held by another")]
    Fenced { lease: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CommitError {
    /// Whether the Commit may have been applied nevertheless. Undo its effects elsewhere only if this is false.
    #[must_use]
    pub fn may_be_applied(&self) -> bool {
        match self {
            Self::Store(StoreError::Unknown(_) | StoreError::Poisoned(_)) => true,
            Self::Store(
                StoreError::Overloaded | StoreError::Unavailable(_) | StoreError::Corrupt(_),
            )
            | Self::Conflict { .. }
            | Self::Constraint { .. }
            | Self::Fenced { .. } => false,
        }
    }
}

/// Why the store failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Too many commits are waiting; this one was not accepted.
    #[error("the store is overloaded")]
    Overloaded,
    /// It may work again later (disk full, busy, server unreachable).
    #[error("the store cannot answer now: {0}")]
    Unavailable(String),
    /// The connection was lost during `COMMIT` and was not restored in time: whether the commit was applied is not known
    /// yet.
    #[error("whether the commit was applied is not known yet: {0}")]
    Unknown(String),
    /// A write failed so that the state on disk is unknown: stop the process; the next start recovers.
    #[error("the store has failed and must be opened again: {0}")]
    Poisoned(String),
    /// The stored data is not as this program writes it.
    #[error("stored data cannot be read: {0}")]
    Corrupt(String),
}

impl From<crate::Rejection> for StoreError {
    fn from(rejection: crate::Rejection) -> Self {
        Self::Corrupt(rejection.reason)
    }
}

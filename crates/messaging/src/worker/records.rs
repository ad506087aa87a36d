//! The records of a batch, between loading and committing.

use std::collections::HashMap;

use crate::{
    Commit, Rejection,
    record::{Key, Record},
    row::Row,
};

/// The records that a batch requires, as the messages decided so far leave them.
#[derive(Debug, Default)]
pub struct Records {
    pub(super) rows: HashMap<(&'static str, Key), Row>,
}

impl Records {
    /// # Errors
    /// A [`Rejection`] if the stored row cannot be read.
    pub fn get<R: Record>(&self, key: impl Into<Key>) -> Result<Option<R>, Rejection> {
        let row = self.rows.get(&(R::TABLE.name, key.into()));
        row.map(Row::read).transpose()
    }

    /// Adds a record; for tests of decisions.
    #[must_use]
    pub fn with<R: Record>(mut self, record: &R) -> Self {
        let mut commit = Commit::new();
        commit.put(record);
        self.apply(&commit);
        self
    }

    /// Changes the records for the next message.
    pub fn apply(&mut self, commit: &Commit) {
        for put in &commit.puts {
            self.rows
                .insert((put.table.name, put.key.clone()), put.row.clone());
        }
        for delete in &commit.deletes {
            self.rows.remove(&(delete.table.name, delete.key.clone()));
        }
    }
}

//! A store as of one moment, read beside a running server: without locking or disturbing it, and everything from the
//! same commit.

use std::{collections::HashSet, path::Path};

use crate::{
    Message, StoreError,
    postgres::{PostgresSettings, PostgresSnapshot},
    record::{Entry, Record, Table},
    row::Row,
    sqlite::SqliteSnapshot,
};

/// A store as of one moment.
pub struct Snapshot(Backend);

enum Backend {
    Sqlite(SqliteSnapshot),
    Postgres(PostgresSnapshot),
}

impl Snapshot {
    /// A data folder as of now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the folder holds no store.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        SqliteSnapshot::open(folder).map(|snapshot| Self(Backend::Sqlite(snapshot)))
    }

    /// A PostgreSQL schema as of now. Like every method of a snapshot, this blocks its thread.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if the server cannot be reached or the schema holds no store.
    pub fn open_postgres(settings: &PostgresSettings) -> Result<Self, StoreError> {
        PostgresSnapshot::open(settings).map(|snapshot| Self(Backend::Postgres(snapshot)))
    }

    /// Calls `each` for every record of a kind, in the order of their keys.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn each<R: Record>(&self, mut each: impl FnMut(R)) -> Result<(), StoreError> {
        self.each_row(R::TABLE, |row| {
            each(row.read()?);
            Ok(())
        })
    }

    /// Calls `each` for every entry of a kind, in the order of their keys.
    ///
    /// # Errors
    /// [`StoreError`] if a row cannot be read.
    pub fn each_entry<E: Entry>(&self, mut each: impl FnMut(E)) -> Result<(), StoreError> {
        self.each_row(E::TABLE, |row| {
            each(row.read()?);
            Ok(())
        })
    }

    fn each_row(
        &self,
        table: &'static Table,
        each: impl FnMut(Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match &self.0 {
            Backend::Sqlite(snapshot) => snapshot.each_row(table, each),
            Backend::Postgres(snapshot) => snapshot.each_row(table, each),
        }
    }

    /// The sum of a column by the value of another, over all rows of a table of entries.
    ///
    /// # Errors
    /// [`StoreError`] if the table cannot be read.
    pub fn sum_by(&self, table: &str, sum: &str, by: &str) -> Result<Vec<(i64, i64)>, StoreError> {
        match &self.0 {
            Backend::Sqlite(snapshot) => snapshot.sum_by(table, sum, by),
            Backend::Postgres(snapshot) => snapshot.sum_by(table, sum, by),
        }
    }

    /// Messages that a group subscribes to and has not handled yet.
    ///
    /// # Errors
    /// [`StoreError`] if the log cannot be read.
    pub fn pending(&self, group: &str, topics: &[&str]) -> Result<Vec<Message>, StoreError> {
        match &self.0 {
            Backend::Sqlite(snapshot) => snapshot.pending(group, topics),
            Backend::Postgres(snapshot) => snapshot.pending(group, topics),
        }
    }

    /// The ids of all stored timers.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    pub fn timers(&self) -> Result<HashSet<String>, StoreError> {
        match &self.0 {
            Backend::Sqlite(snapshot) => snapshot.timers(),
            Backend::Postgres(snapshot) => snapshot.timers(),
        }
    }

    /// The inbox marks of a group: the ids of handled messages that cleanup has not removed.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    pub fn handled(&self, group: &str) -> Result<HashSet<String>, StoreError> {
        match &self.0 {
            Backend::Sqlite(snapshot) => snapshot.handled(group),
            Backend::Postgres(snapshot) => snapshot.handled(group),
        }
    }
}

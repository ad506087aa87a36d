//! A store as of one moment, read beside a running server: without locking or disturbing it, and everything from the
//! same commit.

use std::collections::HashSet;

use crate::{
    DataFolder, Message, StoreError,
    postgres::{PostgresSettings, PostgresSnapshot},
    record::{Entry, Record, Table},
    row::Row,
    sqlite::SqliteSnapshot,
    store::Find,
};

/// Rows per query.
const PAGE_ROWS: u32 = 10_000;

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
    pub fn open(folder: impl Into<DataFolder>) -> Result<Self, StoreError> {
        SqliteSnapshot::open(&folder.into()).map(|snapshot| Self(Backend::Sqlite(snapshot)))
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
        mut each: impl FnMut(Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut find = Find::all(table, PAGE_ROWS);
        loop {
            let rows = match &self.0 {
                Backend::Sqlite(snapshot) => snapshot.find(&find)?,
                Backend::Postgres(snapshot) => snapshot.find(find.clone())?,
            };
            let is_last = rows.len() < PAGE_ROWS as usize;
            find.after = rows.last().and_then(Row::key);
            rows.into_iter().try_for_each(&mut each)?;
            if is_last || find.after.is_none() {
                return Ok(());
            }
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
        let wanted = |message: &Message| message.is_for(group, topics);
        let mut offset = match &self.0 {
            Backend::Sqlite(snapshot) => snapshot.position(group)?,
            Backend::Postgres(snapshot) => snapshot.position(group)?,
        };
        let mut pending = Vec::new();
        loop {
            let (found, looked_at) = match &self.0 {
                Backend::Sqlite(snapshot) => snapshot.messages(offset, &wanted)?,
                Backend::Postgres(snapshot) => snapshot.messages(offset, &wanted)?,
            };
            pending.extend(found.into_iter().map(|it| Message::clone(&it.message)));
            if looked_at == offset {
                break;
            }
            offset = looked_at;
        }
        let ids: Vec<&str> = pending.iter().map(|message| message.id.as_str()).collect();
        let seen = match &self.0 {
            Backend::Sqlite(snapshot) => snapshot.seen(group, &ids)?,
            Backend::Postgres(snapshot) => snapshot.seen(group, &ids)?,
        };
        pending.retain(|message: &Message| !seen.contains(&message.id));
        Ok(pending)
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

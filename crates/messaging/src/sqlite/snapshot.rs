//! The embedded store as of one moment, read beside a running server: without locking or disturbing it, and everything
//! from the same commit.

use std::{collections::HashSet, path::Path};

use crate::Timestamp;
use rusqlite::{Connection, OpenFlags, types::Value as Cell};

use super::{
    read_error,
    read_only::{self, TemporaryCopy},
    reader,
    schema::FILE_NAME,
    upgrade,
};
use crate::{
    Message, StoreError,
    record::{Key, Table},
    row::Row,
};

/// Rows read at once.
const PAGE_ROWS: u32 = 10_000;

/// A data folder as of one moment.
pub(crate) struct SqliteSnapshot {
    connection: Connection,
    /// Removed once the connection is closed.
    _copied: Option<TemporaryCopy>,
}

impl SqliteSnapshot {
    /// Opens a folder without write access as immutable.
    pub(crate) fn open(folder: &Path) -> Result<Self, StoreError> {
        let path = folder.join(FILE_NAME);
        if !path.is_file() {
            return Err(StoreError::Unavailable(format!(
                "{} holds no data",
                folder.display()
            )));
        }
        // With write access, because a reader of a write-ahead log must be able to create its index.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(&path, flags).and_then(begin);
        match opened {
            Ok(connection) => Ok(Self {
                connection,
                _copied: None,
            }),
            Err(error) if read_only::cannot_write(&error) => Self::open_read_only(&path),
            Err(error) => Err(read_error(&error)),
        }
    }

    fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        let (connection, copied) = read_only::open(path)?;
        let connection = begin(connection).map_err(|error| read_error(&error))?;
        Ok(Self {
            connection,
            _copied: copied,
        })
    }

    /// Calls `each` for every row of a table, in the order of their keys. Tables and columns that an older program did not
    /// create are read as its upgrade would create them.
    pub(crate) fn each_row(
        &self,
        table: &'static Table,
        mut each: impl FnMut(Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let Some(columns) = upgrade::columns(&self.connection, table)? else {
            return Ok(());
        };
        let mut after = None;
        loop {
            let rows = self
                .page(table, &columns, after.as_ref())
                .map_err(|error| read_error(&error))?;
            let is_last = rows.len() < PAGE_ROWS as usize;
            after = rows.last().and_then(|row| Key::of(table, row));
            rows.into_iter().try_for_each(&mut each)?;
            if is_last || after.is_none() {
                return Ok(());
            }
        }
    }

    fn page(
        &self,
        table: &'static Table,
        columns: &str,
        after: Option<&Key>,
    ) -> rusqlite::Result<Vec<Row>> {
        let (name, key) = (table.name, table.key);
        let range = match after {
            Some(_) => format!("\"{key}\" > ?1"),
            None => "TRUE".to_owned(),
        };
        let text = format!(
            "SELECT {columns} FROM \"{name}\" WHERE {range} ORDER BY \"{key}\" LIMIT {PAGE_ROWS}"
        );
        let mut statement = self.connection.prepare_cached(&text)?;
        let cells = rusqlite::params_from_iter(after.map(Cell::from));
        let rows = statement.query_map(cells, |row| reader::read_row(table, row))?;
        rows.collect()
    }

    /// The sum of a column by the value of another, over all rows of a table of entries.
    pub(crate) fn sum_by(
        &self,
        table: &str,
        sum: &str,
        by: &str,
    ) -> Result<Vec<(i64, i64)>, StoreError> {
        let text = format!("SELECT \"{by}\", sum(\"{sum}\") FROM \"{table}\" GROUP BY \"{by}\"");
        let read = || -> rusqlite::Result<Vec<(i64, i64)>> {
            let mut statement = self.connection.prepare(&text)?;
            let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        };
        read().map_err(|error| read_error(&error))
    }

    /// Messages that a group subscribes to and has not handled yet.
    pub(crate) fn pending(&self, group: &str, topics: &[&str]) -> Result<Vec<Message>, StoreError> {
        let read = || -> rusqlite::Result<Vec<Message>> {
            let mut offset = reader::position(&self.connection, group)?;
            let mut pending = Vec::new();
            loop {
                let wanted = |message: &Message| message.is_for(group, topics);
                let (found, looked_at) =
                    reader::messages(&self.connection, offset, usize::MAX, &wanted)?;
                pending.extend(
                    found
                        .into_iter()
                        .map(|stored| Message::clone(&stored.message)),
                );
                if looked_at == offset {
                    break;
                }
                offset = looked_at;
            }
            let ids: Vec<&str> = pending.iter().map(|message| message.id.as_str()).collect();
            let seen: HashSet<String> = reader::seen(&self.connection, group, &ids)?;
            pending.retain(|message| !seen.contains(&message.id));
            Ok(pending)
        };
        read().map_err(|error| read_error(&error))
    }

    /// The ids of all stored timers.
    pub(crate) fn timers(&self) -> Result<HashSet<String>, StoreError> {
        let ever = [i64::MIN, i64::MAX].map(Timestamp::from_millis);
        let timers = reader::timers(&self.connection, ever.into(), u32::MAX)
            .map_err(|error| read_error(&error))?;
        Ok(timers.into_iter().map(|timer| timer.id).collect())
    }

    pub(crate) fn handled(&self, group: &str) -> Result<HashSet<String>, StoreError> {
        let text = "SELECT message_id FROM inbox WHERE consumer = ?1";
        let read = || {
            let mut statement = self.connection.prepare(text)?;
            let marks = statement.query_map([group], |row| row.get(0))?;
            marks.collect::<Result<_, _>>()
        };
        read().map_err(|error: rusqlite::Error| read_error(&error))
    }
}

/// Begins the transaction that all reads belong to.
fn begin(connection: Connection) -> rusqlite::Result<Connection> {
    rusqlite::vtab::array::load_module(&connection)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.pragma_update(None, "query_only", true)?;
    connection.execute_batch("BEGIN")?;
    // The first read fixes the moment that the transaction sees.
    connection.query_row("SELECT count(*) FROM consumer", (), |_| Ok(()))?;
    Ok(connection)
}

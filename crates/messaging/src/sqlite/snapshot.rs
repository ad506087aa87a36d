//! The embedded store as of one moment, read beside a running server: without locking or disturbing it, and everything
//! from the same commit.

use std::{collections::HashSet, path::Path};

use rusqlite::{Connection, OpenFlags};

use super::{
    read_only::{self, TemporaryCopy},
    reader, schema, upgrade,
};
use crate::{DataFolder, Message, StoreError, log_cache::StoredMessage, row::Row, store::Find};

/// A data folder as of one moment.
pub(crate) struct SqliteSnapshot {
    connection: Connection,
    /// Removed once the connection is closed.
    _copied: Option<TemporaryCopy>,
}

impl SqliteSnapshot {
    /// Opens a folder without write access as immutable.
    pub(crate) fn open(folder: &DataFolder) -> Result<Self, StoreError> {
        let path = schema::file(folder);
        if !path.is_file() {
            return Err(StoreError::Unavailable(format!(
                "{} holds no data",
                folder.path.display()
            )));
        }
        // With write access, because a reader of a write-ahead log must be able to create its index.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(&path, flags).and_then(begin);
        match opened {
            Ok(connection) => Self::of(connection, None),
            Err(error) if read_only::cannot_write(&error) => Self::open_read_only(&path),
            Err(error) => Err(error.into()),
        }
    }

    fn open_read_only(path: &Path) -> Result<Self, StoreError> {
        let (connection, copied) = read_only::open(path)?;
        Self::of(begin(connection)?, copied)
    }

    fn of(connection: Connection, copied: Option<TemporaryCopy>) -> Result<Self, StoreError> {
        let views = upgrade::own_views(&connection)?;
        connection.execute_batch(&views)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(Self {
            connection,
            _copied: copied,
        })
    }

    /// Tables and columns that an older program did not create are read as its upgrade would create them.
    pub(crate) fn find(&self, find: &Find) -> Result<Vec<Row>, StoreError> {
        let columns = upgrade::columns(&self.connection, find.table)?;
        columns.map_or(Ok(Vec::new()), |columns| {
            reader::find_columns(&self.connection, find, &columns)
        })
    }

    /// The sum of a column by the value of another, over all rows of a table of entries.
    pub(crate) fn sum_by(
        &self,
        table: &str,
        sum: &str,
        by: &str,
    ) -> Result<Vec<(i64, i64)>, StoreError> {
        let text = format!("SELECT \"{by}\", sum(\"{sum}\") FROM \"{table}\" GROUP BY \"{by}\"");
        reader::pairs(&self.connection, &text)
    }

    pub(crate) fn position(&self, group: &str) -> Result<i64, StoreError> {
        reader::position(&self.connection, group)
    }

    pub(crate) fn seen(&self, group: &str, ids: &[&str]) -> Result<HashSet<String>, StoreError> {
        reader::seen(&self.connection, group, ids)
    }

    pub(crate) fn messages(
        &self,
        offset: i64,
        wanted: &dyn Fn(&Message) -> bool,
    ) -> Result<(Vec<StoredMessage>, i64), StoreError> {
        reader::messages(&self.connection, offset, usize::MAX, wanted)
    }

    /// The ids of all stored timers.
    pub(crate) fn timers(&self) -> Result<HashSet<String>, StoreError> {
        upgrade::names(&self.connection, "SELECT id FROM timer", ())
    }

    pub(crate) fn handled(&self, group: &str) -> Result<HashSet<String>, StoreError> {
        let text = "SELECT message_id FROM inbox WHERE consumer = ?1";
        upgrade::names(&self.connection, text, [group])
    }
}

/// Begins the transaction that all reads belong to.
fn begin(connection: Connection) -> rusqlite::Result<Connection> {
    rusqlite::vtab::array::load_module(&connection)?;
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    connection.execute_batch("BEGIN")?;
    // The first read fixes the moment that the transaction sees.
    connection.query_row("SELECT count(*) FROM consumer", (), |_| Ok(()))?;
    Ok(connection)
}

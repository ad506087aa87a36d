//! Reading connections, and every statement that reads.

use std::{
    collections::HashSet,
    path::Path,
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::Timestamp;
use parking_lot::Mutex;
use rusqlite::{
    Connection, OpenFlags,
    types::{FromSql, Value as Cell},
};
use serde_json::Value;

use super::transaction::Bound;
use crate::{
    Message, StoreError,
    log_cache::{self, StoredMessage},
    record::{Column, Key, Kind, Table},
    row::Row,
    sql::{
        Cells, Dialect, MESSAGE_COLUMNS, MESSAGES_SCANNED_MAX, TIMER_COLUMNS, columns, due_timer,
        find_query, stored_message,
    },
    store::{DueTimer, Find},
};

/// Reading connections; further reads wait for one.
const READERS: usize = 4;

pub(super) struct ReadConnections {
    connections: Vec<Mutex<Connection>>,
    next: AtomicUsize,
}

impl ReadConnections {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let connections = (0..READERS)
            .map(|_| open_reader(path).map(Mutex::new))
            .collect::<rusqlite::Result<_>>()?;
        Ok(Self {
            connections,
            next: AtomicUsize::new(0),
        })
    }

    /// Runs `read` on a free connection, or waits for the next in turn.
    pub(super) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let free =
            (0..READERS).find_map(|step| self.connections[(turn + step) % READERS].try_lock());
        let reader = free.unwrap_or_else(|| self.connections[turn % READERS].lock());
        read(&reader)
    }
}

fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    rusqlite::vtab::array::load_module(&connection)?;
    connection.pragma_update(None, "cache_size", -16_384)?;
    connection.set_prepared_statement_cache_capacity(128);
    connection.busy_timeout(std::time::Duration::from_secs(5))?;
    Ok(connection)
}

fn array<T: Into<Cell>>(values: impl Iterator<Item = T>) -> Rc<Vec<Cell>> {
    Rc::new(values.map(Into::into).collect())
}

impl From<&Key> for Cell {
    fn from(key: &Key) -> Self {
        match key {
            Key::Integer(number) => Self::Integer(*number),
            Key::Text(text) => Self::Text(text.clone()),
        }
    }
}

fn read_row(table: &'static Table, row: &rusqlite::Row<'_>) -> Result<Row, StoreError> {
    let columns = table.columns.iter().enumerate();
    let values = columns.map(|(place, column)| read_cell(column, row.get(place)?));
    Ok(Row::new(table, values.collect::<Result<_, _>>()?))
}

fn read_cell(column: &Column, cell: Cell) -> Result<Value, StoreError> {
    match (column.kind, cell) {
        (_, Cell::Null) => Ok(Value::Null),
        (Kind::Integer, Cell::Integer(number)) => Ok(number.into()),
        (Kind::Boolean, Cell::Integer(number)) => Ok((number != 0).into()),
        (Kind::Text, Cell::Text(text)) => Ok(text.into()),
        (Kind::Json, Cell::Text(text)) => {
            serde_json::from_str(&text).map_err(|error| StoreError::Corrupt(error.to_string()))
        }
        (kind, other) => Err(StoreError::Corrupt(format!(
            "the column {} holds {} and not {kind:?}",
            column.name,
            other.data_type()
        ))),
    }
}

impl Cells for rusqlite::Row<'_> {
    type Error = StoreError;

    fn integer(&self, place: usize) -> Result<i64, StoreError> {
        Ok(self.get(place)?)
    }

    fn text(&self, place: usize) -> Result<Option<String>, StoreError> {
        Ok(self.get(place)?)
    }
}

pub(super) fn load_text(table: &Table) -> String {
    format!(
        "SELECT {} FROM \"{}\" WHERE \"{}\" IN rarray(?1)",
        columns(table),
        table.name,
        table.key
    )
}

pub(super) fn load(
    connection: &Connection,
    text: &str,
    table: &'static Table,
    keys: &[Key],
) -> Result<Vec<Row>, StoreError> {
    let mut statement = connection.prepare_cached(text)?;
    let rows = statement.query_and_then([array(keys.iter())], |row| read_row(table, row))?;
    rows.collect()
}

/// The unary plus keeps SQLite from using the key's own tree.
const DIALECT: Dialect = Dialect {
    parameter: |_, number| format!("?{number}"),
    no_index: "+",
};

pub(crate) fn find(connection: &Connection, find: &Find) -> Result<Vec<Row>, StoreError> {
    find_columns(connection, find, &columns(find.table))
}

/// As [`find`], with an expression for each column.
pub(super) fn find_columns(
    connection: &Connection,
    find: &Find,
    columns: &str,
) -> Result<Vec<Row>, StoreError> {
    let (text, parameters) = find_query(find, columns, &DIALECT);
    let cells = parameters.iter().map(|(kind, value)| Bound(*kind, value));
    let cells = rusqlite::params_from_iter(cells);
    let mut statement = connection.prepare_cached(&text)?;
    let rows = statement.query_and_then(cells, |row| read_row(find.table, row))?;
    rows.collect()
}

/// The rows of a query of two columns.
pub(super) fn pairs<A: FromSql, B: FromSql>(
    connection: &Connection,
    text: &str,
) -> Result<Vec<(A, B)>, StoreError> {
    let mut statement = connection.prepare_cached(text)?;
    let pairs = statement.query_and_then((), |row| Ok((row.get(0)?, row.get(1)?)))?;
    pairs.collect()
}

pub(crate) fn count_by(
    connection: &Connection,
    table: &'static Table,
    column: &'static str,
    only: Option<&'static str>,
) -> Result<Vec<(String, i64)>, StoreError> {
    let (name, only) = (table.name, only.unwrap_or("TRUE"));
    let text = format!(
        "SELECT coalesce(CAST(\"{column}\" AS TEXT), ''), count(*) FROM \"{name}\" WHERE {only} GROUP BY \"{column}\""
    );
    pairs(connection, &text)
}

pub(super) fn max_key(connection: &Connection, table: &'static Table) -> Result<i64, StoreError> {
    let (name, key) = (table.name, table.key);
    let text = format!("SELECT coalesce(max(\"{key}\"), 0) FROM \"{name}\"");
    Ok(connection.query_row(&text, (), |row| row.get(0))?)
}

pub(crate) fn seen(
    connection: &Connection,
    group: &str,
    message_ids: &[&str],
) -> Result<HashSet<String>, StoreError> {
    let text = "SELECT message_id FROM inbox WHERE consumer = ?1 AND message_id IN rarray(?2)";
    let ids = array(message_ids.iter().map(|id| (*id).to_owned()));
    let mut statement = connection.prepare_cached(text)?;
    let rows = statement.query_and_then((group, ids), |row| Ok(row.get(0)?))?;
    rows.collect()
}

/// Timers that are due after `from`, up to `to`.
pub(crate) fn timers(
    connection: &Connection,
    (from, to): (Timestamp, Timestamp),
    limit: u32,
) -> Result<Vec<DueTimer>, StoreError> {
    let text = format!(
        "SELECT {TIMER_COLUMNS} FROM timer WHERE due_at > ?1 AND due_at <= ?2 ORDER BY due_at LIMIT ?3"
    );
    let bounds = (from.as_millis(), to.as_millis(), limit);
    let mut statement = connection.prepare_cached(&text)?;
    let timers = statement.query_and_then(bounds, |row| due_timer(row))?;
    timers.collect()
}

pub(super) fn messages(
    connection: &Connection,
    offset: i64,
    max: usize,
    wanted: &dyn Fn(&Message) -> bool,
) -> Result<(Vec<StoredMessage>, i64), StoreError> {
    let text =
        format!("SELECT {MESSAGE_COLUMNS} FROM message WHERE offset > ?1 ORDER BY offset LIMIT ?2");
    let mut statement = connection.prepare_cached(&text)?;
    let messages =
        statement.query_and_then((offset, MESSAGES_SCANNED_MAX), |row| stored_message(row))?;
    log_cache::select(messages, offset, max, wanted)
}

pub(crate) fn position(connection: &Connection, group: &str) -> Result<i64, StoreError> {
    let text = "SELECT coalesce((SELECT position FROM consumer WHERE name = ?1), 0)";
    let mut statement = connection.prepare_cached(text)?;
    Ok(statement.query_row([group], |row| row.get(0))?)
}

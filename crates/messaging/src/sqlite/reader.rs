//! Reading connections, and every statement that reads.

use std::{
    collections::HashSet,
    path::Path,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::Timestamp;
use rusqlite::{Connection, OpenFlags, types::Value as Cell};
use serde_json::Value;

use super::{read_error, transaction::Bound};
use crate::{
    Message, StoreError, TraceContext,
    log_cache::{self, StoredMessage},
    record::{Column, Key, Kind, Table},
    row::Row,
    sql::{Dialect, columns, find_query},
    store::{DueTimer, Find},
};

/// Reading connections; further reads wait for one.
const READERS: usize = 4;
/// Messages that one read of the log scans.
const MESSAGES_SCANNED_MAX: i64 = 4096;

pub(super) struct ReadConnections {
    connections: Vec<Mutex<Connection>>,
    next: AtomicUsize,
}

impl ReadConnections {
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let connections = (0..READERS)
            .map(|_| open_reader(path).map(Mutex::new))
            .collect::<rusqlite::Result<_>>()
            .map_err(|error| read_error(&error))?;
        Ok(Self {
            connections,
            next: AtomicUsize::new(0),
        })
    }

    /// Runs `read` on a free connection, or waits for the next in turn.
    pub(super) fn with<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let free =
            (0..READERS).find_map(|step| self.connections[(turn + step) % READERS].try_lock().ok());
        let reader = match free {
            Some(reader) => reader,
            None => self.connections[turn % READERS]
                .lock()
                .expect("no holder of this lock panics"),
        };
        read(&reader).map_err(|error| read_error(&error))
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

pub(super) fn read_row(table: &'static Table, row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let read = |(place, column): (usize, &Column)| read_cell(column.kind, row.get(place)?, place);
    let values = table
        .columns
        .iter()
        .enumerate()
        .map(read)
        .collect::<rusqlite::Result<_>>()?;
    Ok(Row::new(table, values))
}

fn read_cell(kind: Kind, cell: Cell, place: usize) -> rusqlite::Result<Value> {
    let wrong = |found| {
        Err(rusqlite::Error::InvalidColumnType(
            place,
            format!("{kind:?}"),
            found,
        ))
    };
    match (kind, cell) {
        (_, Cell::Null) => Ok(Value::Null),
        (Kind::Integer, Cell::Integer(number)) => Ok(number.into()),
        (Kind::Boolean, Cell::Integer(number)) => Ok((number != 0).into()),
        (Kind::Text, Cell::Text(text)) => Ok(text.into()),
        (Kind::Json, Cell::Text(text)) => serde_json::from_str(&text).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(
                place,
                rusqlite::types::Type::Text,
                Box::new(error),
            )
        }),
        (_, other) => wrong(other.data_type()),
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
) -> rusqlite::Result<Vec<Row>> {
    let mut statement = connection.prepare_cached(text)?;
    let rows = statement.query_map([array(keys.iter())], |row| read_row(table, row))?;
    rows.collect()
}

/// The unary plus keeps SQLite from using the key's own tree.
const DIALECT: Dialect = Dialect {
    parameter: |_, number| format!("?{number}"),
    no_index: "+",
};

pub(super) fn find(
    connection: &Connection,
    find: &Find,
    columns: &str,
) -> rusqlite::Result<Vec<Row>> {
    let (text, parameters) = find_query(find, columns, &DIALECT);
    let cells = parameters.iter().map(|(kind, value)| Bound(*kind, value));
    let mut statement = connection.prepare_cached(&text)?;
    let rows = statement.query_map(rusqlite::params_from_iter(cells), |row| {
        read_row(find.table, row)
    })?;
    rows.collect()
}

pub(super) fn count_by(
    connection: &Connection,
    table: &'static Table,
    column: &'static str,
    only: Option<&'static str>,
) -> rusqlite::Result<Vec<(String, i64)>> {
    let only = only.unwrap_or("TRUE");
    let text = format!(
        "SELECT coalesce(CAST(\"{column}\" AS TEXT), ''), count(*) FROM \"{}\" WHERE {only} GROUP BY \"{column}\"",
        table.name
    );
    let mut statement = connection.prepare_cached(&text)?;
    let counts = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
    counts.collect()
}

pub(super) fn max_key(connection: &Connection, table: &'static Table) -> rusqlite::Result<i64> {
    let text = format!(
        "SELECT coalesce(max(\"{}\"), 0) FROM \"{}\"",
        table.key, table.name
    );
    connection.query_row(&text, (), |row| row.get(0))
}

pub(super) fn seen(
    connection: &Connection,
    group: &str,
    message_ids: &[&str],
) -> rusqlite::Result<HashSet<String>> {
    let text = "SELECT message_id FROM inbox WHERE consumer = ?1 AND message_id IN rarray(?2)";
    let ids = array(message_ids.iter().map(|id| (*id).to_owned()));
    let mut statement = connection.prepare_cached(text)?;
    let rows = statement.query_map((group, ids), |row| row.get(0))?;
    rows.collect()
}

/// Timers that are due after `from`, up to `to`.
pub(super) fn timers(
    connection: &Connection,
    (from, to): (Timestamp, Timestamp),
    limit: u32,
) -> rusqlite::Result<Vec<DueTimer>> {
    let text = "SELECT id, due_at, message_id, topic, key, payload, reissue, trace
                FROM timer WHERE due_at > ?1 AND due_at <= ?2 ORDER BY due_at LIMIT ?3";
    let mut statement = connection.prepare_cached(text)?;
    let timers = statement.query_map((from.as_millis(), to.as_millis(), limit), |row| {
        let due_at = Timestamp::from_millis(row.get(1)?);
        let message = Message {
            id: row.get(2)?,
            topic: row.get(3)?,
            key: row.get(4)?,
            subject: None,
            time: due_at,
            payload: row.get(5)?,
            reissue: reissue(row, 6)?,
            trace: trace(row, 7)?,
        };
        Ok(DueTimer {
            id: row.get(0)?,
            due_at,
            message,
        })
    })?;
    timers.collect()
}

fn reissue(
    row: &rusqlite::Row<'_>,
    place: usize,
) -> rusqlite::Result<Option<crate::message::Reissue>> {
    let text: Option<String> = row.get(place)?;
    text.map(|text| serde_json::from_str(&text))
        .transpose()
        .map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(
                place,
                rusqlite::types::Type::Text,
                Box::new(error),
            )
        })
}

/// Ignores an invalid trace: nothing depends on it.
fn trace(row: &rusqlite::Row<'_>, place: usize) -> rusqlite::Result<Option<TraceContext>> {
    let text = row.get_ref(place)?.as_str_or_null()?;
    Ok(text.and_then(TraceContext::parse))
}

pub(super) fn messages(
    connection: &Connection,
    offset: i64,
    max: usize,
    wanted: &dyn Fn(&Message) -> bool,
) -> rusqlite::Result<(Vec<StoredMessage>, i64)> {
    let text = "SELECT offset, id, topic, key, time, payload, reissue, trace
                FROM message WHERE offset > ?1 ORDER BY offset LIMIT ?2";
    let mut statement = connection.prepare_cached(text)?;
    let messages = statement.query_map((offset, MESSAGES_SCANNED_MAX), |row| {
        let message = Message {
            id: row.get(1)?,
            topic: row.get(2)?,
            key: row.get(3)?,
            subject: None,
            time: Timestamp::from_millis(row.get(4)?),
            payload: row.get(5)?,
            reissue: reissue(row, 6)?,
            trace: trace(row, 7)?,
        };
        Ok(StoredMessage {
            offset: row.get(0)?,
            message: Arc::new(message),
        })
    })?;
    log_cache::select(messages, offset, max, wanted)
}

pub(super) fn position(connection: &Connection, group: &str) -> rusqlite::Result<i64> {
    let text = "SELECT coalesce((SELECT position FROM consumer WHERE name = ?1), 0)";
    connection
        .prepare_cached(text)?
        .query_row([group], |row| row.get(0))
}

//! The SQL that SQLite and PostgreSQL have in common: lists of columns, the query that finds rows, and the rows of the
//! store's own tables.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    Message, StoreError, Timestamp, TraceContext,
    housekeeping::RowRetention,
    log_cache::StoredMessage,
    record::{Key, Kind, Table},
    store::{DueTimer, Find},
};

/// What [`stored_message`] reads.
pub(crate) const MESSAGE_COLUMNS: &str =
    "\"offset\", id, topic, key, time, payload, reissue, trace";
/// What [`due_timer`] reads.
pub(crate) const TIMER_COLUMNS: &str =
    "id, message_id, topic, key, due_at, payload, reissue, trace";
/// Messages that one read of the log scans.
pub(crate) const MESSAGES_SCANNED_MAX: i64 = 4096;

// ---- cleaning. SQLite numbers the parameters of these texts, as PostgreSQL does, in the order in which they first stand.

/// Removes the oldest messages up to an offset.
pub(crate) const REMOVE_MESSAGES: &str = "DELETE FROM message WHERE \"offset\" IN
    (SELECT \"offset\" FROM message WHERE \"offset\" <= $1 ORDER BY \"offset\" LIMIT $2)";
/// The marks that follow one, in the order of the key, which needs no index on the time.
pub(crate) const SCAN_INBOX: &str = "SELECT consumer, message_id FROM inbox
    WHERE (consumer, message_id) > ($1, $2) ORDER BY consumer, message_id LIMIT $3";

/// Removes the old marks between two. Keeps a mark while its message may be read again: a group saw the messages that it
/// has yet to pass after the first of them was published. `pending` narrows what may be read again.
pub(crate) fn remove_marks(pending: &str) -> String {
    format!(
        "DELETE FROM inbox WHERE (consumer, message_id) > ($1, $2) AND (consumer, message_id) <= ($3, $4)
         AND seen_at < $5 AND seen_at < coalesce((SELECT time FROM message WHERE \"offset\" > coalesce(
             (SELECT position FROM consumer WHERE name = inbox.consumer), 0) AND {pending}
             ORDER BY \"offset\" LIMIT 1), $5)"
    )
}

/// Removes rows of a declared table that are older than a time.
pub(crate) fn remove_old(retention: &RowRetention) -> String {
    let (name, key) = (retention.table.name, retention.table.key);
    let (column, only) = (retention.column, retention.only.unwrap_or("TRUE"));
    format!(
        "DELETE FROM \"{name}\" WHERE \"{key}\" IN
         (SELECT \"{key}\" FROM \"{name}\" WHERE \"{column}\" < $1 AND ({only}) LIMIT $2)"
    )
}

/// What differs between the engines in a query.
pub(crate) struct Dialect {
    /// The parameter of this number as a value of a column's type.
    pub(crate) parameter: fn(Kind, usize) -> String,
    /// Stands before a column whose index must not be used.
    pub(crate) no_index: &'static str,
}

/// A parameter, with the type of the column that it is compared with.
pub(crate) type Parameter = (Kind, Value);

pub(crate) fn columns(table: &Table) -> String {
    let names = table.columns.iter().map(|it| format!("\"{}\"", it.name));
    names.collect::<Vec<_>>().join(", ")
}

/// The query of `find` with its parameters. `columns` is what it selects.
pub(crate) fn find_query(
    find: &Find,
    columns: &str,
    dialect: &Dialect,
) -> (String, Vec<Parameter>) {
    let (table, name, key) = (find.table, find.table.name, find.table.key);
    let mut parameters: Vec<Parameter> = Vec::new();
    let mut parameter = |kind, value| {
        parameters.push((kind, value));
        (dialect.parameter)(kind, parameters.len())
    };
    let mut wheres = vec!["TRUE".to_owned()];
    match &find.equals {
        None => {}
        Some((column, Value::Null)) => wheres.push(format!("\"{column}\" IS NULL")),
        Some((column, value)) => {
            let value = parameter(table.kind_of(column), value.clone());
            wheres.push(format!("\"{column}\" = {value}"));
        }
    }
    if let Some((column, from, to)) = find.within {
        for (comparison, bound) in [(">=", from), ("<", to)] {
            let bound = parameter(Kind::Text, bound.to_string().into());
            wheres.push(format!("\"{column}\" {comparison} {bound}"));
        }
    }
    wheres.extend(find.only.map(|predicate| format!("({predicate})")));
    let (beyond, order) = match find.newest_first {
        true => ("<", "DESC"),
        false => (">", "ASC"),
    };
    // A range of times is to be found by its own index, not by walking the keys.
    let no_index = find.within.map_or("", |_| dialect.no_index);
    if let Some(after) = &find.after {
        let after = match after {
            Key::Integer(number) => Value::from(*number),
            Key::Text(text) => Value::from(text.as_str()),
        };
        let after = parameter(table.kind_of(key), after);
        wheres.push(format!("{no_index}\"{key}\" {beyond} {after}"));
    }
    let wheres = wheres.join(" AND ");
    let limit = find.limit;
    let text = format!(
        "SELECT {columns} FROM \"{name}\" WHERE {wheres} ORDER BY {no_index}\"{key}\" {order} LIMIT {limit}"
    );
    (text, parameters)
}

/// One row of a result.
pub(crate) trait Cells {
    type Error: From<StoreError>;

    fn integer(&self, place: usize) -> Result<i64, Self::Error>;
    fn text(&self, place: usize) -> Result<Option<String>, Self::Error>;
}

/// A row of [`MESSAGE_COLUMNS`].
pub(crate) fn stored_message<C: Cells>(row: &C) -> Result<StoredMessage, C::Error> {
    Ok(StoredMessage {
        offset: row.integer(0)?,
        message: Arc::new(message(row)?),
    })
}

/// A row of [`TIMER_COLUMNS`].
pub(crate) fn due_timer<C: Cells>(row: &C) -> Result<DueTimer, C::Error> {
    let message = message(row)?;
    Ok(DueTimer {
        id: row.text(0)?.unwrap_or_default(),
        due_at: message.time,
        message,
    })
}

fn message<C: Cells>(row: &C) -> Result<Message, C::Error> {
    let text = |place| Ok::<_, C::Error>(row.text(place)?.unwrap_or_default());
    let reissue = row.text(6)?.map(|text| serde_json::from_str(&text));
    let reissue = reissue.transpose();
    Ok(Message {
        id: text(1)?,
        topic: text(2)?,
        key: text(3)?,
        subject: None,
        time: Timestamp::from_millis(row.integer(4)?),
        payload: text(5)?,
        reissue: reissue.map_err(|error| StoreError::Corrupt(error.to_string()))?,
        // Ignores an invalid trace: nothing depends on it.
        trace: row.text(7)?.as_deref().and_then(TraceContext::parse),
    })
}

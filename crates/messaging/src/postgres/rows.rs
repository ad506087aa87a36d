//! Rows as parameters: one JSON text for all rows of a statement.

use std::sync::Arc;

use crate::Timestamp;
use serde::{Serialize, Serializer, ser::SerializeMap};

use super::sql::EXPECTED;
use crate::{
    Message, TraceContext,
    commit::Handled,
    record::{Key, Table},
    row::Row,
};

pub(super) fn rows_json<T: Serialize + ?Sized>(rows: &T) -> String {
    serde_json::to_string(rows).expect("rows have string keys only")
}

fn reissue_text(message: &Message) -> Option<String> {
    message.reissue.as_ref().map(rows_json)
}

/// Messages as rows, numbered from this offset; without one, the sequence gives offsets.
pub(super) fn message_rows(messages: &[Arc<Message>], first: Option<i64>) -> String {
    let rows: Vec<_> = messages
        .iter()
        .zip(0_i64..)
        .map(|(message, place)| MessageRow {
            offset: first.map(|first| first + place),
            id: &message.id,
            topic: &message.topic,
            key: &message.key,
            subject: message.subject.as_deref(),
            time: message.time.as_millis(),
            payload: &message.payload,
            reissue: reissue_text(message),
            trace: message.trace,
        })
        .collect();
    rows_json(&rows)
}

/// A row of a table, with the expected version of the stored one.
pub(super) struct RowParameter<'a> {
    pub(super) row: &'a Row,
    pub(super) expected: Option<i64>,
}

impl<'a> RowParameter<'a> {
    pub(super) fn of(row: &'a Row, expected: Option<i64>) -> Self {
        Self { row, expected }
    }
}

impl Serialize for RowParameter<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (column, value) in self.row.table().columns.iter().zip(self.row.values()) {
            map.serialize_entry(column.name, value)?;
        }
        if let Some(expected) = self.expected {
            map.serialize_entry(EXPECTED, &expected)?;
        }
        map.end()
    }
}

pub(super) struct KeyParameter<'a> {
    pub(super) table: &'static Table,
    pub(super) key: &'a Key,
    pub(super) expected: Option<i64>,
}

impl Serialize for KeyParameter<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self.key {
            Key::Integer(number) => map.serialize_entry(self.table.key, number)?,
            Key::Text(text) => map.serialize_entry(self.table.key, text)?,
        }
        map.serialize_entry(EXPECTED, &self.expected)?;
        map.end()
    }
}

#[derive(Serialize)]
pub(super) struct MessageRow<'a> {
    pub(super) offset: Option<i64>,
    pub(super) id: &'a str,
    pub(super) topic: &'a str,
    pub(super) key: &'a str,
    pub(super) subject: Option<&'a str>,
    pub(super) time: i64,
    pub(super) payload: &'a str,
    pub(super) reissue: Option<String>,
    pub(super) trace: Option<TraceContext>,
}

#[derive(Serialize)]
pub(super) struct InboxRow<'a> {
    pub(super) consumer: &'a str,
    pub(super) message_id: &'a str,
    pub(super) seen_at: i64,
}

impl<'a> InboxRow<'a> {
    pub(super) fn of(handled: &'a Handled) -> Self {
        Self {
            consumer: &handled.group,
            message_id: &handled.message_id,
            seen_at: handled.at.as_millis(),
        }
    }
}

#[derive(Serialize)]
pub(super) struct TimerRow<'a> {
    pub(super) id: &'a str,
    pub(super) due_at: i64,
    pub(super) message_id: &'a str,
    pub(super) topic: &'a str,
    pub(super) key: &'a str,
    pub(super) payload: &'a str,
    pub(super) reissue: Option<String>,
    pub(super) trace: Option<TraceContext>,
}

impl<'a> TimerRow<'a> {
    pub(super) fn of(id: &'a str, due_at: Timestamp, message: &'a Message) -> Self {
        Self {
            id,
            due_at: due_at.as_millis(),
            message_id: &message.id,
            topic: &message.topic,
            key: &message.key,
            payload: &message.payload,
            reissue: reissue_text(message),
            trace: message.trace,
        }
    }
}

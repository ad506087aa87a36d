//! One transaction in the making: every statement that writes a Commit, and why one does not do what it should.

use std::sync::Arc;

use rusqlite::{
    Connection, ErrorCode, ToSql,
    types::{ToSqlOutput, Value as Cell, ValueRef},
};
use serde_json::Value;

use super::Statements;
use crate::{
    Commit, CommitError, Message, TraceContext,
    commit::{Append, Delete, Fence, Handled, Put, TimerChange},
    record::Kind,
    row::Row,
    tail::Stored,
    trace::Text,
};

pub(super) type Outcome = Result<(), CommitError>;

/// Why a statement of a commit did not do what it should.
pub(super) enum Trouble {
    /// This commit alone is at fault.
    Commit(CommitError),
    /// The transaction is lost.
    Transaction(rusqlite::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        if is_of_every_commit(&error) {
            return Self::Transaction(error);
        }
        match error.sqlite_error_code() {
            // The statement was undone by itself, and nothing is wrong with the file.
            Some(
                ErrorCode::ConstraintViolation
                | ErrorCode::TypeMismatch
                | ErrorCode::TooBig
                | ErrorCode::Unknown,
            ) => Self::Commit(CommitError::Constraint {
                detail: error.to_string(),
            }),
            _ => Self::Transaction(error),
        }
    }
}

/// Whether no commit would fare better: what a statement names is gone, or another program has taken the next offset
/// of the log.
fn is_of_every_commit(error: &rusqlite::Error) -> bool {
    let told = error.to_string();
    let is_missing = ["no such table", "no such column", "has no column named"];
    is_missing.iter().any(|it| told.contains(it)) || told.contains("failed: message.offset")
}

/// One transaction in the making.
pub(super) struct Session<'a> {
    pub(super) connection: &'a Connection,
    pub(super) statements: &'a Statements,
    pub(super) next_offset: i64,
    pub(super) published: Vec<Stored>,
}

impl Session<'_> {
    /// Applies a commit so that it can fall out alone.
    pub(super) fn apply_alone(&mut self, commit: &Commit) -> Result<Outcome, Trouble> {
        let published = self.published.len();
        let next_offset = self.next_offset;
        self.connection
            .prepare_cached("SAVEPOINT one")?
            .execute(())?;
        let outcome = match self.apply(commit) {
            Ok(()) => Ok(()),
            Err(Trouble::Commit(error)) => {
                self.connection
                    .prepare_cached("ROLLBACK TO one")?
                    .execute(())?;
                self.published.truncate(published);
                self.next_offset = next_offset;
                Err(error)
            }
            Err(lost) => return Err(lost),
        };
        self.connection.prepare_cached("RELEASE one")?.execute(())?;
        Ok(outcome)
    }

    pub(super) fn apply(&mut self, commit: &Commit) -> Result<(), Trouble> {
        for fence in &commit.fences {
            self.check_fence(fence)?;
        }
        if let Some(handled) = &commit.handled {
            self.mark_handled(handled)?;
        }
        for put in &commit.puts {
            self.put(put)?;
        }
        for delete in &commit.deletes {
            self.delete(delete)?;
        }
        for append in &commit.appends {
            self.append(append)?;
        }
        for message in &commit.messages {
            self.publish(message)?;
        }
        for timer in &commit.timers {
            self.change_timer(timer)?;
        }
        Ok(())
    }

    fn check_fence(&self, fence: &Fence) -> Result<(), Trouble> {
        let text = "SELECT count(*) FROM lease WHERE name = ?1 AND token = ?2";
        let held: i64 = self
            .connection
            .prepare_cached(text)?
            .query_row((&fence.lease, fence.token), |row| row.get(0))?;
        if held == 1 {
            Ok(())
        } else {
            Err(Trouble::Commit(CommitError::Fenced {
                lease: fence.lease.clone(),
            }))
        }
    }

    /// A message that was handled meanwhile must not be handled again.
    fn mark_handled(&self, handled: &Handled) -> Result<(), Trouble> {
        let text =
            "INSERT OR IGNORE INTO inbox (consumer, message_id, seen_at) VALUES (?1, ?2, ?3)";
        let mark = (&handled.group, &handled.message_id, handled.at.as_millis());
        match self.connection.prepare_cached(text)?.execute(mark)? {
            0 => Err(conflict("inbox", &handled.message_id)),
            _ => Ok(()),
        }
    }

    fn put(&self, put: &Put) -> Result<(), Trouble> {
        let statements = self.statements.of(put.table);
        let changed = match put.expected {
            0 => self.execute(&statements.insert, &put.row, None)?,
            expected => self.execute(&statements.update, &put.row, Some(expected))?,
        };
        if changed == 1 {
            Ok(())
        } else {
            Err(conflict(put.table.name, &put.key))
        }
    }

    /// Runs a statement whose parameters are the values of a row, and perhaps one more.
    fn execute(&self, text: &str, row: &Row, last: Option<i64>) -> rusqlite::Result<usize> {
        let mut statement = self.connection.prepare_cached(text)?;
        let columns = row.table().columns.iter().zip(row.values());
        for (place, (column, value)) in columns.enumerate() {
            statement.raw_bind_parameter(place + 1, Bound(column.kind, value))?;
        }
        if let Some(last) = last {
            statement.raw_bind_parameter(row.values().len() + 1, last)?;
        }
        statement.raw_execute()
    }

    fn delete(&self, delete: &Delete) -> Result<(), Trouble> {
        let table = delete.table;
        let text = &self.statements.of(table).delete;
        let removed = self
            .connection
            .prepare_cached(text)?
            .execute((Cell::from(&delete.key), delete.expected))?;
        match delete.expected {
            Some(_) if removed != 1 => Err(conflict(table.name, &delete.key)),
            Some(_) | None => Ok(()),
        }
    }

    /// An entry that is there already was decided by another: unique keys of entries are stable ids.
    fn append(&self, append: &Append) -> Result<(), Trouble> {
        match self.execute(&self.statements.of(append.table).insert, &append.row, None)? {
            1 => Ok(()),
            _ => Err(conflict(append.table.name, &append.row[append.table.key])),
        }
    }

    fn publish(&mut self, message: &Arc<Message>) -> Result<(), Trouble> {
        let text = "INSERT INTO message (offset, id, topic, key, time, payload, reissue, trace)
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let offset = self.next_offset;
        self.connection.prepare_cached(text)?.execute((
            offset,
            &message.id,
            &message.topic,
            &message.key,
            message.time.as_millis(),
            &message.payload,
            reissue_text(message),
            trace_text(message).as_ref().map(Text::as_str),
        ))?;
        self.next_offset += 1;
        self.published.push(Stored {
            offset,
            message: Arc::clone(message),
        });
        Ok(())
    }

    fn change_timer(&mut self, change: &TimerChange) -> Result<(), Trouble> {
        match change {
            TimerChange::Set {
                id,
                due_at,
                message,
            } => {
                let text = "INSERT INTO timer (id, due_at, message_id, topic, key, payload, reissue, trace)
                            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
                            ON CONFLICT (id) DO UPDATE SET due_at = excluded.due_at, message_id = excluded.message_id,
                            topic = excluded.topic, key = excluded.key, payload = excluded.payload,
                            reissue = excluded.reissue, trace = excluded.trace";
                self.connection.prepare_cached(text)?.execute((
                    id,
                    due_at.as_millis(),
                    &message.id,
                    &message.topic,
                    &message.key,
                    &message.payload,
                    reissue_text(message),
                    trace_text(message).as_ref().map(Text::as_str),
                ))?;
            }
            TimerChange::Cancel { id } => {
                self.connection
                    .prepare_cached("DELETE FROM timer WHERE id = ?1")?
                    .execute([id])?;
            }
            TimerChange::Fire {
                id,
                due_at,
                message_id,
                message,
            } => {
                // The time alone does not tell: a timer may be replaced by another for the same instant.
                let text = "DELETE FROM timer WHERE id = ?1 AND due_at = ?2 AND message_id = ?3";
                if self.connection.prepare_cached(text)?.execute((
                    id,
                    due_at.as_millis(),
                    message_id,
                ))? == 1
                {
                    self.publish(&Arc::new(message.clone()))?;
                }
            }
        }
        Ok(())
    }
}

fn conflict(table: &str, key: &impl std::fmt::Display) -> Trouble {
    Trouble::Commit(CommitError::Conflict {
        table: table.to_owned(),
        key: key.to_string(),
    })
}

fn reissue_text(message: &Message) -> Option<String> {
    let reissue = message.reissue.as_ref()?;
    Some(serde_json::to_string(reissue).expect("a reissue has string keys only"))
}

fn trace_text(message: &Message) -> Option<Text> {
    message.trace.map(TraceContext::text)
}

/// A value on its way into a column, without a copy where it is a text.
struct Bound<'a>(Kind, &'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match (self.0, self.1) {
            (_, Value::Null) => ToSqlOutput::Owned(Cell::Null),
            (Kind::Json, value) => ToSqlOutput::Owned(Cell::Text(value.to_string())),
            (_, Value::Bool(yes)) => ToSqlOutput::Owned(Cell::Integer(i64::from(*yes))),
            (_, Value::Number(number)) => ToSqlOutput::Owned(match number.as_i64() {
                Some(whole) => Cell::Integer(whole),
                // The column refuses it.
                None => Cell::Text(number.to_string()),
            }),
            (_, Value::String(text)) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            (_, value @ (Value::Array(_) | Value::Object(_))) => {
                ToSqlOutput::Owned(Cell::Text(value.to_string()))
            }
        })
    }
}

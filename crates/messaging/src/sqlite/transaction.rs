//! An open transaction: every statement that writes a Commit, and why one fails.

use std::sync::Arc;

use rusqlite::{
    Connection, ErrorCode, ToSql,
    types::{ToSqlOutput, Value as Cell, ValueRef},
};
use serde_json::Value;

use super::SqlTexts;
use crate::{
    Commit, CommitError, CommitOutcome, Message,
    commit::{Delete, Fence, Handled, Put, TimerChange},
    log_cache::StoredMessage,
    record::Kind,
    row::Row,
};

/// Why a statement of a commit failed.
pub(super) enum ApplyError {
    /// The commit is rejected; the transaction can go on.
    Commit(CommitError),
    /// The transaction cannot be committed.
    Transaction(rusqlite::Error),
}

impl From<rusqlite::Error> for ApplyError {
    fn from(error: rusqlite::Error) -> Self {
        if concerns_every_commit(&error) {
            return Self::Transaction(error);
        }
        match error.sqlite_error_code() {
            // SQLite has undone the statement, and the file is intact.
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

/// Whether every commit would fail: a table or column is missing, or another program has taken the next offset of the
/// log.
fn concerns_every_commit(error: &rusqlite::Error) -> bool {
    let text = error.to_string();
    let is_missing = ["no such table", "no such column", "has no column named"];
    is_missing.iter().any(|it| text.contains(it)) || text.contains("failed: message.offset")
}

pub(super) struct OpenTransaction<'a> {
    pub(super) connection: &'a Connection,
    pub(super) texts: &'a SqlTexts,
    pub(super) next_offset: i64,
    pub(super) published: Vec<StoredMessage>,
}

impl OpenTransaction<'_> {
    /// Applies a commit under a savepoint, so that it can be rejected alone.
    pub(super) fn apply_alone(&mut self, commit: &Commit) -> Result<CommitOutcome, ApplyError> {
        let published = self.published.len();
        let next_offset = self.next_offset;
        self.connection
            .prepare_cached("SAVEPOINT one")?
            .execute(())?;
        let outcome = match self.apply(commit) {
            Ok(()) => Ok(()),
            Err(ApplyError::Commit(error)) => {
                self.connection
                    .prepare_cached("ROLLBACK TO one")?
                    .execute(())?;
                self.published.truncate(published);
                self.next_offset = next_offset;
                Err(error)
            }
            Err(error) => return Err(error),
        };
        self.connection.prepare_cached("RELEASE one")?.execute(())?;
        Ok(outcome)
    }

    pub(super) fn apply(&mut self, commit: &Commit) -> Result<(), ApplyError> {
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
        // Keys of entries are stable ids: an entry that exists is one that another writer has decided on.
        for append in &commit.appends {
            self.put(append)?;
        }
        for message in &commit.messages {
            self.publish(message)?;
        }
        for timer in &commit.timers {
            self.change_timer(timer)?;
        }
        Ok(())
    }

    fn check_fence(&self, fence: &Fence) -> Result<(), ApplyError> {
        let text = "SELECT count(*) FROM lease WHERE name = ?1 AND token = ?2";
        let held: i64 = self
            .connection
            .prepare_cached(text)?
            .query_row((&fence.lease, fence.token), |row| row.get(0))?;
        if held == 1 {
            Ok(())
        } else {
            Err(ApplyError::Commit(CommitError::Fenced {
                lease: fence.lease.clone(),
            }))
        }
    }

    /// Conflicts if the message was handled meanwhile.
    fn mark_handled(&self, handled: &Handled) -> Result<(), ApplyError> {
        let text =
            "INSERT OR IGNORE INTO inbox (consumer, message_id, seen_at) VALUES (?1, ?2, ?3)";
        let mark = (&handled.group, &handled.message_id, handled.at.as_millis());
        match self.connection.prepare_cached(text)?.execute(mark)? {
            0 => Err(conflict("inbox", &handled.message_id)),
            _ => Ok(()),
        }
    }

    fn put(&self, put: &Put) -> Result<(), ApplyError> {
        let texts = self.texts.of(put.table);
        let changed = match put.expected {
            0 => self.execute(&texts.insert, &put.row, None)?,
            expected => self.execute(&texts.update, &put.row, Some(expected))?,
        };
        if changed == 1 {
            Ok(())
        } else {
            Err(conflict(put.table.name, &put.key))
        }
    }

    /// Runs a statement whose parameters are the values of a row, and optionally one more.
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

    fn delete(&self, delete: &Delete) -> Result<(), ApplyError> {
        let table = delete.table;
        let text = &self.texts.of(table).delete;
        let removed = self
            .connection
            .prepare_cached(text)?
            .execute((Cell::from(&delete.key), delete.expected))?;
        match delete.expected {
            Some(_) if removed != 1 => Err(conflict(table.name, &delete.key)),
            Some(_) | None => Ok(()),
        }
    }

    fn publish(&mut self, message: &Arc<Message>) -> Result<(), ApplyError> {
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
            message.trace.map(|trace| trace.to_string()),
        ))?;
        self.next_offset += 1;
        self.published.push(StoredMessage {
            offset,
            message: Arc::clone(message),
        });
        Ok(())
    }

    fn change_timer(&mut self, change: &TimerChange) -> Result<(), ApplyError> {
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
                    message.trace.map(|trace| trace.to_string()),
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
                // The due time alone does not identify a timer: another may have replaced it for the same time.
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

fn conflict(table: &str, key: &impl std::fmt::Display) -> ApplyError {
    ApplyError::Commit(CommitError::Conflict {
        table: table.to_owned(),
        key: key.to_string(),
    })
}

fn reissue_text(message: &Message) -> Option<String> {
    let reissue = message.reissue.as_ref()?;
    Some(serde_json::to_string(reissue).expect("a reissue has string keys only"))
}

/// A value as a parameter of a column; a text is not copied.
pub(super) struct Bound<'a>(pub(super) Kind, pub(super) &'a Value);

impl ToSql for Bound<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match (self.0, self.1) {
            (_, Value::Null) => ToSqlOutput::Owned(Cell::Null),
            (Kind::Json, value) => ToSqlOutput::Owned(Cell::Text(value.to_string())),
            (_, Value::Bool(yes)) => ToSqlOutput::Owned(Cell::Integer(i64::from(*yes))),
            (_, Value::Number(number)) => ToSqlOutput::Owned(match number.as_i64() {
                Some(whole) => Cell::Integer(whole),
                // The column rejects it.
                None => Cell::Text(number.to_string()),
            }),
            (_, Value::String(text)) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            (_, value @ (Value::Array(_) | Value::Object(_))) => {
                ToSqlOutput::Owned(Cell::Text(value.to_string()))
            }
        })
    }
}

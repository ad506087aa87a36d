//! Every statement that reads, for the pool and for the audit.

use std::collections::HashSet;

use crate::Timestamp;
use serde_json::Value;
use tokio_postgres::{
    Client, Error, Statement,
    types::{FromSqlOwned, ToSql},
};

use super::{connect::unavailable, sql::DIALECT};
use crate::{
    StoreError,
    log_cache::StoredMessage,
    record::{Column, Key, Kind, Table},
    row::Row,
    sql::{
        Cells, MESSAGE_COLUMNS, MESSAGES_SCANNED_MAX, Parameter, TIMER_COLUMNS, columns, due_timer,
        find_query, stored_message,
    },
    store::{DueTimer, Find},
};

/// A connection that reads.
pub(super) enum Reader {
    Pooled(deadpool_postgres::Object),
    /// Prepares a statement each time.
    Plain(Client),
}

/// Why a read failed.
pub(crate) enum ReadError {
    Server(Error),
    Store(StoreError),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ReadError> for StoreError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error,
            ReadError::Server(error) => unavailable(&error),
        }
    }
}

type ResultRows = Vec<tokio_postgres::Row>;

impl Reader {
    pub(super) async fn query(
        &self,
        text: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<ResultRows, Error> {
        let statement: Statement = match self {
            Self::Pooled(client) => client.prepare_cached(text).await?,
            Self::Plain(client) => client.prepare(text).await?,
        };
        self.client().query(&statement, parameters).await
    }

    pub(super) fn client(&self) -> &Client {
        match self {
            Self::Pooled(client) => client,
            Self::Plain(client) => client,
        }
    }

    pub(super) async fn load(
        &self,
        text: &str,
        table: &'static Table,
        keys: &[Key],
    ) -> Result<Vec<Row>, ReadError> {
        let results = if table.is_keyed_by_text() {
            let keys: Vec<String> = keys.iter().map(Key::to_string).collect();
            self.query(text, &[&keys]).await?
        } else {
            let number = |key: &Key| match key {
                Key::Integer(number) => Some(*number),
                Key::Text(_) => None,
            };
            let keys: Vec<i64> = keys.iter().filter_map(number).collect();
            self.query(text, &[&keys]).await?
        };
        rows(table, &results)
    }

    pub(super) async fn find(&self, find: &Find) -> Result<Vec<Row>, ReadError> {
        let (text, parameters) = find_query(find, &columns(find.table), &DIALECT);
        let parameters: Vec<String> = parameters.into_iter().map(parameter_text).collect();
        let parameters: Vec<&(dyn ToSql + Sync)> = parameters
            .iter()
            .map(|it| it as &(dyn ToSql + Sync))
            .collect();
        rows(find.table, &self.query(&text, &parameters).await?)
    }

    pub(super) async fn seen(
        &self,
        group: &str,
        message_ids: &[&str],
    ) -> Result<HashSet<String>, ReadError> {
        // One index lookup for each id: without statistics of the table the server may plan `= ANY` as a scan of all
        // marks of the consumer.
        let text = "SELECT given.id FROM unnest($2::text[]) AS given(id) CROSS JOIN LATERAL
                    (SELECT 1 FROM inbox WHERE consumer = $1 AND message_id = given.id LIMIT 1) AS found";
        let results = self.query(text, &[&group, &message_ids]).await?;
        Ok(results.iter().map(|row| row.get(0)).collect())
    }

    /// Timers that are due after `from`, up to `to`.
    pub(super) async fn timers(
        &self,
        (from, to): (Timestamp, Timestamp),
        limit: u32,
    ) -> Result<Vec<DueTimer>, ReadError> {
        let text = format!(
            "SELECT {TIMER_COLUMNS} FROM timer WHERE due_at > $1 AND due_at <= $2 ORDER BY due_at LIMIT $3"
        );
        let (from, to, limit) = (from.as_millis(), to.as_millis(), i64::from(limit));
        let results = self.query(&text, &[&from, &to, &limit]).await?;
        results.iter().map(due_timer).collect()
    }

    /// Messages after an offset, as many as one read scans.
    pub(super) async fn messages(&self, offset: i64) -> Result<Vec<StoredMessage>, ReadError> {
        self.messages_up_to(offset, MESSAGES_SCANNED_MAX).await
    }

    pub(super) async fn messages_up_to(
        &self,
        offset: i64,
        limit: i64,
    ) -> Result<Vec<StoredMessage>, ReadError> {
        let text = format!(
            "SELECT {MESSAGE_COLUMNS} FROM message WHERE \"offset\" > $1 ORDER BY \"offset\" LIMIT $2"
        );
        let results = self.query(&text, &[&offset, &limit]).await?;
        results.iter().map(stored_message).collect()
    }

    /// Messages of an outbox that are neither parked nor of one of these topics.
    #[cfg(feature = "kafka")]
    pub(super) async fn publishable(
        &self,
        without: &[String],
        limit: i64,
    ) -> Result<Vec<StoredMessage>, ReadError> {
        let text = format!(
            "SELECT {MESSAGE_COLUMNS} FROM message WHERE \"offset\" > 0 AND parked IS NULL AND topic <> ALL($1)
             ORDER BY \"offset\" LIMIT $2"
        );
        let results = self.query(&text, &[&without, &limit]).await?;
        results.iter().map(stored_message).collect()
    }

    /// The first message of each parked subject whose dead letter is not parked any more, with that dead letter.
    #[cfg(feature = "kafka")]
    pub(super) async fn unparked(&self, limit: i64) -> Result<Vec<Unparked>, ReadError> {
        let columns: Vec<_> = MESSAGE_COLUMNS
            .split(", ")
            .map(|name| format!("m.{name}"))
            .collect();
        let text = format!(
            "SELECT DISTINCT ON (m.parked) {}, m.parked FROM message m
             LEFT JOIN dead_letter d ON d.id = m.parked COLLATE \"C\"
             WHERE m.parked IS NOT NULL AND coalesce(d.state, '') <> 'PARKED' ORDER BY m.parked, m.\"offset\" LIMIT $1",
            columns.join(", ")
        );
        let results = self.query(&text, &[&limit]).await?;
        let read = |row: &tokio_postgres::Row| {
            Ok(Unparked {
                stored: stored_message(row)?,
                dead_letter: row.get(8),
            })
        };
        results.iter().map(read).collect()
    }
}

/// A parked message whose dead letter is not parked any more, or is deleted.
#[cfg(feature = "kafka")]
pub(crate) struct Unparked {
    pub(crate) stored: StoredMessage,
    pub(crate) dead_letter: String,
}

impl Cells for tokio_postgres::Row {
    type Error = ReadError;

    fn integer(&self, place: usize) -> Result<i64, ReadError> {
        Ok(self.try_get(place)?)
    }

    fn text(&self, place: usize) -> Result<Option<String>, ReadError> {
        Ok(self.try_get(place)?)
    }
}

fn parameter_text((kind, value): Parameter) -> String {
    match value {
        Value::String(text) if kind != Kind::Json => text,
        other => other.to_string(),
    }
}

fn rows(table: &'static Table, results: &[tokio_postgres::Row]) -> Result<Vec<Row>, ReadError> {
    let read = |result: &tokio_postgres::Row| {
        let values = table
            .columns
            .iter()
            .enumerate()
            .map(|(place, column)| cell(column, result, place))
            .collect::<Result<_, Error>>()?;
        Ok(Row::new(table, values))
    };
    results.iter().map(read).collect()
}

fn cell(column: &Column, row: &tokio_postgres::Row, place: usize) -> Result<Value, Error> {
    fn value<T: FromSqlOwned + Into<Value>>(
        row: &tokio_postgres::Row,
        place: usize,
    ) -> Result<Value, Error> {
        Ok(row
            .try_get::<_, Option<T>>(place)?
            .map_or(Value::Null, Into::into))
    }
    match column.kind {
        Kind::Integer => value::<i64>(row, place),
        Kind::Text => value::<String>(row, place),
        Kind::Boolean => value::<bool>(row, place),
        Kind::Json => value::<Value>(row, place),
    }
}

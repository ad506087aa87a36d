//! The writer's row: its epoch and its last batch. The log has one row, and an advisory lock of the writer's session
//! that keeps a second process out. On a server without such locks the epoch does: the process that opened the log last
//! takes it over, and the earlier one is fenced. A process that only adds to an outbox has a row of its own.

use std::{collections::HashMap, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_postgres::types::ToSql;

use super::{
    MessageTable, SharedState,
    writer_connection::{TxError, WriterConnection, in_time},
};
use crate::{Program, Random, StoreError};

/// How long the session of a process that has just ended may still hold the log.
const LOCK_MILLIS_MAX: u64 = 2_000;
const LOCK_PAUSE_MILLIS: u64 = 25;
const LOG: &str = "log";

#[derive(Default)]
pub(super) struct WriterRegistration {
    pub(super) name: String,
    pub(super) epoch: i64,
    /// The number of the last batch that the writer began.
    pub(super) batch: i64,
    is_log: bool,
    program: Program,
}

/// Locks the log, or inserts the row of an outbox writer.
pub(super) async fn register_writer(
    connection: &WriterConnection,
    messages: MessageTable,
    program: Program,
    random: &Random,
) -> Result<WriterRegistration, StoreError> {
    let is_log = messages == MessageTable::Log;
    let name = match messages {
        MessageTable::Log => LOG.to_owned(),
        MessageTable::Outbox => random.uuid(crate::Clock::System.now()).to_string(),
    };
    let mut registration = WriterRegistration {
        name,
        epoch: 0,
        batch: 0,
        is_log,
        program,
    };
    if is_log {
        let until = Instant::now() + Duration::from_millis(LOCK_MILLIS_MAX);
        while !registration.lock_log(connection).await? {
            if Instant::now() >= until {
                return Err(StoreError::Unavailable(
                    "another process has the message log of this schema open".to_owned(),
                ));
            }
            sleep(Duration::from_millis(LOCK_PAUSE_MILLIS)).await;
        }
    }
    (registration.epoch, registration.batch) = registration.write_row(connection, 1).await?;
    Ok(registration)
}

/// Moves the offset sequence past rows that it did not number: a restored table, or another program's rows. The lock
/// keeps writers out meanwhile, because the sequence must never go back.
async fn advance_offset_sequence(connection: &WriterConnection) -> Result<(), TxError> {
    let text = "SELECT coalesce(max(\"offset\"), 0) > (SELECT last_value FROM message_offset) FROM message";
    let row = in_time(connection.client().query_one(text, &[])).await?;
    if !row.get::<_, bool>(0) {
        return Ok(());
    }
    tracing::warn!(
        "the message table has offsets that its sequence did not give; the sequence skips them"
    );
    let text = "BEGIN; LOCK TABLE message IN SHARE ROW EXCLUSIVE MODE;
                SELECT setval('message_offset', greatest((SELECT max(\"offset\") FROM message),
                (SELECT last_value FROM message_offset))); COMMIT";
    connection.run(text).await
}

impl WriterRegistration {
    async fn lock_log(&self, connection: &WriterConnection) -> Result<bool, TxError> {
        let text =
            "SELECT pg_try_advisory_lock(hashtext($1 || ' log'), hashtext(current_schema()))";
        let row = in_time(connection.client().query_one(text, &[&self.program.name])).await?;
        Ok(row.get(0))
    }

    /// Returns epoch and last batch; waits for a transaction of this writer that still holds the row.
    async fn write_row(
        &self,
        connection: &WriterConnection,
        epochs: i64,
    ) -> Result<(i64, i64), TxError> {
        let text = "INSERT INTO writer (name, epoch, batch) VALUES ($1, $2, $3)
                    ON CONFLICT (name) DO UPDATE SET epoch = writer.epoch + $4, seen_at = now()
                    RETURNING epoch, batch";
        let epoch = self.epoch.max(1);
        // A row that cleanup removed is restored as if this batch had not been written.
        let batch = (self.batch - 1).max(0);
        let given: [&(dyn ToSql + Sync); 4] = [&self.name, &epoch, &batch, &epochs];
        let row = in_time(connection.client().query_one(text, &given)).await?;
        Ok((row.get(0), row.get(1)))
    }

    /// Registers again after a lost connection; returns the last batch that was committed.
    pub(super) async fn resume(&self, connection: &WriterConnection) -> Result<i64, TxError> {
        if self.is_log && !self.lock_log(connection).await? {
            return Err(TxError::ConnectionLost(
                "the lost session still holds the log".to_owned(),
            ));
        }
        let (epoch, batch) = self.write_row(connection, 0).await?;
        if epoch != self.epoch {
            return Err(TxError::Fenced);
        }
        Ok(batch)
    }

    /// The last offset of the log; passes the positions of its groups to `shared`. An outbox has none: 0.
    pub(super) async fn head(
        &self,
        connection: &WriterConnection,
        shared: &SharedState,
    ) -> Result<i64, TxError> {
        if !self.is_log {
            advance_offset_sequence(connection).await?;
            return Ok(0);
        }
        let client = connection.client();
        let rows = in_time(client.query("SELECT name, position FROM consumer", &[])).await?;
        let positions: HashMap<String, i64> =
            rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let text = "SELECT coalesce(max(\"offset\"), 0) FROM message";
        let last: i64 = in_time(client.query_one(text, &[])).await?.get(0);
        // Cleanup removes only messages before a position, so that positions cover offsets that the log no longer holds.
        let head = positions.values().copied().fold(last, i64::max);
        shared.set_positions(positions);
        Ok(head)
    }

    /// Lets the next process register at once.
    pub(super) async fn release(&self, connection: &WriterConnection) {
        let (text, parameters): (_, &[&(dyn ToSql + Sync)]) = match self.is_log {
            true => (
                "SELECT pg_advisory_unlock(hashtext($1 || ' log'), hashtext(current_schema()))",
                &[&self.program.name],
            ),
            false => ("DELETE FROM writer WHERE name = $1", &[&self.name]),
        };
        let released = in_time(connection.client().execute(text, parameters)).await;
        if released.is_err() {
            tracing::warn!(
                "cannot release the writer's registration; the server releases it when the session ends"
            );
        }
    }
}

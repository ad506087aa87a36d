//! The writer's row: who writes, since when, and which batch came last. The log has one row, and an advisory lock,
//! held by the writer's session, that keeps a second process out; where the server has no such locks, the epoch in
//! the row does: whoever opens the log later takes it over, and the earlier one cannot write any more. A process
//! that only adds to an outbox has a row of its own.

use std::{collections::HashMap, time::Duration};

use tokio::time::{Instant, sleep};
use tokio_postgres::types::ToSql;

use super::{
    MessageTable, Shared,
    link::{Link, Trouble, in_time},
};
use crate::{Random, StoreError};

/// How long a process that has just ended may still hold the log.
const LOCK_MILLIS_MAX: u64 = 2_000;
const LOCK_PAUSE_MILLIS: u64 = 25;
const LOG: &str = "log";

#[derive(Default)]
pub(super) struct Registered {
    pub(super) name: String,
    pub(super) epoch: i64,
    /// The last batch that was begun.
    pub(super) batch: i64,
    is_log: bool,
}

/// Takes the log, or announces a writer of the outbox.
pub(super) async fn register(
    link: &Link,
    messages: MessageTable,
    random: &Random,
) -> Result<Registered, StoreError> {
    let is_log = messages == MessageTable::Log;
    let name = match messages {
        MessageTable::Log => LOG.to_owned(),
        MessageTable::Outbox => random.uuid(crate::Clock::System.now()).to_string(),
    };
    let mut registered = Registered {
        name,
        epoch: 0,
        batch: 0,
        is_log,
    };
    if is_log {
        let until = Instant::now() + Duration::from_millis(LOCK_MILLIS_MAX);
        while !lock(link).await.map_err(unavailable)? {
            if Instant::now() >= until {
                return Err(StoreError::Unavailable(
                    "another process has the message log of this schema open".to_owned(),
                ));
            }
            sleep(Duration::from_millis(LOCK_PAUSE_MILLIS)).await;
        }
    }
    (registered.epoch, registered.batch) = registered.enter(link, 1).await.map_err(unavailable)?;
    Ok(registered)
}

fn unavailable(trouble: Trouble) -> StoreError {
    StoreError::Unavailable(match trouble {
        Trouble::Lost(reason)
        | Trouble::Collision(reason)
        | Trouble::Broken(reason)
        | Trouble::Unfit(reason)
        | Trouble::Foreign(reason) => reason,
        Trouble::Otherwise | Trouble::Fenced => "the writer cannot be registered".to_owned(),
    })
}

async fn lock(link: &Link) -> Result<bool, Trouble> {
    let text = "SELECT pg_try_advisory_lock(hashtext('boxoffice log'), hashtext(current_schema()))";
    let row = in_time(link.client().query_one(text, &[])).await?;
    Ok(row.get(0))
}

/// Moves the sequence of offsets past rows that were not numbered by it: a restored table, or another program's rows.
/// Whoever takes an offset is kept out meanwhile: the sequence must never go back.
async fn pass_taken_offsets(link: &Link) -> Result<(), Trouble> {
    let text = "SELECT coalesce(max(\"offset\"), 0) > (SELECT last_value FROM message_offset) FROM message";
    let row = in_time(link.client().query_one(text, &[])).await?;
    if !row.get::<_, bool>(0) {
        return Ok(());
    }
    tracing::warn!(
        "the messages have offsets that were not given by this program; they are passed"
    );
    let text = "BEGIN; LOCK TABLE message IN SHARE ROW EXCLUSIVE MODE;
                SELECT setval('message_offset', greatest((SELECT max(\"offset\") FROM message),
                (SELECT last_value FROM message_offset))); COMMIT";
    link.run(text).await
}

impl Registered {
    /// Epoch and last batch, once no other transaction of this writer is under way.
    async fn enter(&self, link: &Link, epochs: i64) -> Result<(i64, i64), Trouble> {
        let text = "INSERT INTO writer (name, epoch, batch) VALUES ($1, $2, $3)
                    ON CONFLICT (name) DO UPDATE SET epoch = writer.epoch + $4, seen_at = now()
                    RETURNING epoch, batch";
        let epoch = self.epoch.max(1);
        // A row that was cleaned away is as it would be had this batch never been written.
        let batch = (self.batch - 1).max(0);
        let given: [&(dyn ToSql + Sync); 4] = [&self.name, &epoch, &batch, &epochs];
        let row = in_time(link.client().query_one(text, &given)).await?;
        Ok((row.get(0), row.get(1)))
    }

    /// Registers again after a connection was lost; returns the last batch that was committed.
    pub(super) async fn come_back(&self, link: &Link) -> Result<i64, Trouble> {
        if self.is_log && !lock(link).await? {
            return Err(Trouble::Lost(
                "the session that was lost still holds the log".to_owned(),
            ));
        }
        let (epoch, batch) = self.enter(link, 0).await?;
        if epoch != self.epoch {
            return Err(Trouble::Fenced);
        }
        Ok(batch)
    }

    /// The last offset that was given, and how far each group has come; of an outbox, nothing.
    pub(super) async fn head(&self, link: &Link, shared: &Shared) -> Result<i64, Trouble> {
        if !self.is_log {
            pass_taken_offsets(link).await?;
            return Ok(0);
        }
        let client = link.client();
        let rows = in_time(client.query("SELECT name, position FROM consumer", &[])).await?;
        let positions: HashMap<String, i64> =
            rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let text = "SELECT coalesce(max(\"offset\"), 0) FROM message";
        let last: i64 = in_time(client.query_one(text, &[])).await?.get(0);
        // Messages are removed only once a position has passed them, so the positions remember what the log does not.
        let head = positions.values().copied().fold(last, i64::max);
        shared.start_with(positions);
        Ok(head)
    }

    /// Makes room for the next process.
    pub(super) async fn leave(&self, link: &Link) {
        let left = if self.is_log {
            let text =
                "SELECT pg_advisory_unlock(hashtext('boxoffice log'), hashtext(current_schema()))";
            in_time(link.client().query(text, &[])).await.map(|_| ())
        } else {
            let text = "DELETE FROM writer WHERE name = $1";
            in_time(link.client().execute(text, &[&self.name]))
                .await
                .map(|_| ())
        };
        if left.is_err() {
            tracing::warn!("the writer could not sign off; its session ends by itself");
        }
    }
}

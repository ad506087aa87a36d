//! Cleanup in bounded pieces: messages that every group has handled, and old rows. The rules are those of the embedded
//! store. Runs on a reading connection, so that it does not delay the writer.

use crate::Timestamp;

use super::reader::{ReadError, Reader};
use crate::housekeeping::{Cleaned, Expiry};

/// Where the scan of the inbox continues: consumer and message id.
pub(super) type InboxCursor = (String, String);

/// Removes messages up to an offset that every group has passed.
pub(super) async fn messages(
    reader: &Reader,
    passed: i64,
    rows_max: u32,
) -> Result<u64, ReadError> {
    let text = "DELETE FROM message WHERE \"offset\" IN
                (SELECT \"offset\" FROM message WHERE \"offset\" <= $1 ORDER BY \"offset\" LIMIT $2)";
    Ok(reader
        .client()
        .execute(text, &[&passed, &i64::from(rows_max)])
        .await?)
}

/// Scans the inbox in the order of its key and removes old marks. Keeps a mark while its message may be read again; a
/// message that is parked in an outbox was never on the bus.
pub(super) async fn inbox(
    reader: &Reader,
    before: Timestamp,
    rows_max: u32,
    cursor: &InboxCursor,
) -> Result<(Cleaned, InboxCursor), ReadError> {
    let text = "SELECT consumer, message_id FROM inbox WHERE (consumer, message_id) > ($1, $2)
                ORDER BY consumer, message_id LIMIT $3";
    let scanned = reader
        .query(text, &[&cursor.0, &cursor.1, &i64::from(rows_max)])
        .await?;
    let mut cleaned = Cleaned::scanned(scanned.len(), rows_max);
    let Some(last) = scanned.last() else {
        return Ok((cleaned, InboxCursor::default()));
    };
    let last: InboxCursor = (last.get(0), last.get(1));
    let text = "DELETE FROM inbox WHERE (consumer, message_id) > ($1, $2)
                AND (consumer, message_id) <= ($3, $4) AND seen_at < $5
                AND seen_at < coalesce((SELECT time FROM message WHERE \"offset\" > coalesce(
                    (SELECT position FROM consumer WHERE name = inbox.consumer), 0) AND parked IS NULL
                    ORDER BY \"offset\" LIMIT 1), $5)";
    let millis = before.as_millis();
    cleaned.removed = reader
        .client()
        .execute(text, &[&cursor.0, &cursor.1, &last.0, &last.1, &millis])
        .await?;
    let cursor = if cleaned.is_round {
        InboxCursor::default()
    } else {
        last
    };
    Ok((cleaned, cursor))
}

/// Removes old rows of a declared table.
pub(super) async fn expired(
    reader: &Reader,
    expiry: &Expiry,
    before: Timestamp,
    rows_max: u32,
) -> Result<u64, ReadError> {
    let Expiry {
        table,
        column,
        only,
        ..
    } = expiry;
    let (name, key, only) = (table.name, table.key, only.unwrap_or("TRUE"));
    let text = format!(
        "DELETE FROM \"{name}\" WHERE \"{key}\" IN
         (SELECT \"{key}\" FROM \"{name}\" WHERE \"{column}\" < $1 AND ({only}) LIMIT $2)"
    );
    let before = before.to_string();
    Ok(reader
        .client()
        .execute(&text, &[&before, &i64::from(rows_max)])
        .await?)
}

/// Removes the rows of outbox writers that ended long ago without releasing them.
pub(super) async fn writers(reader: &Reader) -> Result<u64, ReadError> {
    let text = "DELETE FROM writer WHERE name <> 'log' AND seen_at < now() - interval '30 days'";
    Ok(reader.client().execute(text, &[]).await?)
}

//! Cleanup in bounded pieces: messages that every group has handled, and old rows. The rules are those of the embedded
//! store. Runs on a reading connection, so that it does not delay the writer.

use crate::Timestamp;

use super::reader::{ReadError, Reader};
use crate::{
    housekeeping::{Cleaned, InboxCursor, PIECE_ROWS_MAX},
    sql,
};

/// Removes messages up to an offset that every group has passed.
pub(super) async fn messages(reader: &Reader, passed: i64) -> Result<u64, ReadError> {
    let remove = reader.client();
    Ok(remove
        .execute(sql::REMOVE_MESSAGES, &[&passed, &PIECE_ROWS_MAX])
        .await?)
}

/// Scans a piece of the inbox, and removes its old marks. A message that is parked in an outbox was never on the bus.
pub(super) async fn inbox(
    reader: &Reader,
    before: Timestamp,
    from: &InboxCursor,
) -> Result<(Cleaned, InboxCursor), ReadError> {
    let marks = reader
        .query(sql::SCAN_INBOX, &[&from.0, &from.1, &PIECE_ROWS_MAX])
        .await?;
    let marks = marks.iter().map(|row| (row.get(0), row.get(1)));
    let marks: Vec<InboxCursor> = marks.collect();
    let (cleaned, next) = Cleaned::scanned(&marks);
    let Some(to) = marks.last() else {
        return Ok((cleaned, next));
    };
    let text = sql::remove_marks("parked IS NULL");
    let millis = before.as_millis();
    let removed = reader
        .client()
        .execute(&text, &[&from.0, &from.1, &to.0, &to.1, &millis])
        .await?;
    Ok((cleaned.and_removed(removed), next))
}

/// Removes the rows of outbox writers that ended long ago without releasing them.
pub(super) async fn writers(reader: &Reader) -> Result<u64, ReadError> {
    let text = "DELETE FROM writer WHERE name <> 'log' AND seen_at < now() - interval '30 days'";
    Ok(reader.client().execute(text, &[]).await?)
}

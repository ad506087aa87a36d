//! Cleanup in bounded pieces: messages that every group has handled, and old rows.

use crate::Timestamp;
use rusqlite::Connection;

use crate::housekeeping::{Cleaned, Expiry};

/// Where the scan of the inbox continues: consumer and message id.
pub(super) type InboxCursor = (String, String);

/// Removes messages that every group has passed; without groups, none.
pub(super) fn messages(
    connection: &Connection,
    groups: &[&'static str],
    rows_max: u32,
) -> rusqlite::Result<u64> {
    let mut passed = None;
    for group in groups {
        let position = super::reader::position(connection, group)?;
        passed = Some(passed.unwrap_or(position).min(position));
    }
    let text = "DELETE FROM message WHERE offset IN (SELECT offset FROM message WHERE offset <= ?1 ORDER BY offset LIMIT ?2)";
    let bounds = (passed.unwrap_or(0), rows_max);
    Ok(connection.prepare_cached(text)?.execute(bounds)? as u64)
}

/// Scans a piece of the inbox in the order of its key, which needs no index on the time, and removes old marks. Keeps a
/// mark while its message may be read again: a group saw the messages that it has yet to pass after the first of them
/// was published.
pub(super) fn inbox(
    connection: &Connection,
    before: Timestamp,
    rows_max: u32,
    cursor: &mut InboxCursor,
) -> rusqlite::Result<Cleaned> {
    let text = "SELECT consumer, message_id FROM inbox
                WHERE (consumer, message_id) > (?1, ?2) ORDER BY consumer, message_id LIMIT ?3";
    let scanned: Vec<InboxCursor> = connection
        .prepare_cached(text)?
        .query_map((&cursor.0, &cursor.1, rows_max), |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<rusqlite::Result<_>>()?;
    let mut cleaned = Cleaned::scanned(scanned.len(), rows_max);
    let Some(last) = scanned.into_iter().last() else {
        *cursor = InboxCursor::default();
        return Ok(cleaned);
    };
    let text = "DELETE FROM inbox WHERE (consumer, message_id) > (?1, ?2)
                AND (consumer, message_id) <= (?3, ?4) AND seen_at < ?5
                AND seen_at < coalesce((SELECT time FROM message WHERE offset > coalesce(
                    (SELECT position FROM consumer WHERE name = inbox.consumer), 0) ORDER BY offset LIMIT 1), ?5)";
    let bounds = (&cursor.0, &cursor.1, &last.0, &last.1, before.as_millis());
    cleaned.removed = connection.prepare_cached(text)?.execute(bounds)? as u64;
    *cursor = if cleaned.is_round {
        InboxCursor::default()
    } else {
        last
    };
    Ok(cleaned)
}

/// Removes old rows of a declared table.
pub(super) fn expired(
    connection: &Connection,
    expiry: &Expiry,
    before: Timestamp,
    rows_max: u32,
) -> rusqlite::Result<u64> {
    let Expiry {
        table,
        column,
        only,
        ..
    } = expiry;
    let (name, key, only) = (table.name, table.key, only.unwrap_or("TRUE"));
    let text = format!(
        "DELETE FROM \"{name}\" WHERE \"{key}\" IN
         (SELECT \"{key}\" FROM \"{name}\" WHERE \"{column}\" < ?1 AND ({only}) LIMIT ?2)"
    );
    let bounds = (before.to_string(), rows_max);
    Ok(connection.prepare_cached(&text)?.execute(bounds)? as u64)
}

//! Cleanup in bounded pieces: messages that every group has handled, and old rows.

use crate::Timestamp;
use rusqlite::Connection;

use crate::{
    housekeeping::{Cleaned, InboxCursor, PIECE_ROWS_MAX, RowRetention, passed_by_all},
    sql,
};

/// Removes messages that every group has passed.
pub(super) fn messages(
    connection: &Connection,
    groups: &[&'static str],
) -> rusqlite::Result<usize> {
    let mut positions = connection.prepare_cached("SELECT name, position FROM consumer")?;
    let positions = positions.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
    let passed = passed_by_all(&positions.collect::<Result<_, _>>()?, groups);
    let mut remove = connection.prepare_cached(sql::REMOVE_MESSAGES)?;
    remove.execute((passed, PIECE_ROWS_MAX))
}

/// Scans a piece of the inbox, and removes its old marks.
pub(super) fn inbox(
    connection: &Connection,
    before: Timestamp,
    from: &InboxCursor,
) -> rusqlite::Result<(Cleaned, InboxCursor)> {
    let mut scan = connection.prepare_cached(sql::SCAN_INBOX)?;
    let marks = scan.query_map((&from.0, &from.1, PIECE_ROWS_MAX), |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    let marks: Vec<InboxCursor> = marks.collect::<rusqlite::Result<_>>()?;
    let (cleaned, next) = Cleaned::scanned(&marks);
    let Some(to) = marks.last() else {
        return Ok((cleaned, next));
    };
    let mut remove = connection.prepare_cached(&sql::remove_marks("TRUE"))?;
    let removed = remove.execute((&from.0, &from.1, &to.0, &to.1, before.as_millis()))?;
    Ok((cleaned.and_removed(removed as u64), next))
}

/// Removes old rows of a declared table.
pub(super) fn old_rows(
    connection: &Connection,
    retention: &RowRetention,
    before: Timestamp,
) -> rusqlite::Result<usize> {
    let mut remove = connection.prepare_cached(&sql::remove_old(retention))?;
    remove.execute((before.to_string(), PIECE_ROWS_MAX))
}

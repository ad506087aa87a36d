//! Webhooks, as rows: written with the change that they tell of, so that neither is without the other.

use contract::Timestamp;
use rusqlite::{Connection, Result, Row, params};

use crate::sandbox::webhooks::schedule::{Course, Standing};

/// Finished webhooks that are kept to be looked at.
const KEPT_MAX: i64 = 10_000;
/// Webhooks of one standing that are told at once, the newest.
const TOLD_MAX: u32 = 1_000;
/// Rows that are looked at for something to send.
const DUE_MAX: u32 = 256;

/// One webhook that is to be sent.
pub(in crate::sandbox) struct New {
    pub id: String,
    pub payment_key: String,
    pub order_id: String,
    pub kind: &'static str,
    pub payment_status: &'static str,
    pub body: String,
}

/// One webhook whose time has come.
#[derive(Clone, Debug)]
pub(in crate::sandbox) struct Due {
    pub number: i64,
    pub id: String,
    pub payment_key: String,
    pub order_id: String,
    pub body: String,
    pub course: Course,
    /// The script has put this attempt off already, and is not asked again.
    pub was_put_off: bool,
}

/// One webhook as it is told to whoever asks.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::sandbox) struct Told {
    pub id: String,
    pub payment_key: String,
    pub order_id: String,
    pub kind: String,
    pub status: String,
    /// How often it was sent, or should have been.
    pub attempts: u32,
    /// Only of one that is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    pub last_outcome: Option<String>,
}

pub(in crate::sandbox) fn add(connection: &Connection, new: &New, now: Timestamp) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO webhook (id, payment_key, order_id, kind, payment_status, body, next_at_millis)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            new.id,
            new.payment_key,
            new.order_id,
            new.kind,
            new.payment_status,
            new.body,
            now.as_millis(),
        ])?;
    Ok(())
}

/// What is to be sent by now, the longest due first.
pub(in crate::sandbox) fn due(connection: &Connection, now: Timestamp) -> Result<Vec<Due>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM webhook WHERE state = 'PENDING' AND next_at_millis <= ?1
         ORDER BY next_at_millis, number LIMIT ?2",
    )?;
    let rows = statement.query_map(params![now.as_millis(), DUE_MAX], row_due)?;
    rows.collect()
}

/// When the next of those that are not due yet is.
pub(in crate::sandbox) fn next_due(
    connection: &Connection,
    now: Timestamp,
) -> Result<Option<Timestamp>> {
    let millis: Option<i64> = connection
        .prepare_cached(
            "SELECT MIN(next_at_millis) FROM webhook WHERE state = 'PENDING' AND next_at_millis > ?1",
        )?
        .query_row([now.as_millis()], |row| row.get(0))?;
    Ok(millis.map(Timestamp::from_millis))
}

/// After an attempt. Whatever of the same payment was held back for this one may follow it.
pub(in crate::sandbox) fn settle(
    connection: &Connection,
    due: &Due,
    course: &Course,
    outcome: &str,
    now: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE webhook SET state = ?2, attempts = ?3, next_at_millis = ?4, repeats_left = ?5,
             was_delivered = ?6, was_put_off = 0, is_held = 0, last_outcome = ?7 WHERE number = ?1",
        )?
        .execute(params![
            due.number,
            course.standing.as_str(),
            course.attempts,
            course.next_at.as_millis(),
            course.repeats_left,
            course.was_delivered,
            outcome,
        ])?;
    connection
        .prepare_cached(
            "UPDATE webhook SET is_held = 0, next_at_millis = ?3
             WHERE payment_key = ?1 AND is_held = 1 AND number < ?2",
        )?
        .execute(params![due.payment_key, due.number, now.as_millis()])?;
    Ok(())
}

/// Not yet: not before `until`. One that is held may go earlier, when a later one of the same payment has gone.
pub(in crate::sandbox) fn put_off(
    connection: &Connection,
    due: &Due,
    until: Timestamp,
    is_held: bool,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE webhook SET was_put_off = 1, is_held = ?2, next_at_millis = ?3 WHERE number = ?1",
        )?
        .execute(params![due.number, is_held, until.as_millis()])?;
    Ok(())
}

/// Whether an earlier webhook of the payment is held back.
pub(in crate::sandbox) fn is_one_held(connection: &Connection, due: &Due) -> Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM webhook WHERE payment_key = ?1 AND is_held = 1 AND number < ?2",
        )?
        .exists(params![due.payment_key, due.number])
}

/// The newest of one standing, oldest first.
pub(in crate::sandbox) fn told(connection: &Connection, standing: Standing) -> Result<Vec<Told>> {
    let mut statement = connection
        .prepare_cached("SELECT * FROM webhook WHERE state = ?1 ORDER BY number DESC LIMIT ?2")?;
    let rows = statement.query_map(params![standing.as_str(), TOLD_MAX], |row| {
        let next_at = Timestamp::from_millis(row.get("next_at_millis")?);
        Ok(Told {
            id: row.get("id")?,
            payment_key: row.get("payment_key")?,
            order_id: row.get("order_id")?,
            kind: row.get("kind")?,
            status: row.get("payment_status")?,
            attempts: row.get("attempts")?,
            next_at: (standing == Standing::Pending).then_some(next_at),
            last_outcome: row.get("last_outcome")?,
        })
    })?;
    let mut told = rows.collect::<Result<Vec<_>>>()?;
    told.reverse();
    Ok(told)
}

/// Forgets finished webhooks, but for the newest.
pub(super) fn forget_old(connection: &Connection) -> Result<()> {
    connection.execute(
        "DELETE FROM webhook WHERE state <> 'PENDING' AND number <= (SELECT MAX(number) FROM webhook) - ?1",
        [KEPT_MAX],
    )?;
    Ok(())
}

fn row_due(row: &Row<'_>) -> Result<Due> {
    Ok(Due {
        number: row.get("number")?,
        id: row.get("id")?,
        payment_key: row.get("payment_key")?,
        order_id: row.get("order_id")?,
        body: row.get("body")?,
        course: Course {
            standing: Standing::Pending,
            attempts: row.get("attempts")?,
            next_at: Timestamp::from_millis(row.get("next_at_millis")?),
            repeats_left: row.get("repeats_left")?,
            was_delivered: row.get("was_delivered")?,
        },
        was_put_off: row.get("was_put_off")?,
    })
}

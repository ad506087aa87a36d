//! Webhooks as rows, inserted in the transaction of the change that they announce.

use jiff::Timestamp;
use rusqlite::{Connection, Result, Row, params};
use uuid::Uuid;

use crate::payment::Payment;
use crate::webhooks::schedule::{Delivery, DeliveryState};

/// Finished webhooks that are kept for inspection.
const KEPT_MAX: i64 = 10_000;
/// Webhooks of one state in a list, the newest.
const LISTED_MAX: u32 = 1_000;
/// Due webhooks that are read at once.
const DUE_MAX: u32 = 256;

/// A webhook that is due.
#[derive(Clone, Debug)]
pub(crate) struct Due {
    pub number: i64,
    pub id: String,
    pub payment_key: String,
    pub order_id: String,
    pub body: String,
    pub delivery: Delivery,
    /// A fault has postponed this attempt; no further fault applies to it.
    pub was_put_off: bool,
}

/// A webhook in a list.
#[derive(Clone, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WebhookView {
    pub id: String,
    pub payment_key: String,
    pub order_id: String,
    pub kind: String,
    pub status: String,
    /// Attempts, including those that a fault dropped.
    pub attempts: u32,
    /// Only if it is pending.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<String>,
    pub last_outcome: Option<String>,
}

/// Adds a webhook about a payment.
pub(crate) fn add(
    connection: &Connection,
    payment: &Payment,
    kind: &str,
    body: &str,
    now: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO webhook (id, payment_key, order_id, kind, payment_status, body, next_at_millis)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            Uuid::new_v4().to_string(),
            payment.key,
            payment.order_id,
            kind,
            payment.status.as_str(),
            body,
            now.as_millisecond(),
        ])?;
    Ok(())
}

/// Due webhooks, the longest overdue first.
pub(crate) fn due(connection: &Connection, now: Timestamp) -> Result<Vec<Due>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM webhook WHERE state = 'PENDING' AND next_at_millis <= ?1
         ORDER BY next_at_millis, number LIMIT ?2",
    )?;
    let rows = statement.query_map(params![now.as_millisecond(), DUE_MAX], row_due)?;
    rows.collect()
}

/// When the next webhook becomes due.
pub(crate) fn next_due(connection: &Connection, now: Timestamp) -> Result<Option<Timestamp>> {
    let millis: Option<i64> = connection
        .prepare_cached(
            "SELECT MIN(next_at_millis) FROM webhook WHERE state = 'PENDING' AND next_at_millis > ?1",
        )?
        .query_row([now.as_millisecond()], |row| row.get(0))?;
    millis.map(super::instant).transpose()
}

/// Stores the result of an attempt, and releases earlier webhooks of the payment that a fault held back for it.
pub(crate) fn settle(
    connection: &Connection,
    due: &Due,
    delivery: &Delivery,
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
            delivery.state.as_str(),
            delivery.attempts,
            delivery.next_at.as_millisecond(),
            delivery.repeats_left,
            delivery.was_delivered,
            outcome,
        ])?;
    connection
        .prepare_cached(
            "UPDATE webhook SET is_held = 0, next_at_millis = ?3
             WHERE payment_key = ?1 AND is_held = 1 AND number < ?2",
        )?
        .execute(params![due.payment_key, due.number, now.as_millisecond()])?;
    Ok(())
}

/// Postpones a webhook until `until`. A held one is sent earlier if a later one of the payment has been sent.
pub(crate) fn postpone(
    connection: &Connection,
    due: &Due,
    until: Timestamp,
    is_held: bool,
) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE webhook SET was_put_off = 1, is_held = ?2, next_at_millis = ?3 WHERE number = ?1",
        )?
        .execute(params![due.number, is_held, until.as_millisecond()])?;
    Ok(())
}

/// Whether an earlier webhook of the payment is held back.
pub(crate) fn is_one_held(connection: &Connection, due: &Due) -> Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM webhook WHERE payment_key = ?1 AND is_held = 1 AND number < ?2",
        )?
        .exists(params![due.payment_key, due.number])
}

/// The newest webhooks in a state, oldest first.
pub(crate) fn list(connection: &Connection, state: DeliveryState) -> Result<Vec<WebhookView>> {
    let mut statement = connection
        .prepare_cached("SELECT * FROM webhook WHERE state = ?1 ORDER BY number DESC LIMIT ?2")?;
    let rows = statement.query_map(params![state.as_str(), LISTED_MAX], |row| {
        let next_at = super::instant(row.get("next_at_millis")?)?;
        Ok(WebhookView {
            id: row.get("id")?,
            payment_key: row.get("payment_key")?,
            order_id: row.get("order_id")?,
            kind: row.get("kind")?,
            status: row.get("payment_status")?,
            attempts: row.get("attempts")?,
            next_at: (state == DeliveryState::Pending).then(|| format!("{next_at:.3}")),
            last_outcome: row.get("last_outcome")?,
        })
    })?;
    let mut listed = rows.collect::<Result<Vec<_>>>()?;
    listed.reverse();
    Ok(listed)
}

/// Deletes finished webhooks except the newest.
pub(super) fn delete_old(connection: &Connection) -> Result<()> {
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
        delivery: Delivery {
            state: DeliveryState::Pending,
            attempts: row.get("attempts")?,
            next_at: super::instant(row.get("next_at_millis")?)?,
            repeats_left: row.get("repeats_left")?,
            was_delivered: row.get("was_delivered")?,
        },
        was_put_off: row.get("was_put_off")?,
    })
}

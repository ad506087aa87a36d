//! Money in and out as rows, and their totals.

use jiff::Timestamp;
use rusqlite::{Connection, Result, Row, params};

use crate::Totals;
use crate::payment::{Method, Payment};
use toss::korea;
use toss::protocol::TransactionBody;

use super::payments::{known_status, word};

/// Adds the money that the last transaction of the payment moved.
pub(crate) fn add(
    connection: &Connection,
    payment: &Payment,
    amount: i64,
    now: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO movement VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            payment.last_transaction_key,
            payment.key,
            payment.order_id,
            payment.method.as_str(),
            payment.status.as_str(),
            amount,
            now.as_millisecond(),
        ])?;
    Ok(())
}

/// Whether there is such a transaction.
pub(crate) fn exists(connection: &Connection, transaction_key: &str) -> Result<bool> {
    connection
        .prepare_cached("SELECT 1 FROM movement WHERE transaction_key = ?1")?
        .exists([transaction_key])
}

/// At most `limit` transactions from `start` to `end`, both inclusive, after the one with the key `after`.
pub(crate) fn list(
    connection: &Connection,
    (start, end): (Timestamp, Timestamp),
    after: Option<&str>,
    limit: u32,
) -> Result<Vec<TransactionBody>> {
    let mut statement = connection.prepare_cached(
        "SELECT * FROM movement WHERE at_millis BETWEEN ?1 AND ?2 AND (?3 IS NULL OR (at_millis, transaction_key)
             > (SELECT at_millis, transaction_key FROM movement WHERE transaction_key = ?3))
         ORDER BY at_millis, transaction_key LIMIT ?4",
    )?;
    let (start, end) = (start.as_millisecond(), end.as_millisecond());
    let rows = statement.query_map(params![start, end, after, limit], transaction)?;
    rows.collect()
}

fn transaction(row: &Row<'_>) -> Result<TransactionBody> {
    let at = super::instant(row.get("at_millis")?)?;
    Ok(TransactionBody {
        transaction_key: row.get("transaction_key")?,
        payment_key: row.get("payment_key")?,
        order_id: row.get("order_id")?,
        status: word(row, "status", known_status)?,
        amount: row.get("amount")?,
        currency: Some("KRW".to_owned()),
        method: Some(word(row, "method", Method::parse)?.on_the_wire().to_owned()),
        transaction_at: Some(korea::body_time(at)),
    })
}

pub(crate) fn totals(connection: &Connection) -> Result<Totals> {
    let (charged, refunded) = connection.query_row(
        "SELECT COALESCE(SUM(MAX(amount, 0)), 0), COALESCE(SUM(MAX(-amount, 0)), 0) FROM movement",
        (),
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    // From the payments and not the difference of the sums, so that a test can compare the two.
    let held = connection.query_row(
        "SELECT COALESCE(SUM(balance_amount), 0) FROM payment WHERE status IN ('DONE', 'PARTIAL_CANCELED')",
        (),
        |row| row.get(0),
    )?;
    let payments = connection.query_row("SELECT COUNT(*) FROM payment", (), |row| row.get(0))?;
    // A reversed deposit is no charge.
    let mut statement = connection.prepare_cached(
        "SELECT order_id FROM movement GROUP BY order_id
         HAVING SUM(amount > 0) - SUM(status = 'WAITING_FOR_DEPOSIT') > 1 ORDER BY order_id",
    )?;
    let orders_charged_twice = statement
        .query_map((), |row| row.get(0))?
        .collect::<Result<_>>()?;
    Ok(Totals {
        charged,
        refunded,
        held,
        payments,
        orders_charged_twice,
    })
}

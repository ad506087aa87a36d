//! Money in and out, as rows; and what they add up to.

use contract::Timestamp;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};

use crate::gateway::protocol::TransactionBody;
use crate::sandbox::Books;
use crate::sandbox::korea;
use crate::sandbox::payment::{Method, Movement, Payment, Status};

use super::payments::word;

/// Stands in the list of transactions: the list is in the order of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sandbox) struct Place {
    pub at: Timestamp,
    pub transaction_key: String,
}

pub(in crate::sandbox) fn add(
    connection: &Connection,
    payment: &Payment,
    moved: &Movement,
    now: Timestamp,
) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO movement VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            moved.transaction_key,
            payment.key,
            payment.order_id,
            payment.method.as_str(),
            moved.status.as_str(),
            moved.amount,
            now.as_millis(),
        ])?;
    Ok(())
}

/// Where a transaction stands in the list.
pub(in crate::sandbox) fn place(
    connection: &Connection,
    transaction_key: &str,
) -> Result<Option<Place>> {
    connection
        .prepare_cached("SELECT at_millis FROM movement WHERE transaction_key = ?1")?
        .query_row([transaction_key], |row| {
            Ok(Place {
                at: Timestamp::from_millis(row.get(0)?),
                transaction_key: transaction_key.to_owned(),
            })
        })
        .optional()
}

/// At most `limit` transactions from `start` to `end`, both included, that stand behind `after`.
pub(in crate::sandbox) fn list(
    connection: &Connection,
    (start, end): (Timestamp, Timestamp),
    after: Option<&Place>,
    limit: u32,
) -> Result<Vec<TransactionBody>> {
    let (after_millis, after_key) = after.map_or((i64::MIN, ""), |place| {
        (place.at.as_millis(), &place.transaction_key)
    });
    let mut statement = connection.prepare_cached(
        "SELECT * FROM movement WHERE at_millis BETWEEN ?1 AND ?2 AND (at_millis, transaction_key) > (?3, ?4)
         ORDER BY at_millis, transaction_key LIMIT ?5",
    )?;
    let window = params![
        start.as_millis(),
        end.as_millis(),
        after_millis,
        after_key,
        limit
    ];
    let rows = statement.query_map(window, transaction)?;
    rows.collect()
}

fn transaction(row: &Row<'_>) -> Result<TransactionBody> {
    let at = Timestamp::from_millis(row.get("at_millis")?);
    Ok(TransactionBody {
        transaction_key: row.get("transaction_key")?,
        payment_key: row.get("payment_key")?,
        order_id: row.get("order_id")?,
        status: word(row, "status", Status::parse)?.on_the_wire(),
        amount: row.get("amount")?,
        currency: Some("KRW".to_owned()),
        method: Some(word(row, "method", Method::parse)?.on_the_wire().to_owned()),
        transaction_at: Some(korea::show(at)),
    })
}

pub(in crate::sandbox) fn books(connection: &Connection) -> Result<Books> {
    let (charged, refunded) = connection.query_row(
        "SELECT COALESCE(SUM(MAX(amount, 0)), 0), COALESCE(SUM(MAX(-amount, 0)), 0) FROM movement",
        (),
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    // From the payments, not from the difference: so that the two can be compared.
    let held = connection.query_row(
        "SELECT COALESCE(SUM(balance_amount), 0) FROM payment WHERE status IN ('DONE', 'PARTIAL_CANCELED')",
        (),
        |row| row.get(0),
    )?;
    let payments = connection.query_row("SELECT COUNT(*) FROM payment", (), |row| row.get(0))?;
    // A deposit that the bank took back was no charge in the end.
    let mut statement = connection.prepare_cached(
        "SELECT order_id FROM movement GROUP BY order_id
         HAVING SUM(amount > 0) - SUM(status = 'WAITING_FOR_DEPOSIT') > 1 ORDER BY order_id",
    )?;
    let orders_charged_twice = statement
        .query_map((), |row| row.get(0))?
        .collect::<Result<_>>()?;
    Ok(Books {
        charged,
        refunded,
        held,
        payments,
        orders_charged_twice,
    })
}

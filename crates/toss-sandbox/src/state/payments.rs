//! Payments with their cancellations, as rows.

use jiff::Timestamp;
use rusqlite::types::Type;
use rusqlite::{Connection, Error, OptionalExtension, Params, Result, Row, params};

use crate::payment::{Method, Payment};
use toss::ChargeStatus;
use toss::protocol::{CANCEL_DONE, CancelEntry};

/// Payments that expire in one transaction.
const EXPIRED_MAX: u32 = 500;

pub(crate) fn find_by_key(connection: &Connection, payment_key: &str) -> Result<Option<Payment>> {
    find(
        connection,
        "SELECT * FROM payment WHERE payment_key = ?1",
        [payment_key],
    )
}

/// The confirmed payment of the order, or else the newest one that was requested.
pub(crate) fn find_by_order(connection: &Connection, order_id: &str) -> Result<Option<Payment>> {
    find(
        connection,
        "SELECT * FROM payment WHERE order_id = ?1
         ORDER BY is_confirmed DESC, requested_at_millis DESC, payment_key DESC LIMIT 1",
        [order_id],
    )
}

/// Whether a confirmed payment with another key has the order.
pub(crate) fn is_order_taken(
    connection: &Connection,
    order_id: &str,
    payment_key: &str,
) -> Result<bool> {
    connection
        .prepare_cached(
            "SELECT 1 FROM payment WHERE order_id = ?1 AND is_confirmed = 1 AND payment_key <> ?2",
        )?
        .exists([order_id, payment_key])
}

/// How many payments were requested for an order.
pub(crate) fn count_of_order(connection: &Connection, order_id: &str) -> Result<i64> {
    connection
        .prepare_cached("SELECT COUNT(*) FROM payment WHERE order_id = ?1")?
        .query_row([order_id], |row| row.get(0))
}

/// Payments whose time window has ended, up to a limit.
pub(crate) fn overdue(connection: &Connection, now: Timestamp) -> Result<Vec<Payment>> {
    let mut statement = connection.prepare_cached(
        "SELECT payment_key FROM payment WHERE window_ends_at_millis <= ?1
         ORDER BY window_ends_at_millis, payment_key LIMIT ?2",
    )?;
    let keys = statement
        .query_map(params![now.as_millisecond(), EXPIRED_MAX], |row| {
            row.get::<_, String>(0)
        })?
        .collect::<Result<Vec<_>>>()?;
    let found = keys.iter().map(|key| find_by_key(connection, key));
    found.filter_map(Result::transpose).collect()
}

/// When the next time window ends.
pub(crate) fn next_window(connection: &Connection) -> Result<Option<Timestamp>> {
    let millis: Option<i64> = connection
        .prepare_cached(
            "SELECT MIN(window_ends_at_millis) FROM payment WHERE window_ends_at_millis IS NOT NULL",
        )?
        .query_row((), |row| row.get(0))?;
    millis.map(super::instant).transpose()
}

/// Inserts or updates a payment. Cancellations are append-only.
pub(crate) fn put(connection: &Connection, payment: &Payment) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO payment
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
             ON CONFLICT (payment_key) DO UPDATE SET
             status = excluded.status, balance_amount = excluded.balance_amount,
             approved_at_millis = excluded.approved_at_millis, is_confirmed = excluded.is_confirmed,
             window_ends_at_millis = excluded.window_ends_at_millis, due_at_millis = excluded.due_at_millis,
             failure_code = excluded.failure_code, next_transaction = excluded.next_transaction,
             last_transaction_key = excluded.last_transaction_key",
        )?
        .execute(params![
            payment.key,
            payment.order_id,
            payment.method.as_str(),
            payment.status.as_str(),
            payment.total,
            payment.balance,
            payment.requested_at.as_millisecond(),
            payment.approved_at.map(Timestamp::as_millisecond),
            payment.is_confirmed,
            payment.window_ends_at.map(Timestamp::as_millisecond),
            payment.due_secs,
            payment.due_at.map(Timestamp::as_millisecond),
            payment.secret,
            payment.account_number,
            payment.failure_code,
            payment.next_transaction,
            payment.last_transaction_key,
        ])?;
    for (number, entry) in (0_i64..).zip(&payment.cancels) {
        connection
            .prepare_cached("INSERT OR IGNORE INTO cancel VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
            .execute(params![
                payment.key,
                number,
                entry.cancel_amount,
                entry.cancel_reason,
                entry.canceled_at,
                entry.transaction_key,
            ])?;
    }
    Ok(())
}

fn find(connection: &Connection, text: &str, names: impl Params) -> Result<Option<Payment>> {
    let found = connection
        .prepare_cached(text)?
        .query_row(names, payment)
        .optional()?;
    let Some(mut payment) = found else {
        return Ok(None);
    };
    payment.cancels = cancels(connection, &payment.key)?;
    Ok(Some(payment))
}

fn payment(row: &Row<'_>) -> Result<Payment> {
    Ok(Payment {
        key: row.get("payment_key")?,
        order_id: row.get("order_id")?,
        method: word(row, "method", Method::parse)?,
        status: word(row, "status", known_status)?,
        total: row.get("total_amount")?,
        balance: row.get("balance_amount")?,
        requested_at: super::instant(row.get("requested_at_millis")?)?,
        approved_at: instant(row, "approved_at_millis")?,
        is_confirmed: row.get("is_confirmed")?,
        window_ends_at: instant(row, "window_ends_at_millis")?,
        due_secs: row.get("due_secs")?,
        due_at: instant(row, "due_at_millis")?,
        secret: row.get("secret")?,
        account_number: row.get("account_number")?,
        failure_code: row.get("failure_code")?,
        next_transaction: row.get("next_transaction")?,
        last_transaction_key: row.get("last_transaction_key")?,
        cancels: Vec::new(),
    })
}

fn instant(row: &Row<'_>, column: &str) -> Result<Option<Timestamp>> {
    let millis: Option<i64> = row.get(column)?;
    millis.map(super::instant).transpose()
}

/// A name that this program wrote; any other means that another program changed the file.
pub(super) fn word<T>(row: &Row<'_>, column: &str, parse: impl Fn(&str) -> Option<T>) -> Result<T> {
    let index = row.as_ref().column_index(column)?;
    let text: String = row.get(index)?;
    parse(&text).ok_or_else(|| Error::InvalidColumnType(index, column.to_owned(), Type::Text))
}

pub(super) fn known_status(name: &str) -> Option<ChargeStatus> {
    let status = ChargeStatus::from(name.to_owned());
    (!matches!(status, ChargeStatus::Other(_))).then_some(status)
}

fn cancels(connection: &Connection, payment_key: &str) -> Result<Vec<CancelEntry>> {
    let mut statement = connection.prepare_cached(
        "SELECT amount, reason, canceled_at, transaction_key FROM cancel WHERE payment_key = ?1 ORDER BY number",
    )?;
    let rows = statement.query_map([payment_key], |row| {
        Ok(CancelEntry {
            cancel_amount: row.get(0)?,
            cancel_status: Some(CANCEL_DONE.to_owned()),
            cancel_reason: row.get(1)?,
            canceled_at: row.get(2)?,
            transaction_key: row.get(3)?,
        })
    })?;
    rows.collect()
}

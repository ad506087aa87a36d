//! What a page of the gateway's transactions says. Pure: an answer goes in, a listing comes out.

use contract::Timestamp;
use jiff::tz::Offset;
use serde_json::value::RawValue;

use super::outcome::{Answer, CURRENCY, Doubt, doubt_in};
use super::protocol::TransactionBody;
use super::{Listing, Transaction};

/// Korea keeps no summer time.
const KOREA: Offset = Offset::constant(9);

/// `yyyy-MM-ddTHH:mm:ss.SSS`, as the query wants it: no offset, and always Korea's.
pub(super) fn in_korean_time(at: Timestamp) -> String {
    let instant = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or(jiff::Timestamp::MAX);
    format!("{:.3}", KOREA.to_datetime(instant))
}

/// The page that was asked for with `limit` rows `after` a transaction.
pub(super) fn of_page(answer: &Answer, after: Option<&str>, limit: u32) -> Listing {
    page(answer, after, limit).unwrap_or_else(Listing::from)
}

fn page(answer: &Answer, after: Option<&str>, limit: u32) -> Result<Listing, Doubt> {
    if answer.status != 200 {
        return Err(doubt_in(answer));
    }
    if !answer.is_json {
        return Err(Doubt::NotJson(answer.status));
    }
    let rows: Vec<&RawValue> =
        serde_json::from_slice(&answer.body).map_err(|_| Doubt::Unreadable(answer.status))?;
    let is_last = rows.len() < limit as usize;
    let mut transactions: Vec<Transaction> = rows.iter().filter_map(|row| read(row)).collect();
    let unreadable = rows.len() - transactions.len();
    // The page begins after this one; a gateway that begins with it must not be counted twice.
    transactions.retain(|transaction| Some(transaction.transaction_key.as_str()) != after);
    if transactions.is_empty() && !is_last {
        return Err(Doubt::NoWayOn);
    }
    Ok(Listing::Page {
        transactions,
        is_last,
        unreadable,
    })
}

/// What is in another currency is of no use here.
fn read(row: &RawValue) -> Option<Transaction> {
    let row: TransactionBody = serde_json::from_str(row.get()).ok()?;
    if row.currency.as_deref().is_some_and(|it| it != CURRENCY) {
        return None;
    }
    Some(Transaction {
        at: row.transaction_at.and_then(|at| at.parse().ok()),
        transaction_key: row.transaction_key,
        payment_key: row.payment_key,
        order_id: row.order_id,
        status: row.status,
        amount: row.amount,
    })
}

#[cfg(test)]
mod tests;

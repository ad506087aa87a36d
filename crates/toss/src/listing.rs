//! What a page of transactions says. Pure: an answer goes in, a listing comes out.

use serde_json::value::RawValue;

use super::outcome::{CURRENCY, Inconclusive, RawAnswer, reason_in};
use super::protocol::TransactionBody;
use super::{Listing, Transaction};

/// Judges the answer to a request for `limit` rows `after` a transaction.
pub(super) fn of_page(answer: &RawAnswer, after: Option<&str>, limit: u32) -> Listing {
    page(answer, after, limit).unwrap_or_else(Listing::from)
}

fn page(answer: &RawAnswer, after: Option<&str>, limit: u32) -> Result<Listing, Inconclusive> {
    if answer.status != 200 {
        return Err(reason_in(answer));
    }
    if !answer.is_json {
        return Err(Inconclusive::NotJson(answer.status));
    }
    let rows: Vec<&RawValue> = serde_json::from_slice(&answer.body)
        .map_err(|_| Inconclusive::Unreadable(answer.status))?;
    let is_last = rows.len() < limit as usize;
    let mut transactions: Vec<Transaction> = rows.iter().filter_map(|row| read(row)).collect();
    let unreadable = rows.len() - transactions.len();
    // The page starts after this one; if a gateway repeats it, it must not be counted twice.
    transactions.retain(|transaction| Some(transaction.transaction_key.as_str()) != after);
    if transactions.is_empty() && !is_last {
        return Err(Inconclusive::NoCursor);
    }
    Ok(Listing::Page {
        transactions,
        is_last,
        unreadable,
    })
}

/// `None` for a row that cannot be read, or is in another currency.
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

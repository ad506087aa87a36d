//! What both suites check at the end: balances and the ledger.

use std::collections::BTreeMap;

use messaging::{Entry, Find, Record, Store};
use user::{ledger::LedgerEntry, model::User};

/// More rows than any test makes.
const ROWS_MAX: u32 = 10_000;

/// Whether each balance is the sum of its ledger entries, each entry records the balance after it, and its user exists.
pub async fn is_consistent(store: &Store) -> bool {
    let users = store.find(Find::all(User::TABLE, ROWS_MAX)).await;
    let users: Vec<User> = users.unwrap();
    let entries = store.find(Find::all(LedgerEntry::TABLE, ROWS_MAX)).await;
    let entries: Vec<LedgerEntry> = entries.unwrap();
    let mut sums = BTreeMap::new();
    let are_balances_recorded = entries.iter().all(|entry| {
        let sum = sums.entry(entry.user_id).or_insert(0);
        *sum += entry.amount;
        *sum == entry.balance_after.get()
    });
    let are_balances_sums = users.iter().all(|user| {
        let sum = sums.remove(&user.user_id).unwrap_or(0);
        sum == user.balance.get()
    });
    are_balances_recorded && are_balances_sums && sums.is_empty()
}

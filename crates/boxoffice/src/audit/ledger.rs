//! The points ledger, aggregated while it is read, so that memory grows with users and sagas and not with entries.

use std::collections::{BTreeMap, HashMap};

use contract::{SagaId, UserId};
use user::ledger::{EntryKind, LedgerEntry};

/// Totals of the ledger.
#[derive(Debug, Default)]
pub struct PointsLedger {
    pub accounts: HashMap<UserId, UserEntries>,
    pub sagas: HashMap<SagaId, SagaPoints>,
    /// Impossible entries, each with the reason.
    pub flaws: BTreeMap<String, String>,
}

/// Totals of one user's entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UserEntries {
    pub sum: i64,
    /// The user's version of the last entry.
    pub version: i64,
}

/// The amounts of a saga's entries, signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SagaPoints {
    pub user_id: UserId,
    pub reserved: Option<i64>,
    pub used: Option<i64>,
    pub restored: Option<i64>,
}

impl PointsLedger {
    #[must_use]
    pub fn sum(&self, user_id: UserId) -> i64 {
        self.accounts.get(&user_id).map_or(0, |account| account.sum)
    }

    /// The entries of one user must come in the order of their versions.
    pub fn note(&mut self, entry: &LedgerEntry) {
        let account = self.accounts.entry(entry.user_id).or_default();
        account.sum = account.sum.saturating_add(entry.amount);
        let (sum, is_later) = (account.sum, entry.user_version > account.version);
        account.version = account.version.max(entry.user_version);
        let name = format!("{}:{:016}", entry.user_id, entry.user_version);
        let flaw = if entry.entry_id != name || !is_later {
            Some(format!(
                "its id or version does not fit version {} of user {}",
                entry.user_version, entry.user_id
            ))
        } else if entry.balance_after.get() != sum {
            Some(format!(
                "its balance_after is {}, but its user's entries sum to {sum}",
                entry.balance_after
            ))
        } else if !fits(entry) {
            Some(format!(
                "kind {:?}, amount {} and saga do not fit together",
                entry.kind, entry.amount
            ))
        } else {
            None
        };
        if let Some(flaw) = flaw {
            self.flaws.insert(entry.entry_id.clone(), flaw);
        }
        self.note_saga(entry);
    }

    fn note_saga(&mut self, entry: &LedgerEntry) {
        let Some(saga_id) = entry.saga_id else { return };
        let points = self.sagas.entry(saga_id).or_insert(SagaPoints {
            user_id: entry.user_id,
            reserved: None,
            used: None,
            restored: None,
        });
        let amount = Some(entry.amount);
        match entry.kind {
            EntryKind::Reserved => points.reserved = amount,
            EntryKind::Used => points.used = amount,
            EntryKind::Restored => points.restored = amount,
            EntryKind::Granted => {}
        }
    }
}

/// Whether kind, sign and saga fit together.
fn fits(entry: &LedgerEntry) -> bool {
    let is_of_saga = entry.saga_id.is_some() && entry.reason.is_none();
    match entry.kind {
        EntryKind::Granted => entry.amount > 0 && entry.saga_id.is_none(),
        EntryKind::Reserved => entry.amount < 0 && is_of_saga,
        EntryKind::Used => entry.amount == 0 && is_of_saga,
        EntryKind::Restored => entry.amount > 0 && is_of_saga,
    }
}

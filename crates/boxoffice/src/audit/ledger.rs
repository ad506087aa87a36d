//! The points ledger, folded while it is read: what is left of it for the checks does not grow with its entries, but
//! with its users and sagas.

use std::collections::{BTreeMap, HashMap};

use contract::{SagaId, UserId};
use user::ledger::{EntryKind, LedgerEntry};

/// What the ledger comes to.
#[derive(Debug, Default)]
pub struct Ledger {
    pub accounts: HashMap<UserId, Account>,
    pub sagas: HashMap<SagaId, SagaPoints>,
    /// Entries that cannot be, each with the reason.
    pub flaws: BTreeMap<String, String>,
}

/// One user's entries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Account {
    pub sum: i64,
    /// The version of the user that the last entry belongs to.
    pub version: i64,
}

/// What a saga did to a balance; signed, as the entries say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SagaPoints {
    pub user_id: UserId,
    pub reserved: Option<i64>,
    pub used: Option<i64>,
    pub restored: Option<i64>,
}

impl Ledger {
    #[must_use]
    pub fn sum(&self, user_id: UserId) -> i64 {
        self.accounts.get(&user_id).map_or(0, |account| account.sum)
    }

    /// Entries of one user come in the order of their changes.
    pub fn note(&mut self, entry: &LedgerEntry) {
        let account = self.accounts.entry(entry.user_id).or_default();
        account.sum = account.sum.saturating_add(entry.amount);
        let (sum, is_later) = (account.sum, entry.user_version > account.version);
        account.version = account.version.max(entry.user_version);
        let name = format!("{}:{:016}", entry.user_id, entry.user_version);
        let flaw = if entry.entry_id != name || !is_later {
            Some(format!(
                "it is change {} of user {}",
                entry.user_version, entry.user_id
            ))
        } else if entry.balance_after.get() != sum {
            Some(format!(
                "it says {} points are left, but {sum} are",
                entry.balance_after
            ))
        } else if !fits(entry) {
            Some(format!("it is {:?} over {}", entry.kind, entry.amount))
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

    pub(super) fn add(&mut self, own: Self) {
        self.accounts.extend(own.accounts);
        self.sagas.extend(own.sagas);
        self.flaws.extend(own.flaws);
    }
}

/// Whether kind, sign and saga belong together.
fn fits(entry: &LedgerEntry) -> bool {
    let is_of_saga = entry.saga_id.is_some() && entry.reason.is_none();
    match entry.kind {
        EntryKind::Granted => entry.amount > 0 && entry.saga_id.is_none(),
        EntryKind::Reserved => entry.amount < 0 && is_of_saga,
        EntryKind::Used => entry.amount == 0 && is_of_saga,
        EntryKind::Restored => entry.amount > 0 && is_of_saga,
    }
}

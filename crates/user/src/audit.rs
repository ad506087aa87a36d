//! Checks that each balance is the sum of its ledger entries.
//!
//! Safe to run while balances change: users are read first, and of each ledger only entries up to the version in which
//! the user was read are counted.

use std::collections::BTreeMap;

use contract::UserId;
use messaging::{Entry, Find, Record, Store, StoreError};

use crate::{ledger::LedgerEntry, model::User};

/// Rows of one page.
const PAGE_ROWS: u32 = 500;

/// What an audit has read, reduced to one account for each user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerFacts {
    pub accounts: BTreeMap<UserId, Account>,
    pub entries: u64,
    /// Entries whose balance does not follow from the previous entry.
    pub broken_entries: Vec<LedgerFinding>,
    /// Users named by entries but not found, each with one such entry.
    pub unregistered: BTreeMap<UserId, String>,
}

/// One user's balance and the sum of its ledger entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    pub balance: i64,
    pub version: i64,
    pub ledger_sum: i64,
}

/// An inconsistency.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerFinding {
    #[error("user {user_id} has a balance of {balance}, and ledger entries of {ledger_sum}")]
    Balance {
        user_id: UserId,
        balance: i64,
        ledger_sum: i64,
    },
    #[error(
        "ledger entry {entry_id} records a balance of {recorded}, but the entries up to it sum to {actual}"
    )]
    EntryBalance {
        entry_id: String,
        recorded: i64,
        actual: i64,
    },
    #[error("ledger entry {entry_id} is of user {user_id}, which is not registered")]
    NoUser { entry_id: String, user_id: UserId },
}

/// Reads all users and the whole ledger, page by page.
///
/// # Errors
/// [`StoreError`] if the store cannot answer.
pub async fn load(store: &Store) -> Result<LedgerFacts, StoreError> {
    let mut facts = LedgerFacts::default();
    let mut after: Option<UserId> = None;
    loop {
        let find = Find::all(User::TABLE, PAGE_ROWS).after(after);
        let users: Vec<User> = store.find(find).await?;
        users.iter().for_each(|user| facts.see_user(user));
        match users.last() {
            Some(last) => after = Some(last.user_id),
            None => break,
        }
    }
    let mut after: Option<String> = None;
    loop {
        let find = Find::all(LedgerEntry::TABLE, PAGE_ROWS).after(after.take());
        let entries: Vec<LedgerEntry> = store.find(find).await?;
        entries.iter().for_each(|entry| facts.see_entry(entry));
        match entries.into_iter().last() {
            Some(last) => after = Some(last.entry_id),
            None => break,
        }
    }
    facts.drop_users_registered_meanwhile(store).await?;
    Ok(facts)
}

/// All inconsistencies.
#[must_use]
pub fn check(facts: &LedgerFacts) -> Vec<LedgerFinding> {
    let differs = |(user_id, account): (&UserId, &Account)| {
        (account.balance != account.ledger_sum).then_some(LedgerFinding::Balance {
            user_id: *user_id,
            balance: account.balance,
            ledger_sum: account.ledger_sum,
        })
    };
    let no_user = |(user_id, entry_id): (&UserId, &String)| LedgerFinding::NoUser {
        entry_id: entry_id.clone(),
        user_id: *user_id,
    };
    let mut findings = facts.broken_entries.clone();
    findings.extend(facts.accounts.iter().filter_map(differs));
    findings.extend(facts.unregistered.iter().map(no_user));
    findings
}

impl LedgerFacts {
    /// A user registered after this audit read the users is not an inconsistency.
    async fn drop_users_registered_meanwhile(&mut self, store: &Store) -> Result<(), StoreError> {
        for user_id in self.unregistered.keys().copied().collect::<Vec<_>>() {
            if store.load::<User>(user_id).await?.is_some() {
                self.unregistered.remove(&user_id);
            }
        }
        Ok(())
    }

    pub fn see_user(&mut self, user: &User) {
        let account = Account {
            balance: user.balance.get(),
            version: user.version,
            ledger_sum: 0,
        };
        self.accounts.insert(user.user_id, account);
    }

    /// Entries of one user must come in the order of their changes.
    pub fn see_entry(&mut self, entry: &LedgerEntry) {
        let Some(account) = self.accounts.get_mut(&entry.user_id) else {
            self.unregistered
                .insert(entry.user_id, entry.entry_id.clone());
            return;
        };
        if entry.user_version > account.version {
            return;
        }
        self.entries += 1;
        account.ledger_sum = account.ledger_sum.saturating_add(entry.amount);
        let recorded = entry.balance_after.get();
        if recorded != account.ledger_sum {
            self.broken_entries.push(LedgerFinding::EntryBalance {
                entry_id: entry.entry_id.clone(),
                recorded,
                actual: account.ledger_sum,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use contract::{Points, Timestamp};

    use super::*;
    use crate::{ledger::EntryKind, model::Status};

    const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn user(balance: i64, version: i64) -> User {
        let balance = Points::new(balance).unwrap();
        User {
            balance,
            version,
            ..User::new(UserId(1), "Kim".to_owned(), Status::Active, NOW)
        }
    }

    fn entry(user_version: i64, amount: i64, balance_after: i64) -> LedgerEntry {
        LedgerEntry {
            entry_id: format!("1:{user_version}"),
            user_id: UserId(1),
            user_version,
            kind: EntryKind::Granted,
            amount,
            balance_after: Points::new(balance_after).unwrap(),
            saga_id: None,
            reason: None,
            at: NOW,
        }
    }

    fn audit(user: Option<&User>, entries: &[LedgerEntry]) -> Vec<LedgerFinding> {
        let mut facts = LedgerFacts::default();
        user.into_iter().for_each(|user| facts.see_user(user));
        entries.iter().for_each(|entry| facts.see_entry(entry));
        check(&facts)
    }

    #[test]
    fn a_balance_equal_to_the_sum_of_its_ledger_has_no_finding() {
        let entries = [entry(1, 500, 500), entry(4, -200, 300)];
        assert_eq!(audit(Some(&user(300, 4)), &entries), []);
    }

    #[test]
    fn an_entry_newer_than_its_user_is_left_to_the_next_audit() {
        let entries = [entry(1, 500, 500), entry(4, -200, 300)];
        assert_eq!(audit(Some(&user(500, 3)), &entries), []);
    }

    #[test]
    fn each_inconsistency_is_found() {
        let balance = |balance, ledger_sum| LedgerFinding::Balance {
            user_id: UserId(1),
            balance,
            ledger_sum,
        };
        assert_eq!(audit(Some(&user(7, 1)), &[]), [balance(7, 0)]);
        assert_eq!(audit(Some(&user(0, 1)), &[entry(1, 7, 7)]), [balance(0, 7)]);
        let wrong_step = LedgerFinding::EntryBalance {
            entry_id: "1:2".to_owned(),
            recorded: 9,
            actual: 8,
        };
        let entries = [entry(1, 7, 7), entry(2, 1, 9)];
        assert_eq!(audit(Some(&user(8, 2)), &entries), [wrong_step]);
        let nobody = LedgerFinding::NoUser {
            entry_id: "1:1".to_owned(),
            user_id: UserId(1),
        };
        assert_eq!(audit(None, &[entry(1, 7, 7)]), [nobody]);
    }
}

//! Whether every balance is the sum of its ledger.
//!
//! Safe to run while points move: users are read first, and of each ledger only the entries up to the version in
//! which its user was read are counted.

use std::collections::BTreeMap;

use contract::UserId;
use messaging::{Entry, Find, Record, Store, StoreError};

use crate::{ledger::LedgerEntry, model::User};

/// Rows of one page; no more are held of the ledger.
const PAGE_ROWS: u32 = 500;

/// What an audit has seen, small enough to keep of every user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub accounts: BTreeMap<UserId, Account>,
    pub entries: u64,
    /// Entries that do not follow from the one before.
    pub broken_entries: Vec<Finding>,
    /// Users that entries name but who were not there to read, each with such an entry.
    pub strangers: BTreeMap<UserId, String>,
}

/// One user's balance, and what the ledger makes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    pub balance: i64,
    pub version: i64,
    pub ledger_sum: i64,
}

/// What should not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    #[error("user {user_id} has a balance of {balance}, and ledger entries of {ledger_sum}")]
    Balance {
        user_id: UserId,
        balance: i64,
        ledger_sum: i64,
    },
    #[error("ledger entry {entry_id} says {said} points are left, but {left} are")]
    EntryBalance {
        entry_id: String,
        said: i64,
        left: i64,
    },
    #[error("ledger entry {entry_id} is of user {user_id}, who is not registered")]
    NoUser { entry_id: String, user_id: UserId },
}

/// Reads all users and all of the ledger, a page at a time.
///
/// # Errors
/// [`StoreError`] where the store cannot answer.
pub async fn load(store: &Store) -> Result<Facts, StoreError> {
    let mut facts = Facts::default();
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
    facts.welcome_newcomers(store).await?;
    Ok(facts)
}

/// Everything that is wrong; nothing, where all is well.
#[must_use]
pub fn check(facts: &Facts) -> Vec<Finding> {
    let differs = |(user_id, account): (&UserId, &Account)| {
        (account.balance != account.ledger_sum).then_some(Finding::Balance {
            user_id: *user_id,
            balance: account.balance,
            ledger_sum: account.ledger_sum,
        })
    };
    let nobody = |(user_id, entry_id): (&UserId, &String)| Finding::NoUser {
        entry_id: entry_id.clone(),
        user_id: *user_id,
    };
    let mut findings = facts.broken_entries.clone();
    findings.extend(facts.accounts.iter().filter_map(differs));
    findings.extend(facts.strangers.iter().map(nobody));
    findings
}

impl Facts {
    /// Whoever was registered while this audit read is no stranger.
    async fn welcome_newcomers(&mut self, store: &Store) -> Result<(), StoreError> {
        for user_id in self.strangers.keys().copied().collect::<Vec<_>>() {
            if store.load::<User>(user_id).await?.is_some() {
                self.strangers.remove(&user_id);
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

    /// Entries of one user come in the order of their changes.
    pub fn see_entry(&mut self, entry: &LedgerEntry) {
        let Some(account) = self.accounts.get_mut(&entry.user_id) else {
            self.strangers.insert(entry.user_id, entry.entry_id.clone());
            return;
        };
        if entry.user_version > account.version {
            return;
        }
        self.entries += 1;
        account.ledger_sum = account.ledger_sum.saturating_add(entry.amount);
        let said = entry.balance_after.get();
        if said != account.ledger_sum {
            self.broken_entries.push(Finding::EntryBalance {
                entry_id: entry.entry_id.clone(),
                said,
                left: account.ledger_sum,
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

    fn audit(user: Option<&User>, entries: &[LedgerEntry]) -> Vec<Finding> {
        let mut facts = Facts::default();
        user.into_iter().for_each(|user| facts.see_user(user));
        entries.iter().for_each(|entry| facts.see_entry(entry));
        check(&facts)
    }

    #[test]
    fn a_balance_that_is_the_sum_of_its_ledger_is_well() {
        let entries = [entry(1, 500, 500), entry(4, -200, 300)];
        assert_eq!(audit(Some(&user(300, 4)), &entries), []);
    }

    #[test]
    fn an_entry_made_after_its_user_was_read_is_left_for_the_next_audit() {
        let entries = [entry(1, 500, 500), entry(4, -200, 300)];
        assert_eq!(audit(Some(&user(500, 3)), &entries), []);
    }

    #[test]
    fn whatever_is_wrong_is_found() {
        let balance = |balance, ledger_sum| Finding::Balance {
            user_id: UserId(1),
            balance,
            ledger_sum,
        };
        assert_eq!(audit(Some(&user(7, 1)), &[]), [balance(7, 0)]);
        assert_eq!(audit(Some(&user(0, 1)), &[entry(1, 7, 7)]), [balance(0, 7)]);
        let wrong_step = Finding::EntryBalance {
            entry_id: "1:2".to_owned(),
            said: 9,
            left: 8,
        };
        let entries = [entry(1, 7, 7), entry(2, 1, 9)];
        assert_eq!(audit(Some(&user(8, 2)), &entries), [wrong_step]);
        let nobody = Finding::NoUser {
            entry_id: "1:1".to_owned(),
            user_id: UserId(1),
        };
        assert_eq!(audit(None, &[entry(1, 7, 7)]), [nobody]);
    }
}

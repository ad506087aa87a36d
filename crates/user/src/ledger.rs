//! The points ledger: one entry for each change of a balance. This module is the only one that changes a balance.

use contract::{
    Points, SagaId, Timestamp, UserId,
    text::{self, Invalid, REASON_CHARS_MAX},
};
use messaging::{Column, Commit, Entry, Table};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{model::User, points::Hold};

/// The highest balance that a grant may reach; far below the 64-bit limit, so that restoring points never overflows.
pub const BALANCE_MAX: i64 = 1_000_000_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EntryKind {
    Granted,
    /// Taken for a purchase.
    Reserved,
    /// Restored by a purchase.
    Restored,
    /// The purchase is paid. The amount is 0: the points were taken when they were reserved.
    Used,
}

/// One change of a balance; append-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// `<user>:<version of the user>`: sorts in the order of the changes.
    pub entry_id: String,
    pub user_id: UserId,
    /// The version of the user that this entry belongs to.
    pub user_version: i64,
    pub kind: EntryKind,
    /// Negative if points were taken.
    pub amount: i64,
    pub balance_after: Points,
    pub saga_id: Option<SagaId>,
    pub reason: Option<String>,
    pub at: Timestamp,
}

/// Records that are saved in one Commit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BalanceChange {
    pub user: Option<User>,
    pub hold: Option<Hold>,
    pub entry: Option<LedgerEntry>,
}

/// Grants points to a user.
///
/// # Errors
/// [`Invalid`] naming `amount` or `reason`.
pub fn grant(
    user: User,
    amount: i64,
    reason: Option<String>,
    now: Timestamp,
) -> Result<BalanceChange, Invalid> {
    if amount <= 0 {
        let detail = format!("{amount} is not above 0");
        return Err(Invalid::new("amount", detail));
    }
    let is_bad =
        |reason: &String| reason.chars().count() > REASON_CHARS_MAX || !text::is_plain(reason);
    if reason.as_ref().is_some_and(is_bad) {
        let detail = format!("the reason is not up to {REASON_CHARS_MAX} characters of text");
        return Err(Invalid::new("reason", detail));
    }
    let after = user.balance.get().checked_add(amount);
    let after = after.filter(|after| *after <= BALANCE_MAX);
    let Some(after) = after.and_then(|after| Points::new(after).ok()) else {
        let detail = format!("the balance would be over {BALANCE_MAX}");
        return Err(Invalid::new("amount", detail));
    };
    let cause = ChangeCause {
        kind: EntryKind::Granted,
        amount,
        saga_id: None,
        reason,
    };
    let mut change = BalanceChange::default();
    change.post(user, after, cause, now);
    Ok(change)
}

/// Why a balance changes.
pub(crate) struct ChangeCause {
    pub(crate) kind: EntryKind,
    /// Signed.
    pub(crate) amount: i64,
    pub(crate) saga_id: Option<SagaId>,
    pub(crate) reason: Option<String>,
}

impl ChangeCause {
    pub(crate) fn saga(kind: EntryKind, amount: i64, saga_id: SagaId) -> Self {
        Self {
            kind,
            amount,
            saga_id: Some(saga_id),
            reason: None,
        }
    }
}

impl BalanceChange {
    pub(crate) fn of_hold(hold: Hold) -> Self {
        Self {
            hold: Some(hold),
            ..Self::default()
        }
    }

    /// Changes a balance and appends its ledger entry.
    pub(crate) fn post(
        &mut self,
        mut user: User,
        after: Points,
        cause: ChangeCause,
        now: Timestamp,
    ) {
        let user_version = user.version + 1;
        self.entry = Some(LedgerEntry {
            entry_id: format!("{}:{user_version:016}", user.user_id),
            user_id: user.user_id,
            user_version,
            kind: cause.kind,
            amount: cause.amount,
            balance_after: after,
            saga_id: cause.saga_id,
            reason: cause.reason,
            at: now,
        });
        user.balance = after;
        user.updated_at = now;
        self.user = Some(user);
    }

    #[must_use]
    pub fn into_commit(self) -> Commit {
        let mut commit = Commit::new();
        if let Some(user) = &self.user {
            commit.put(user);
        }
        if let Some(hold) = &self.hold {
            commit.put(hold);
        }
        if let Some(entry) = &self.entry {
            commit.append(entry);
        }
        commit
    }
}

impl Entry for LedgerEntry {
    const TABLE: &'static Table = &Table {
        name: "point_ledger",
        columns: &[
            Column::text("entry_id"),
            Column::integer("user_id"),
            Column::integer("user_version"),
            Column::text("kind"),
            Column::integer("amount"),
            Column::integer("balance_after"),
            Column::text("saga_id").null(),
            Column::text("reason").null(),
            Column::text("at"),
        ],
        key: "entry_id",
        // The store, too, enforces that a saga takes, uses and restores points at most once each.
        constraints: &["CHECK (balance_after >= 0)", "UNIQUE (saga_id, kind)"],
        indexes: &["(user_id, entry_id)"],
    };
}

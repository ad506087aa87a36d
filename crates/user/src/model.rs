//! A user and its rules. Pure: ids and the time are passed in.

use contract::{Points, SagaId, Timestamp, UserId, text::Invalid};
use messaging::{Column, Record, Table};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::fraud::FraudVerdict;

/// The highest id that a client may give. Ids generated above it still fit in a JSON number (2^53).
pub const GIVEN_ID_MAX: i64 = 1_000_000_000_000_000;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    #[default]
    Active,
    /// May not buy.
    Inactive,
}

/// A stored user. The version counts all changes, including those of the balance and of recent purchases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub user_id: UserId,
    pub name: String,
    pub status: Status,
    /// An operator marked this user as fraudulent.
    pub flagged: bool,
    /// Always the sum of the user's ledger entries.
    pub balance: Points,
    /// Purchases that the fraud check has seen, oldest first.
    pub recent_purchases: Vec<PurchaseStart>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// The version in which an operator last changed name, status or flag; 0 in rows of an older program.
    pub profile_version: i64,
    pub version: i64,
}

/// A purchase that the fraud check has seen, with its verdict: a repeated check gets the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PurchaseStart {
    pub saga_id: SagaId,
    pub at: Timestamp,
    pub verdict: FraudVerdict,
}

impl User {
    /// A user without points; `ledger::grant` adds points together with their entry.
    #[must_use]
    pub fn new(user_id: UserId, name: String, status: Status, now: Timestamp) -> Self {
        Self {
            user_id,
            name,
            status,
            flagged: false,
            balance: Points::ZERO,
            recent_purchases: Vec::new(),
            created_at: now,
            updated_at: now,
            profile_version: 1,
            version: 0,
        }
    }

    /// Whether name, status and flag have not changed since `version`; points and purchases may have.
    #[must_use]
    pub fn has_unchanged_profile_since(&self, version: i64) -> bool {
        (self.profile_version..=self.version).contains(&version) && version > 0
    }

    #[must_use]
    pub fn is_active(&self) -> bool {
        match self.status {
            Status::Active => true,
            Status::Inactive => false,
        }
    }
}

/// # Errors
/// [`Invalid`] if a client may not give this id.
pub fn check_given_id(id: UserId) -> Result<(), Invalid> {
    if (1..=GIVEN_ID_MAX).contains(&id.0) {
        Ok(())
    } else {
        let detail = format!("{id} is not between 1 and {GIVEN_ID_MAX}");
        Err(Invalid::new("id", detail))
    }
}

impl Record for User {
    const TABLE: &'static Table = &Table {
        name: "app_user",
        columns: &[
            Column::integer("user_id"),
            Column::text("name"),
            Column::text("status"),
            Column::boolean("flagged"),
            Column::integer("balance"),
            Column::json("recent_purchases"),
            Column::text("created_at"),
            Column::text("updated_at"),
            Column::integer("profile_version"),
            Column::VERSION,
        ],
        key: "user_id",
        constraints: &[
            "CHECK (balance >= 0)",
            "CHECK (status IN ('ACTIVE', 'INACTIVE'))",
        ],
        indexes: &[],
    };
}

#[cfg(test)]
mod tests {
    use contract::text::check_name;

    use super::*;

    #[test]
    fn a_name_is_visible_and_not_too_long() {
        for name in ["", "  ", "\u{a0}", "a\nb", "a\0", &"é".repeat(201)] {
            assert_eq!(check_name(name).unwrap_err().field, "name", "{name:?}");
        }
        for name in ["a", " a ", "홍길동", &"é".repeat(200)] {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn a_given_id_is_positive_and_leaves_room_for_generated_ids() {
        for id in [0, -1, GIVEN_ID_MAX + 1, i64::MAX, i64::MIN] {
            assert_eq!(check_given_id(UserId(id)).unwrap_err().field, "id", "{id}");
        }
        for id in [1, GIVEN_ID_MAX] {
            assert_eq!(check_given_id(UserId(id)), Ok(()), "{id}");
        }
    }
}

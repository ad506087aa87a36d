//! Orphan charges: charges at the gateway that are not their payment's, such as a second charge of an order, or a charge
//! of a cancelled payment. The settler refunds them. The table keeps the name `payment_stray`.

use contract::{Money, PaymentId, Timestamp, domain::Refund};
use messaging::{Column, Record, Table};
use serde::{Deserialize, Serialize};

/// A charge to refund, by the gateway's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanChargeRecord {
    pub pg_payment_id: String,
    /// The payment of its order.
    pub payment_id: PaymentId,
    /// The balance to refund, as the gateway showed it.
    pub amount: Money,
    pub refund: Refund,
    pub reason: String,
    /// Refunds requested so far; each has its own idempotency key.
    pub refund_number: u32,
    /// Why the gateway refused the refund, or the last code of an answer that did not execute it.
    pub refund_code: Option<String>,
    /// When the refund was requested; an earlier version of the program did not store it.
    pub refund_requested_at: Option<Timestamp>,
    pub found_at: Timestamp,
    pub updated_at: Timestamp,
    pub version: i64,
}

impl OrphanChargeRecord {
    #[must_use]
    pub fn found(
        payment_id: PaymentId,
        pg_payment_id: &str,
        amount: Money,
        reason: &str,
        now: Timestamp,
    ) -> Self {
        Self {
            pg_payment_id: pg_payment_id.to_owned(),
            payment_id,
            amount,
            refund: Refund::Requested,
            reason: reason.to_owned(),
            refund_number: 1,
            refund_code: None,
            refund_requested_at: Some(now),
            found_at: now,
            updated_at: now,
            version: 0,
        }
    }

    /// Whether the refund is open.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.refund, Refund::Requested | Refund::Parked)
    }

    /// The idempotency key of the current refund.
    #[must_use]
    pub fn refund_key(&self) -> String {
        format!("{}:stray:{}", self.payment_id, self.refund_number)
    }

    #[must_use]
    pub fn finished(&self, now: Timestamp) -> Self {
        Self {
            refund: Refund::Done,
            refund_code: None,
            updated_at: now,
            ..self.clone()
        }
    }

    /// An operator is needed.
    #[must_use]
    pub fn parked(&self, code: &str, now: Timestamp) -> Self {
        Self {
            refund: Refund::Parked,
            refund_code: Some(code.to_owned()),
            updated_at: now,
            ..self.clone()
        }
    }

    /// The refund is not done so far, for this reason, and is repeated.
    #[must_use]
    pub fn delayed(&self, code: &str, now: Timestamp) -> Self {
        Self {
            refund_code: Some(code.to_owned()),
            // An earlier version did not store it.
            refund_requested_at: Some(self.refund_requested_since()),
            updated_at: now,
            ..self.clone()
        }
    }

    /// When the current refund was requested.
    #[must_use]
    pub fn refund_requested_since(&self) -> Timestamp {
        self.refund_requested_at.unwrap_or(self.updated_at)
    }

    /// Requests the refund again with a new key: it was found charged again, or an operator retries it.
    #[must_use]
    pub fn refund_requested_again(&self, now: Timestamp) -> Self {
        Self {
            refund: Refund::Requested,
            refund_number: self.refund_number + 1,
            refund_requested_at: Some(now),
            updated_at: now,
            ..self.clone()
        }
    }
}

impl Record for OrphanChargeRecord {
    const TABLE: &'static Table = &Table {
        name: "payment_stray",
        columns: &[
            Column::text("pg_payment_id"),
            Column::text("payment_id"),
            Column::integer("amount"),
            Column::text("refund"),
            Column::text("reason"),
            Column::integer("refund_number"),
            Column::text("refund_code").null(),
            Column::text("refund_requested_at").null(),
            Column::text("found_at"),
            Column::text("updated_at"),
            Column::VERSION,
        ],
        key: "pg_payment_id",
        constraints: &[
            "CHECK (refund IN ('REQUESTED', 'DONE', 'PARKED'))",
            "CHECK (amount >= 0)",
        ],
        indexes: &[
            "(refund, pg_payment_id) WHERE refund = 'REQUESTED'",
            "(refund, pg_payment_id) WHERE refund = 'PARKED'",
        ],
    };
}

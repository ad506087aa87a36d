//! Charges at the gateway that no payment stands for: a second charge of an order, or money that came back to a
//! payment that was cancelled. Nobody asked for them, and they go back by themselves.

use contract::{Money, PaymentId, Timestamp, domain::Refund};
use messaging::{Column, Key, Record, Table};
use serde::{Deserialize, Serialize};

/// A charge that is to be given back, by the gateway's name for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrphanChargeRecord {
    pub pg_payment_id: String,
    /// The payment whose order it was charged under.
    pub payment_id: PaymentId,
    /// What is to go back, as the gateway told it when it was found.
    pub amount: Money,
    pub refund: Refund,
    pub reason: String,
    /// How often it was asked back: each has an idempotency key of its own.
    pub refund_number: u32,
    /// Why the gateway refused to give it back, or the last code with which it did not.
    pub refund_code: Option<String>,
    /// Since when it is asked back; not known of one that an earlier version of the program found.
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

    /// Whether it is still to go back.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.refund, Refund::Requested | Refund::Parked)
    }

    /// The idempotency key under which it is asked back.
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

    /// The gateway refused: a person is needed.
    #[must_use]
    pub fn parked(&self, code: &str, now: Timestamp) -> Self {
        Self {
            refund: Refund::Parked,
            refund_code: Some(code.to_owned()),
            updated_at: now,
            ..self.clone()
        }
    }

    /// The gateway has not given it back, for this reason, and is asked on.
    #[must_use]
    pub fn delayed(&self, code: &str, now: Timestamp) -> Self {
        Self {
            refund_code: Some(code.to_owned()),
            // Of an earlier version's record, the time from which its age is counted.
            refund_requested_at: Some(self.refund_requested_since()),
            updated_at: now,
            ..self.clone()
        }
    }

    /// Since when it is asked back.
    #[must_use]
    pub fn refund_requested_since(&self) -> Timestamp {
        self.refund_requested_at.unwrap_or(self.updated_at)
    }

    /// It is asked back once more, under a new key: found again after it had gone back, or by a person's word.
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
            Column::integer("version"),
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
    fn key(&self) -> Key {
        self.pg_payment_id.as_str().into()
    }
    fn version(&self) -> i64 {
        self.version
    }
}

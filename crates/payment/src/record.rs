//! The tables of the payment service: payments, their history, and tombstones of payments that must never open. Further
//! records: orphan charges, received webhooks, reconciliations, and the gateway that the store is bound to.

mod gateway;
mod gateway_identity;
mod orphan_charge;
mod reconciliation;
#[cfg(test)]
pub(crate) mod sample;
mod webhook;

use contract::{
    EventId, Money, PaymentId, Points, SagaId, TicketId, Timestamp, UserId, domain::PaymentStatus,
};
use messaging::{Column, Entry, Record, Table};
use serde::{Deserialize, Serialize};

pub use contract::domain::Refund;
pub use gateway::GatewayRecord;
pub use gateway_identity::Identity;
pub use orphan_charge::OrphanChargeRecord;
pub use reconciliation::ReconciliationRecord;
pub use webhook::{WebhookRecord, WebhookState};

/// A payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRecord {
    pub payment_id: PaymentId,
    pub saga_id: SagaId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub ticket_id: TicketId,
    pub status: PaymentStatus,
    pub total_amount: Money,
    pub point_amount: Points,
    /// The amount to pay at the gateway.
    pub final_amount: Money,
    /// The gateway's key of the current or last attempt; of a free payment `free-{paymentId}`.
    pub pg_payment_id: Option<String>,
    /// Attempts so far.
    pub attempt: u32,
    /// The idempotency key of the current or last attempt.
    pub attempt_key: Option<String>,
    pub attempt_started_at: Option<Timestamp>,
    /// Why the last attempt failed.
    pub decline_code: Option<String>,
    /// The saga whose deletion waits for the outcome of the attempt.
    pub delete_saga: Option<SagaId>,
    pub refund: Refund,
    pub refund_reason: Option<String>,
    /// Refunds requested so far; each has its own idempotency key.
    pub refund_number: u32,
    /// The saga that requested the refund, and gets the response.
    pub refund_saga: Option<SagaId>,
    /// Why the gateway refused the last refund, or the last code of an answer that did not execute it.
    pub refund_code: Option<String>,
    /// When the current refund was requested; an earlier version of the program did not store it.
    pub refund_requested_at: Option<Timestamp>,
    /// The virtual account for the buyer's deposit: the gateway's code of its bank,
    pub deposit_bank: Option<String>,
    /// the account,
    pub deposit_account: Option<String>,
    /// and the deadline of the deposit, as the gateway writes it.
    pub deposit_due: Option<String>,
    /// The account that receives the refund of a deposit: the gateway's code of the bank,
    pub refund_bank: Option<String>,
    /// the account,
    pub refund_account: Option<String>,
    /// and its holder.
    pub refund_holder: Option<String>,
    /// The last instant at which an attempt may begin.
    pub expires_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub version: i64,
}

impl Record for PaymentRecord {
    const TABLE: &'static Table = &Table {
        name: "payment",
        columns: &[
            Column::text("payment_id"),
            Column::text("saga_id"),
            Column::integer("event_id"),
            Column::integer("user_id"),
            Column::text("ticket_id"),
            Column::text("status"),
            Column::integer("total_amount"),
            Column::integer("point_amount"),
            Column::integer("final_amount"),
            Column::text("pg_payment_id").null(),
            Column::integer("attempt"),
            Column::text("attempt_key").null(),
            Column::text("attempt_started_at").null(),
            Column::text("decline_code").null(),
            Column::text("delete_saga").null(),
            Column::text("refund"),
            Column::text("refund_reason").null(),
            Column::integer("refund_number"),
            Column::text("refund_saga").null(),
            Column::text("refund_code").null(),
            Column::text("refund_requested_at").null(),
            Column::text("deposit_bank").null(),
            Column::text("deposit_account").null(),
            Column::text("deposit_due").null(),
            Column::text("refund_bank").null(),
            Column::text("refund_account").null(),
            Column::text("refund_holder").null(),
            Column::text("expires_at").null(),
            Column::text("created_at"),
            Column::text("updated_at"),
            Column::VERSION,
        ],
        key: "payment_id",
        constraints: &[
            "CHECK (status IN ('CREATED', 'CONFIRMING', 'SUCCEEDED', 'FAILED', 'CANCELLED', 'DELETED'))",
            "CHECK (refund IN ('NONE', 'REQUESTED', 'DONE', 'PARKED'))",
            "CHECK (total_amount >= 0 AND point_amount >= 0 AND final_amount >= 0)",
            "CHECK (final_amount = total_amount - point_amount)",
            "CHECK (attempt >= 0)",
            "CHECK (status <> 'CONFIRMING' OR (attempt > 0 AND attempt_key IS NOT NULL AND attempt_started_at IS NOT NULL))",
            "CHECK (status NOT IN ('CONFIRMING', 'SUCCEEDED', 'CANCELLED') OR pg_payment_id IS NOT NULL)",
            // Only a charged payment has a refund, and a cancelled payment is a refunded one.
            "CHECK (refund = 'NONE' OR status IN ('SUCCEEDED', 'CANCELLED'))",
            "CHECK ((status = 'CANCELLED') = (refund = 'DONE'))",
        ],
        // The open ones, in the order of their pages.
        indexes: &[
            "(status, payment_id) WHERE status = 'CONFIRMING'",
            "(refund, payment_id) WHERE refund = 'REQUESTED'",
            "(refund, payment_id) WHERE refund = 'PARKED'",
            // For the period of a reconciliation.
            "(updated_at) WHERE attempt > 0",
            "(attempt_started_at) WHERE attempt > 0",
        ],
    };
}

/// One change of a payment; each version has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// `{payment}:{version}`.
    pub entry_id: String,
    pub payment_id: PaymentId,
    pub payment_version: i64,
    pub status: PaymentStatus,
    pub attempt: u32,
    pub pg_payment_id: Option<String>,
    /// What happened, for people.
    pub note: String,
    pub at: Timestamp,
}

impl HistoryEntry {
    #[must_use]
    pub fn id(payment: PaymentId, version: i64) -> String {
        format!("{payment}:{version}")
    }
}

impl Entry for HistoryEntry {
    const TABLE: &'static Table = &Table {
        name: "payment_history",
        columns: &[
            Column::text("entry_id"),
            Column::text("payment_id"),
            Column::integer("payment_version"),
            Column::text("status"),
            Column::integer("attempt"),
            Column::text("pg_payment_id").null(),
            Column::text("note"),
            Column::text("at"),
        ],
        key: "entry_id",
        constraints: &[],
        indexes: &[],
    };
}

/// Why a payment must never open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TombstoneReason {
    /// Its deletion came before its creation.
    DeletedFirst,
    /// Its points are worth more than its amount.
    TooManyPoints,
}

/// A payment that must never open: a late or repeated request to create it is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TombstoneRecord {
    pub payment_id: PaymentId,
    pub reason: TombstoneReason,
    pub created_at: Timestamp,
    pub version: i64,
}

impl TombstoneRecord {
    /// For a deletion that came first: the entry of the payment's first version, which its creation would add. So only one
    /// of the two is stored, even if two processes decide them at the same time.
    #[must_use]
    pub fn entry(&self) -> HistoryEntry {
        HistoryEntry {
            entry_id: HistoryEntry::id(self.payment_id, 1),
            payment_id: self.payment_id,
            payment_version: 1,
            // No other entry has this status without an attempt: the payment has never opened.
            status: PaymentStatus::Failed,
            attempt: 0,
            pg_payment_id: None,
            note: "deleted before it was created".to_owned(),
            at: self.created_at,
        }
    }
}

impl Record for TombstoneRecord {
    const TABLE: &'static Table = &Table {
        name: "payment_tombstone",
        columns: &[
            Column::text("payment_id"),
            Column::text("reason"),
            Column::text("created_at"),
            Column::VERSION,
        ],
        key: "payment_id",
        constraints: &["CHECK (reason IN ('DELETED_FIRST', 'TOO_MANY_POINTS'))"],
        indexes: &[],
    };
}

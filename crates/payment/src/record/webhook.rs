//! Received webhooks: committed before they are answered, handled afterwards.

use contract::{PaymentId, Timestamp};
use messaging::{Column, Record, Table};
use serde::{Deserialize, Serialize};

/// The state of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WebhookState {
    /// The gateway has not been asked yet.
    Received,
    Handled,
    /// The gateway does not confirm it.
    Ignored,
}

/// A webhook about a payment of this service. It is only a hint to look the payment up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookRecord {
    /// The gateway's id, the same for every delivery.
    pub transmission_id: String,
    /// `PAYMENT_STATUS_CHANGED` or `DEPOSIT_CALLBACK`.
    pub kind: String,
    pub payment_id: PaymentId,
    /// The charge, if the webhook names one.
    pub pg_payment_id: Option<String>,
    /// The status in the webhook; not trusted.
    pub told_status: String,
    /// A deposit webhook counts only if this is the secret of its charge.
    pub secret: Option<String>,
    pub state: WebhookState,
    /// The result, for people.
    pub note: Option<String>,
    pub received_at: Timestamp,
    pub updated_at: Timestamp,
    pub version: i64,
}

impl WebhookRecord {
    #[must_use]
    pub fn closed(&self, state: WebhookState, note: &str, now: Timestamp) -> Self {
        Self {
            state,
            note: Some(note.to_owned()),
            updated_at: now,
            // No longer needed.
            secret: None,
            ..self.clone()
        }
    }
}

impl Record for WebhookRecord {
    const TABLE: &'static Table = &Table {
        name: "payment_webhook",
        columns: &[
            Column::text("transmission_id"),
            Column::text("kind"),
            Column::text("payment_id"),
            Column::text("pg_payment_id").null(),
            Column::text("told_status"),
            Column::text("secret").null(),
            Column::text("state"),
            Column::text("note").null(),
            Column::text("received_at"),
            Column::text("updated_at"),
            Column::VERSION,
        ],
        key: "transmission_id",
        constraints: &["CHECK (state IN ('RECEIVED', 'HANDLED', 'IGNORED'))"],
        indexes: &[
            "(transmission_id) WHERE state = 'RECEIVED'",
            "(updated_at) WHERE state <> 'RECEIVED'",
        ],
    };
}

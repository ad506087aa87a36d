//! The use case `receive_webhook`. A webhook is committed before it is answered, and the settler handles it afterwards.
//! Webhooks are not signed: each is only a hint to look the payment up.
//! Source: <https://docs.tosspayments.com/reference/using-api/webhook-events>.

use contract::PaymentId;
use messaging::{Commit, CommitError, StoreError, sha256};
use serde_json::Value;
use toss::protocol::PAYMENT_STATUS_CHANGED;

use crate::{
    Service,
    record::{WebhookRecord, WebhookState},
};

/// The stored kind of a deposit webhook; the gateway sends it without one.
pub const DEPOSIT_CALLBACK: &str = "DEPOSIT_CALLBACK";
/// A longer id of a webhook is replaced by its hash.
const TRANSMISSION_ID_CHARS_MAX: usize = 200;
/// A longer stored text is truncated.
const TEXT_CHARS_MAX: usize = 200;

/// A webhook as received.
#[derive(Debug, Clone)]
pub struct ReceiveWebhookInput {
    /// The header `tosspayments-webhook-transmission-id`, if any.
    pub transmission_id: Option<String>,
    pub body: Value,
}

/// What was done before the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveWebhookOutput {
    /// Stored, to be handled.
    Stored,
    /// Stored before.
    Duplicate,
    /// Not about a payment of this service.
    NotOurs,
}

/// Why a webhook was not stored.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the webhook has no text in the field {name}; expected eventType, data.orderId and data.status, or for a deposit orderId, status and secret"
    )]
    Field { name: &'static str },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Service {
    /// Stores a webhook about a payment of this service, once.
    ///
    /// # Errors
    /// [`Error::Field`] if the body is no webhook; [`Error::Store`] if it could not be stored: the gateway sends it again.
    pub async fn receive_webhook(
        &self,
        input: ReceiveWebhookInput,
    ) -> Result<ReceiveWebhookOutput, Error> {
        let received = self.store_webhook(input).await;
        self.inner.metrics.webhook(match &received {
            Ok(ReceiveWebhookOutput::Stored) => "kept",
            Ok(ReceiveWebhookOutput::Duplicate) => "duplicate",
            Ok(ReceiveWebhookOutput::NotOurs) => "not_ours",
            Err(Error::Field { .. }) => "wrong",
            Err(Error::Store(_)) => "failed",
        });
        received
    }

    async fn store_webhook(
        &self,
        input: ReceiveWebhookInput,
    ) -> Result<ReceiveWebhookOutput, Error> {
        let Some(hint) = read(&input.body)? else {
            return Ok(ReceiveWebhookOutput::NotOurs);
        };
        let Ok(payment_id) = hint.order_id.parse::<PaymentId>() else {
            return Ok(ReceiveWebhookOutput::NotOurs);
        };
        if self.show(payment_id).await?.is_none() {
            return Ok(ReceiveWebhookOutput::NotOurs);
        }
        let now = self.inner.clock.now();
        let webhook = WebhookRecord {
            transmission_id: webhook_id(input.transmission_id, &input.body),
            kind: hint.kind.to_owned(),
            payment_id,
            pg_payment_id: hint.pg_payment_id,
            told_status: hint.status,
            secret: hint.secret,
            state: WebhookState::Received,
            note: None,
            received_at: now,
            updated_at: now,
            version: 0,
        };
        let mut commit = Commit::new();
        commit.put(&webhook);
        fail::fail_point!("payment.before_webhook", |_| std::process::abort());
        match self.inner.store.commit(commit).await {
            Ok(()) => {
                fail::fail_point!("payment.after_webhook", |_| std::process::abort());
                self.inner.wake.webhooks.notify_one();
                Ok(ReceiveWebhookOutput::Stored)
            }
            Err(CommitError::Conflict { .. }) => Ok(ReceiveWebhookOutput::Duplicate),
            Err(CommitError::Store(error)) => Err(error.into()),
            Err(error) => Err(StoreError::Unavailable(error.to_string()).into()),
        }
    }
}

/// The content of a webhook that is used.
struct Hint {
    kind: &'static str,
    order_id: String,
    pg_payment_id: Option<String>,
    status: String,
    secret: Option<String>,
}

/// `None` for a kind of webhook that this service does not use.
fn read(body: &Value) -> Result<Option<Hint>, Error> {
    match body.get("eventType") {
        Some(Value::String(kind)) if kind == PAYMENT_STATUS_CHANGED => {
            let data = &body["data"];
            Ok(Some(Hint {
                kind: PAYMENT_STATUS_CHANGED,
                order_id: text(data, "orderId", "data.orderId")?,
                pg_payment_id: data["paymentKey"].as_str().map(truncated),
                status: text(data, "status", "data.status")?,
                secret: None,
            }))
        }
        Some(Value::String(_)) => Ok(None),
        None | Some(Value::Null) => Ok(Some(Hint {
            kind: DEPOSIT_CALLBACK,
            order_id: text(body, "orderId", "orderId")?,
            pg_payment_id: None,
            status: text(body, "status", "status")?,
            secret: Some(text(body, "secret", "secret")?),
        })),
        Some(_) => Err(Error::Field { name: "eventType" }),
    }
}

fn text(object: &Value, field: &str, name: &'static str) -> Result<String, Error> {
    object[field]
        .as_str()
        .map(truncated)
        .ok_or(Error::Field { name })
}

fn truncated(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

/// The id of a webhook: the gateway's, or the hash of the body.
fn webhook_id(transmission_id: Option<String>, body: &Value) -> String {
    let is_usable = |id: &String| (1..=TRANSMISSION_ID_CHARS_MAX).contains(&id.len());
    match transmission_id {
        Some(id) if is_usable(&id) => id,
        Some(id) => sha256(&[id.as_bytes()]).name(),
        None => sha256(&[body.to_string().as_bytes()]).name(),
    }
}

//! The use case `hear`: the gateway tells something unasked. It is made durable before it is answered, and handled
//! afterwards by the settler. Webhooks about payments are not signed: each is a hint, and what is so is looked up.
//! Source: <https://docs.tosspayments.com/reference/using-api/webhook-events>.

use contract::PaymentId;
use messaging::{Commit, CommitError, StoreError, sha256};
use serde_json::Value;

use crate::{
    Service,
    gateway::protocol::PAYMENT_STATUS_CHANGED,
    record::{WebhookRecord, WebhookState},
};

/// The name under which a deposit's webhook is kept; it has none of its own.
/// The kind under which a webhook of a deposit is kept; the gateway sends it without one.
pub const DEPOSIT_CALLBACK: &str = "DEPOSIT_CALLBACK";
/// A name of a webhook that is longer is replaced by its hash.
const TRANSMISSION_ID_CHARS_MAX: usize = 200;
/// What a webhook may say in a field that is kept.
const TEXT_CHARS_MAX: usize = 200;

/// A webhook as it came.
#[derive(Debug, Clone)]
pub struct ReceiveWebhookInput {
    /// The header `tosspayments-webhook-transmission-id`, where there is one.
    pub transmission_id: Option<String>,
    pub body: Value,
}

/// What was done about it before it was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveWebhookOutput {
    /// It is kept, and will be handled.
    Stored,
    /// It was kept before.
    Duplicate,
    /// It is about nothing that is ours.
    NotOurs,
}

/// What is wrong with a webhook.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the webhook has no text in its field {name}: the gateway sends eventType, data.orderId and data.status, or of a deposit orderId, status and secret"
    )]
    Field { name: &'static str },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Service {
    /// Keeps a webhook. Only what is about a payment of ours is kept, and each once.
    ///
    /// # Errors
    /// [`Error::Field`] where it is none; [`Error::Store`] where it could not be kept: the gateway sends it again.
    pub async fn receive_webhook(
        &self,
        input: ReceiveWebhookInput,
    ) -> Result<ReceiveWebhookOutput, Error> {
        let heard = self.store_webhook(input).await;
        self.inner.metrics.webhook(match &heard {
            Ok(ReceiveWebhookOutput::Stored) => "kept",
            Ok(ReceiveWebhookOutput::Duplicate) => "duplicate",
            Ok(ReceiveWebhookOutput::NotOurs) => "not_ours",
            Err(Error::Field { .. }) => "wrong",
            Err(Error::Store(_)) => "failed",
        });
        heard
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
            transmission_id: name(input.transmission_id, &input.body),
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

/// What a webhook hints at.
struct Hint {
    kind: &'static str,
    order_id: String,
    pg_payment_id: Option<String>,
    status: String,
    secret: Option<String>,
}

/// `None` where it is of a kind that is not for us.
fn read(body: &Value) -> Result<Option<Hint>, Error> {
    match body.get("eventType") {
        Some(Value::String(kind)) if kind == PAYMENT_STATUS_CHANGED => {
            let data = &body["data"];
            Ok(Some(Hint {
                kind: PAYMENT_STATUS_CHANGED,
                order_id: text(data, "orderId", "data.orderId")?,
                pg_payment_id: data["paymentKey"].as_str().map(cut),
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
    object[field].as_str().map(cut).ok_or(Error::Field { name })
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

/// Without a name of the gateway's making, the same body is the same webhook.
fn name(transmission_id: Option<String>, body: &Value) -> String {
    let is_usable = |id: &String| (1..=TRANSMISSION_ID_CHARS_MAX).contains(&id.len());
    match transmission_id {
        Some(id) if is_usable(&id) => id,
        Some(id) => sha256(&[id.as_bytes()]).name(),
        None => sha256(&[body.to_string().as_bytes()]).name(),
    }
}

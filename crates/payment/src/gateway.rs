//! The client of the payment gateway: it speaks the Toss Payments protocol and turns every answer, and every
//! silence, into one of three outcomes: approved, declined, or not known.
//!
//! It owns a pool of connections and nothing else. "Not known" is an honest answer here: the caller records the
//! attempt before asking, and settles it later by [`Gateway::find_by_key`] or [`Gateway::find_by_order`].
//! The protocol: <https://docs.tosspayments.com/reference>.

mod codes;
mod outcome;
pub mod protocol;
mod transport;

use std::fmt;
use std::sync::Arc;

use reqwest::Url;
use serde::{Deserialize, Serialize};

pub use codes::{ErrorCode, Meaning};
pub use outcome::{Charge, Lookup, Outcome};
pub use protocol::ChargeStatus;

use outcome::{Doubt, Refusal};
use protocol::{CancelBody, ConfirmBody};
use transport::{Call, Transport};

/// Where the gateway is and how patient we are with it.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `https://api.tosspayments.com`, or the address of a sandbox (plain `http://` is allowed).
    pub base_url: String,
    pub secret_key: SecretKey,
    pub connect_timeout_millis: u64,
    /// The whole exchange: waiting for a free slot, connecting, sending, and reading the last byte.
    pub request_timeout_millis: u64,
    /// Requests under way at once; further ones wait within their own timeout.
    pub max_connections: usize,
}

impl Default for Settings {
    /// The live gateway, without a secret: [`Gateway::new`] refuses until one is set.
    fn default() -> Self {
        Self {
            base_url: "https://api.tosspayments.com".to_owned(),
            secret_key: SecretKey::new(""),
            connect_timeout_millis: 2_000,
            request_timeout_millis: 10_000,
            max_connections: 256,
        }
    }
}

/// The merchant's secret. It can be sent, but never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct SecretKey(String);

impl SecretKey {
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The value of the `Authorization` header (RFC 7617: the key is the user, the password is empty).
    pub(crate) fn basic_authorization(&self) -> String {
        protocol::basic_authorization(&self.0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// Take the money of a payment that the buyer has authenticated.
#[derive(Clone, Debug)]
pub struct Confirm {
    /// The gateway's name for the payment.
    pub payment_key: String,
    /// Our name for it: 6 to 64 characters of letters, digits, `-`, `_` and `=`.
    pub order_id: String,
    /// Minor units.
    pub amount: i64,
    /// At most 300 characters; the same key gets the first answer again, for 15 days.
    pub idempotency_key: String,
    /// Makes a test gateway answer this error; ignored by the live one.
    pub test_code: Option<String>,
}

/// Give money back.
#[derive(Clone, Debug)]
pub struct Cancel {
    pub payment_key: String,
    /// Shown to the buyer: 1 to 200 characters.
    pub reason: String,
    /// Minor units; `None` gives back everything that is left.
    pub amount: Option<i64>,
    /// Where the money of a virtual account goes.
    pub refund_account: Option<protocol::RefundAccount>,
    /// At most 300 characters; the same key gets the first answer again, for 15 days.
    pub idempotency_key: String,
    /// Makes a test gateway answer this error; ignored by the live one.
    pub test_code: Option<String>,
}

/// Why a client could not be made. Nothing here carries the secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error("the gateway's base url is not an http or https address without query")]
    BaseUrl,
    #[error("the gateway's secret key is empty or cannot stand in a header")]
    SecretKey,
    #[error("the gateway's {name} must be at least 1")]
    Limit { name: &'static str },
    #[error("the TLS settings were refused")]
    Tls(#[source] rustls::Error),
    #[error("the HTTP client could not be made")]
    Client(#[source] reqwest::Error),
}

/// The client. Cloning it shares its connections.
#[derive(Clone, Debug)]
pub struct Gateway {
    transport: Arc<Transport>,
}

impl Gateway {
    /// # Errors
    /// When a setting cannot work; the gateway itself is not asked.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        Ok(Self {
            transport: Arc::new(Transport::new(settings)?),
        })
    }

    /// Takes the money. [`Outcome::Approved`] means that exactly this payment was charged exactly this amount.
    pub async fn confirm(&self, confirm: &Confirm) -> Outcome {
        if let Err(refusal) = refuse_unsendable(&confirm.payment_key, &confirm.idempotency_key) {
            return refusal.into();
        }
        let body = ConfirmBody {
            payment_key: confirm.payment_key.clone(),
            order_id: confirm.order_id.clone(),
            amount: confirm.amount,
        };
        let call = Call {
            url: self.transport.url(&protocol::CONFIRM_PATH),
            idempotency_key: &confirm.idempotency_key,
            test_code: confirm.test_code.as_deref(),
        };
        match self.post(call, &body).await {
            Ok(answer) => outcome::of_confirm(confirm, &answer),
            Err(doubt) => doubt.into(),
        }
    }

    /// Gives money back. [`Outcome::Approved`] means that this cancellation has been done, once.
    pub async fn cancel(&self, cancel: &Cancel) -> Outcome {
        if let Err(refusal) = refuse_unsendable(&cancel.payment_key, &cancel.idempotency_key) {
            return refusal.into();
        }
        let body = CancelBody {
            cancel_reason: cancel.reason.clone(),
            cancel_amount: cancel.amount,
            refund_receive_account: cancel.refund_account.clone(),
        };
        let call = Call {
            url: self
                .transport
                .url(&protocol::cancel_path(&cancel.payment_key)),
            idempotency_key: &cancel.idempotency_key,
            test_code: cancel.test_code.as_deref(),
        };
        match self.post(call, &body).await {
            Ok(answer) => outcome::of_cancel(cancel, &answer),
            Err(doubt) => doubt.into(),
        }
    }

    /// Where the payment with the gateway's key stands.
    pub async fn find_by_key(&self, payment_key: &str) -> Lookup {
        let url = self.transport.url(&protocol::payment_path(payment_key));
        self.find(payment_key, url, |charge| charge.payment_key == payment_key)
            .await
    }

    /// Where the payment of our order stands.
    pub async fn find_by_order(&self, order_id: &str) -> Lookup {
        let url = self.transport.url(&protocol::order_path(order_id));
        self.find(order_id, url, |charge| charge.order_id == order_id)
            .await
    }

    async fn find(&self, key: &str, url: Url, is_asked: impl Fn(&Charge) -> bool) -> Lookup {
        if !protocol::is_path_key(key) {
            return Doubt::UnsendableKey.into();
        }
        match self.transport.get(url).await {
            Ok(answer) => outcome::of_lookup(&answer, is_asked),
            Err(doubt) => doubt.into(),
        }
    }

    async fn post(&self, call: Call<'_>, body: &impl Serialize) -> Result<outcome::Answer, Doubt> {
        let body = serde_json::to_vec(body).map_err(|_| Doubt::Unserialisable)?;
        self.transport.post(call, body).await
    }
}

/// What the gateway would certainly refuse, or what would reach another address than the one meant, is not sent.
fn refuse_unsendable(payment_key: &str, idempotency_key: &str) -> Result<(), Refusal> {
    if !protocol::is_path_key(payment_key) {
        return Err(Refusal::unsent(ErrorCode::InvalidPaymentKey));
    }
    if !protocol::is_idempotency_key(idempotency_key) {
        return Err(Refusal::unsent(ErrorCode::InvalidIdempotencyKey));
    }
    Ok(())
}

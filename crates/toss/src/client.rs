//! The client: which requests are sent where, and which are not sent at all. `outcome` and `listing` judge the answers.
//! The protocol: <https://docs.tosspayments.com/reference>.

use std::sync::Arc;

use reqwest::Url;
use serde::Serialize;

use super::codes::ErrorCode;
use super::outcome::{Inconclusive, RawAnswer};
use super::protocol::{self, CancelBody, ConfirmBody};
use super::transport::{Call, LISTING_BYTES_MAX, RESPONSE_BYTES_MAX, Transport};
use super::{
    Cancel, Charge, Confirm, Error, GatewayOutcome, Listing, Lookup, Period, SecretKey, Settings,
    korea, listing, outcome,
};

/// The client. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Arc<Transport>,
    /// Removed from every answer that quotes it.
    secret_key: SecretKey,
}

impl Client {
    /// # Errors
    /// If a setting cannot work; the gateway itself is not asked.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        Ok(Self {
            transport: Arc::new(Transport::new(settings)?),
            secret_key: settings.secret_key.clone(),
        })
    }

    /// Charges a payment. [`GatewayOutcome::Approved`] proves that exactly this payment was charged exactly this amount;
    /// [`GatewayOutcome::Declined`] that this request moved no money and never will. The request is sent once.
    pub async fn confirm(&self, confirm: &Confirm) -> GatewayOutcome {
        if let Some(refusal) = refuse_unsendable(&confirm.payment_key, &confirm.idempotency_key) {
            return refusal;
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
            Err(reason) => reason.into(),
        }
    }

    /// Cancels a payment. [`GatewayOutcome::Approved`] proves that this cancellation was executed once;
    /// [`GatewayOutcome::Declined`] that it was not and never will be. The request is sent once.
    pub async fn cancel(&self, cancel: &Cancel) -> GatewayOutcome {
        if let Some(refusal) = refuse_unsendable(&cancel.payment_key, &cancel.idempotency_key) {
            return refusal;
        }
        let body = CancelBody {
            cancel_reason: cancel.reason.clone(),
            cancel_amount: cancel.amount,
            refund_receive_account: cancel.refund_account.clone(),
        };
        let path = protocol::cancel_path(&cancel.payment_key);
        let call = Call {
            url: self.transport.url(&path),
            idempotency_key: &cancel.idempotency_key,
            test_code: cancel.test_code.as_deref(),
        };
        match self.post(call, &body).await {
            Ok(answer) => outcome::of_cancel(cancel, &answer),
            Err(reason) => reason.into(),
        }
    }

    /// Looks a payment up by the gateway's key. [`Lookup::NotFound`] only on the gateway's own error code. A broken
    /// connection is retried at once, as often as configured.
    pub async fn find_by_key(&self, payment_key: &str) -> Lookup {
        let url = self.transport.url(&protocol::payment_path(payment_key));
        self.find(payment_key, url, |charge| charge.payment_key == payment_key)
            .await
    }

    /// Looks a payment up by the merchant's order id; otherwise as [`Self::find_by_key`].
    pub async fn find_by_order(&self, order_id: &str) -> Lookup {
        let url = self.transport.url(&protocol::order_path(order_id));
        self.find(order_id, url, |charge| charge.order_id == order_id)
            .await
    }

    /// Lists a page of transactions, oldest first: at most `limit` (clamped to 1 to 5000), after the transaction with the
    /// key `after`. A row that cannot be read is counted and hides no other. To continue, pass the key of the last
    /// transaction of the page, until a page is the last; every other page has such a transaction. Retries as
    /// [`Self::find_by_key`].
    pub async fn transactions(&self, period: &Period, after: Option<&str>, limit: u32) -> Listing {
        let limit = limit.clamp(1, protocol::TRANSACTIONS_MAX);
        let mut url = self.transport.url(&protocol::TRANSACTIONS_PATH);
        url.query_pairs_mut()
            .append_pair("startDate", &korea::query_time(period.from))
            .append_pair("endDate", &korea::query_time(period.to))
            .append_pair("limit", &limit.to_string())
            .extend_pairs(after.map(|key| ("startingAfter", key)));
        match self.transport.get(url, LISTING_BYTES_MAX).await {
            Ok(answer) => listing::of_page(&self.without_secret(answer), after, limit),
            Err(reason) => reason.into(),
        }
    }

    async fn find(&self, key: &str, url: Url, is_asked: impl Fn(&Charge) -> bool) -> Lookup {
        if !protocol::is_path_key(key) {
            return Inconclusive::UnsendableKey.into();
        }
        match self.transport.get(url, RESPONSE_BYTES_MAX).await {
            Ok(answer) => outcome::of_lookup(&self.without_secret(answer), is_asked),
            Err(reason) => reason.into(),
        }
    }

    async fn post(&self, call: Call<'_>, body: &impl Serialize) -> Result<RawAnswer, Inconclusive> {
        let body = serde_json::to_vec(body).map_err(|_| Inconclusive::Unserialisable)?;
        let answer = self.transport.post(call, body).await?;
        Ok(self.without_secret(answer))
    }

    /// Error messages are shown and stored, and a peer may quote the request in them.
    fn without_secret(&self, mut answer: RawAnswer) -> RawAnswer {
        if answer.status != 200 {
            let text = String::from_utf8_lossy(&answer.body);
            answer.body = self.secret_key.hidden_in(&text).into_bytes();
        }
        answer
    }
}

/// Refuses what the gateway would certainly refuse, and a key that would change the address of the request.
fn refuse_unsendable(payment_key: &str, idempotency_key: &str) -> Option<GatewayOutcome> {
    let code = if !protocol::is_path_key(payment_key) {
        ErrorCode::INVALID_PAYMENT_KEY
    } else if !protocol::is_idempotency_key(idempotency_key) {
        ErrorCode::INVALID_IDEMPOTENCY_KEY
    } else {
        return None;
    };
    Some(GatewayOutcome::Declined {
        code: code.name().to_owned(),
        message: "not sent: the gateway would refuse it".to_owned(),
    })
}

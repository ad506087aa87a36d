//! The client of Toss Payments: what is asked, where, and what is not sent at all. What the answers mean stands in
//! `outcome` and `listing`. The protocol: <https://docs.tosspayments.com/reference>.

use std::sync::Arc;

use reqwest::Url;
use serde::Serialize;

use super::codes::ErrorCode;
use super::outcome::{Answer, Doubt, Refusal};
use super::protocol::{self, CancelBody, ConfirmBody};
use super::transport::{Call, LISTING_BYTES_MAX, RESPONSE_BYTES_MAX, Transport};
use super::{
    Cancel, Charge, Confirm, Error, Listing, Lookup, Outcome, Period, SecretKey, Settings, listing,
    outcome,
};

/// Cloning it shares its connections.
#[derive(Clone, Debug)]
pub(super) struct Toss {
    transport: Arc<Transport>,
    /// Kept to be looked for in what comes back.
    secret_key: SecretKey,
}

impl Toss {
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        Ok(Self {
            transport: Arc::new(Transport::new(settings)?),
            secret_key: settings.secret_key.clone(),
        })
    }

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

    pub async fn cancel(&self, cancel: &Cancel) -> Outcome {
        if let Err(refusal) = refuse_unsendable(&cancel.payment_key, &cancel.idempotency_key) {
            return refusal.into();
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
            Err(doubt) => doubt.into(),
        }
    }

    pub async fn find_by_key(&self, payment_key: &str) -> Lookup {
        let url = self.transport.url(&protocol::payment_path(payment_key));
        self.find(payment_key, url, |charge| charge.payment_key == payment_key)
            .await
    }

    pub async fn find_by_order(&self, order_id: &str) -> Lookup {
        let url = self.transport.url(&protocol::order_path(order_id));
        self.find(order_id, url, |charge| charge.order_id == order_id)
            .await
    }

    pub async fn transactions(&self, period: &Period, after: Option<&str>, limit: u32) -> Listing {
        let limit = limit.clamp(1, protocol::TRANSACTIONS_MAX);
        let mut url = self.transport.url(&protocol::TRANSACTIONS_PATH);
        url.query_pairs_mut()
            .append_pair("startDate", &listing::in_korean_time(period.from))
            .append_pair("endDate", &listing::in_korean_time(period.to))
            .append_pair("limit", &limit.to_string())
            .extend_pairs(after.map(|key| ("startingAfter", key)));
        match self.transport.get(url, LISTING_BYTES_MAX).await {
            Ok(answer) => listing::of_page(&self.without_secret(answer), after, limit),
            Err(doubt) => doubt.into(),
        }
    }

    async fn find(&self, key: &str, url: Url, is_asked: impl Fn(&Charge) -> bool) -> Lookup {
        if !protocol::is_path_key(key) {
            return Doubt::UnsendableKey.into();
        }
        match self.transport.get(url, RESPONSE_BYTES_MAX).await {
            Ok(answer) => outcome::of_lookup(&self.without_secret(answer), is_asked),
            Err(doubt) => doubt.into(),
        }
    }

    async fn post(&self, call: Call<'_>, body: &impl Serialize) -> Result<Answer, Doubt> {
        let body = serde_json::to_vec(body).map_err(|_| Doubt::Unserialisable)?;
        let answer = self.transport.post(call, body).await?;
        Ok(self.without_secret(answer))
    }

    /// The message of an error is shown and stored, and a careless peer quotes the request that it did not like.
    fn without_secret(&self, mut answer: Answer) -> Answer {
        if answer.status != 200 {
            let text = String::from_utf8_lossy(&answer.body);
            answer.body = self.secret_key.hidden_in(&text).into_bytes();
        }
        answer
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

//! Handles a received webhook: looks the charge up at the gateway, and applies its state.

use messaging::{Commit, StoreError};
use toss::{Charge, Lookup, protocol};

use crate::{
    Service,
    gateway_state::{self, GatewayState},
    record::{PaymentRecord, WebhookRecord, WebhookState},
};

/// A lookup may lag behind the webhook by this much.
const LAG_MILLIS_MAX: i64 = 60_000;
/// The lookups for a webhook about an unknown charge: at once, soon, and after the lag. Anybody can send a webhook, and
/// each lookup is a request to the gateway.
const LOOKUPS_MAX: u32 = 3;
/// How long the lookup is repeated if the gateway gives no usable answer; afterwards the reconciliation looks it up.
const UNKNOWN_MILLIS_MAX: i64 = 3 * 24 * 3_600_000;
/// The longest wait between two lookups without a usable answer.
const UNKNOWN_WAIT_MILLIS_MAX: i64 = 3_600_000;

impl Service {
    /// Handles one webhook; returns whether that ended.
    pub(super) async fn settle_webhook(&self, webhook: WebhookRecord) -> Result<bool, StoreError> {
        let inner = &self.inner;
        let id = &webhook.transmission_id;
        if inner.webhook_retries.is_due(id, inner.clock.now()) == Some(false) {
            return Ok(false);
        }
        // A request of this process that is in flight will tell the outcome.
        let Some(_attempt) = inner.in_flight.enter(webhook.payment_id) else {
            return Ok(false);
        };
        let Some(payment) = self.show(webhook.payment_id).await? else {
            return self
                .close(&webhook, Commit::new(), "there is no such payment")
                .await;
        };
        fail::fail_point!("settler.before_webhook", |_| std::process::abort());
        let found = match webhook.pg_payment_id.as_deref() {
            Some(key) if protocol::is_path_key(key) => inner.gateway.find_by_key(key).await,
            _ => inner.gateway.find_by_order(&payment.order_id()).await,
        };
        match found {
            Lookup::Found(charge) => self.apply_webhook(&webhook, &payment, &charge).await,
            Lookup::NotFound => self.retry_not_found(&webhook).await,
            Lookup::Unknown { reason } => {
                tracing::warn!(payment.id = %webhook.payment_id, reason, "cannot look the charge of a webhook up");
                self.retry_unknown(&webhook).await
            }
        }
    }

    /// The gateway does not know the charge: repeat the lookup until the lag has passed.
    async fn retry_not_found(&self, webhook: &WebhookRecord) -> Result<bool, StoreError> {
        let (inner, now) = (&self.inner, self.inner.clock.now());
        let id = &webhook.transmission_id;
        let lag_ends_at = self.began(webhook.received_at).plus_millis(LAG_MILLIS_MAX);
        if now >= lag_ends_at {
            let note = "the gateway does not know the charge";
            return self.ignore(webhook, note).await;
        }
        if inner.webhook_retries.tries(id) + 2 >= LOOKUPS_MAX {
            inner.webhook_retries.retry_at(id, lag_ends_at);
        } else {
            inner.webhook_retries.retry_later(id, &inner.random, now);
        }
        Ok(false)
    }

    /// No usable answer: repeat the lookup, less and less often. The wait is half of the webhook's age, so a webhook is
    /// handled at the latest when the gateway has been back for half as long as it was away.
    async fn retry_unknown(&self, webhook: &WebhookRecord) -> Result<bool, StoreError> {
        let (inner, now) = (&self.inner, self.inner.clock.now());
        let id = &webhook.transmission_id;
        let age = now.millis_since(self.began(webhook.received_at));
        if age >= UNKNOWN_MILLIS_MAX {
            let note = "the gateway gave no usable answer";
            return self.ignore(webhook, note).await;
        }
        inner.webhook_retries.retry_later(id, &inner.random, now);
        let by_age = now.plus_millis((age / 2).min(UNKNOWN_WAIT_MILLIS_MAX));
        inner.webhook_retries.not_before(id, by_age);
        Ok(false)
    }

    async fn apply_webhook(
        &self,
        webhook: &WebhookRecord,
        payment: &PaymentRecord,
        charge: &Charge,
    ) -> Result<bool, StoreError> {
        if webhook.secret.is_some() && webhook.secret != charge.secret {
            return self
                .ignore(webhook, "its secret is not that of the charge")
                .await;
        }
        let state = gateway_state::compare(payment, charge);
        if state == GatewayState::OtherOrder {
            return self.ignore(webhook, "the charge is another order's").await;
        }
        let commit = self.apply_gateway_state(payment, charge, &state).await?;
        let note = match &state {
            GatewayState::Mismatch(difference) => difference,
            _ if commit.is_some() => "applied",
            _ => "already known",
        };
        self.close(webhook, commit.unwrap_or_default(), note).await
    }

    async fn ignore(&self, webhook: &WebhookRecord, note: &str) -> Result<bool, StoreError> {
        tracing::warn!(payment.id = %webhook.payment_id, note, "a webhook is ignored");
        let mut commit = Commit::new();
        commit.put(&webhook.closed(WebhookState::Ignored, note, self.inner.clock.now()));
        self.settled(commit).await
    }

    /// Commits the change together with the end of the webhook.
    async fn close(
        &self,
        webhook: &WebhookRecord,
        mut commit: Commit,
        note: &str,
    ) -> Result<bool, StoreError> {
        let now = self.inner.clock.now();
        commit.put(&webhook.closed(WebhookState::Handled, note, now));
        let settled = self.settled(commit).await;
        fail::fail_point!("settler.after_webhook", |_| std::process::abort());
        let (inner, id) = (&self.inner, &webhook.transmission_id);
        match settled {
            Ok(true) => inner.webhook_retries.forget(id),
            // A concurrent change, or a refusal of the store: not at once again.
            Ok(false) | Err(_) => inner.webhook_retries.retry_later(id, &inner.random, now),
        }
        settled
    }
}

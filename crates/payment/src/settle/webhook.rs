//! A webhook that came: the gateway is asked what is so, and that is followed.

use messaging::{Commit, StoreError};

use crate::{
    Service,
    gateway::{Charge, Lookup, protocol},
    record::{PaymentRecord, WebhookRecord, WebhookState},
    standing::{self, Standing},
};

impl Service {
    /// Handles one webhook; returns whether that came to an end.
    pub(super) async fn settle_webhook(&self, webhook: WebhookRecord) -> Result<bool, StoreError> {
        let inner = &self.inner;
        let id = &webhook.transmission_id;
        if inner.webhook_backoffs.is_due(id, inner.clock.now()) == Some(false) {
            return Ok(false);
        }
        // An attempt of this process that is at the gateway says more, and soon.
        let Some(_attempt) = inner.attempts.enter(webhook.payment_id) else {
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
            Lookup::Found(charge) => self.heed(&webhook, &payment, &charge).await,
            Lookup::NotFound => {
                let note = "the gateway knows of no such charge";
                self.ignore(&webhook, note).await
            }
            Lookup::Unknown { reason } => {
                tracing::warn!(payment.id = %webhook.payment_id, reason, "what a webhook is about could not be looked up");
                inner
                    .webhook_backoffs
                    .wait_longer(id, &inner.random, inner.clock.now());
                Ok(false)
            }
        }
    }

    async fn heed(
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
        let standing = standing::compare(payment, charge);
        if standing == Standing::Foreign {
            return self.ignore(webhook, "the charge is another order's").await;
        }
        let commit = self.follow(payment, charge, &standing).await?;
        let note = match &standing {
            Standing::Differs(difference) => difference,
            _ if commit.is_some() => "followed",
            _ => "known",
        };
        self.close(webhook, commit.unwrap_or_default(), note).await
    }

    async fn ignore(&self, webhook: &WebhookRecord, note: &str) -> Result<bool, StoreError> {
        tracing::warn!(payment.id = %webhook.payment_id, note, "a webhook is ignored");
        let mut commit = Commit::new();
        commit.put(&webhook.closed(WebhookState::Ignored, note, self.inner.clock.now()));
        self.settled(commit).await
    }

    /// What the webhook led to, and that it has served, are one Commit.
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
        self.inner.webhook_backoffs.forget(&webhook.transmission_id);
        settled
    }
}

//! Money goes back: asked of the gateway until it is done, or until the gateway refuses. What no payment stands for
//! goes back in the same way.

use messaging::{Commit, StoreError};

use crate::{
    Service,
    follow::saved,
    gateway::{
        Cancel, ErrorCode, Lookup, Outcome,
        protocol::{CANCEL_REASON_CHARS_MAX, RefundAccount},
    },
    record::{PaymentRecord, StrayRecord},
    standing,
};

/// What the gateway said of a cancellation, with proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GivenBack {
    Done,
    Refused { code: String },
}

/// Everything that is left of a charge is to go back.
struct Ask<'a> {
    payment_key: &'a str,
    reason: &'a str,
    account: Option<RefundAccount>,
    key: String,
    /// How often it was asked in vain. The gateway repeats its first answer to a key, a failure too: what failed is
    /// asked for again with a fresh one. Asking twice cannot give back more than was taken, since it is everything.
    tries: u32,
}

impl Service {
    /// What becomes of a refund that is wanted; `None` where nothing is known yet.
    pub(crate) async fn settle_refund(&self, payment: &PaymentRecord) -> Option<Commit> {
        let now = || self.inner.clock.now();
        if payment.is_free() {
            return payment.finish_refund(now()).as_ref().map(saved);
        }
        let ask = Ask {
            payment_key: payment.pg_payment_id.as_deref()?,
            reason: payment.refund_reason.as_deref().unwrap_or_default(),
            account: payment.refund_account(),
            key: payment.refund_key(),
            tries: self.inner.backoffs.tries(&payment.payment_id),
        };
        let change = match self.give_back(ask).await? {
            GivenBack::Done => payment.finish_refund(now()),
            GivenBack::Refused { code } => {
                tracing::error!(payment.id = %payment.payment_id, code, "a refund was refused");
                payment.refuse_refund(&code, now())
            }
        };
        change.as_ref().map(saved)
    }

    /// The same for a charge that no payment stands for.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
    pub(crate) async fn settle_stray(
        &self,
        stray: &StrayRecord,
    ) -> Result<Option<Commit>, StoreError> {
        // It may have come by a virtual account: whoever paid the order has perhaps said where its money goes.
        let payment = self.show(stray.payment_id).await?;
        let mut commit = Commit::new();
        if payment
            .as_ref()
            .is_some_and(|payment| payment.stands_for(stray))
        {
            commit.delete(stray);
            return Ok(Some(commit));
        }
        let ask = Ask {
            payment_key: &stray.pg_payment_id,
            reason: &stray.reason,
            account: payment.and_then(|payment| payment.refund_account()),
            key: stray.refund_key(),
            tries: self.inner.stray_backoffs.tries(&stray.pg_payment_id),
        };
        let now = || self.inner.clock.now();
        let after = match self.give_back(ask).await {
            None => return Ok(None),
            Some(GivenBack::Done) => stray.finished(now()),
            Some(GivenBack::Refused { code }) => {
                tracing::error!(payment.id = %stray.payment_id, charge = stray.pg_payment_id, code, "the refund of a stray charge was refused");
                stray.parked(&code, now())
            }
        };
        commit.put(&after);
        Ok(Some(commit))
    }

    /// Closes a virtual account that was not paid in time; `None` where nothing is known yet, money that came at the
    /// last moment included.
    pub(crate) async fn close_account(&self, payment: &PaymentRecord) -> Option<GivenBack> {
        let ask = Ask {
            payment_key: payment.pg_payment_id.as_deref()?,
            reason: "no deposit came in time",
            account: None,
            key: format!("{}:close", payment.attempt_key.as_deref()?),
            tries: self.inner.backoffs.tries(&payment.payment_id),
        };
        self.give_back(ask).await
    }

    async fn give_back(&self, ask: Ask<'_>) -> Option<GivenBack> {
        let reason: String = ask.reason.chars().take(CANCEL_REASON_CHARS_MAX).collect();
        let cancel = Cancel {
            payment_key: ask.payment_key.to_owned(),
            reason: if reason.is_empty() {
                "no ticket".to_owned()
            } else {
                reason
            },
            amount: None,
            refund_account: ask.account,
            idempotency_key: match ask.tries {
                0 => ask.key,
                // A process that is gone may have used the same number.
                tries => format!("{}:{}:{tries}", ask.key, self.inner.started_at.as_millis()),
            },
            test_code: None,
        };
        let outcome = self.inner.gateway.cancel(&cancel).await;
        if matches!(outcome, Outcome::Approved(_)) {
            return Some(GivenBack::Done);
        }
        // An account is for money that came by one; a card's goes back to the card.
        if matches!(outcome, Outcome::Declined { .. }) && cancel.refund_account.is_some() {
            let plain = Cancel {
                refund_account: None,
                idempotency_key: format!("{}:plain", cancel.idempotency_key),
                ..cancel.clone()
            };
            if let Outcome::Approved(_) = self.inner.gateway.cancel(&plain).await {
                return Some(GivenBack::Done);
            }
        }
        // Perhaps it was done before, and only the answer was lost; or somebody did it at the gateway itself.
        let found = self.inner.gateway.find_by_key(&cancel.payment_key).await;
        if matches!(&found, Lookup::Found(charge) if standing::is_refunded(charge)) {
            return Some(GivenBack::Done);
        }
        match outcome {
            Outcome::Declined { code, .. } if passes(&code) => {
                tracing::warn!(
                    charge = cancel.payment_key,
                    code,
                    "a refund must wait for its bank"
                );
                None
            }
            // A refusal of what was done before, perhaps: as long as nobody can look, nobody knows.
            Outcome::Declined { code, .. } if matches!(found, Lookup::Unknown { .. }) => {
                tracing::warn!(
                    charge = cancel.payment_key,
                    code,
                    "a refund was refused, and its charge could not be looked up"
                );
                None
            }
            Outcome::Declined { code, .. } => {
                self.inner.metrics.refund_refused();
                Some(GivenBack::Refused { code })
            }
            Outcome::Unknown { reason } => {
                tracing::warn!(
                    charge = cancel.payment_key,
                    reason,
                    "the outcome of a refund is not known yet"
                );
                None
            }
            Outcome::Approved(_) => Some(GivenBack::Done),
        }
    }
}

/// The bank is closed for the night: the same refund is taken in the morning. Every other refusal needs a person.
fn passes(code: &str) -> bool {
    code == ErrorCode::NotAvailableBank.name()
}

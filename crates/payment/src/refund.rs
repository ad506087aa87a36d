//! The money of a payment goes back: asked of the gateway until it is done, or until the gateway refuses.

use contract::Money;
use messaging::Commit;

use crate::{
    Service,
    gateway::{Cancel, Lookup, Outcome, protocol::CANCEL_REASON_CHARS_MAX},
    inquiry,
    model::Change,
    record::PaymentRecord,
};

impl Service {
    /// What becomes of a refund that is wanted; `None` where nothing is known yet.
    pub(crate) async fn settle_refund(&self, payment: &PaymentRecord) -> Option<Commit> {
        let mut commit = Commit::new();
        self.give_back(payment).await?.save(&mut commit);
        Some(commit)
    }

    async fn give_back(&self, payment: &PaymentRecord) -> Option<Change> {
        let clock = &self.inner.clock;
        if payment.final_amount == Money::ZERO {
            return payment.finish_refund(clock.now());
        }
        let cancel = self.cancellation(payment)?;
        match self.inner.gateway.cancel(&cancel).await {
            Outcome::Approved(_) => payment.finish_refund(clock.now()),
            Outcome::Declined { code, message } => {
                tracing::error!(payment.id = %payment.payment_id, code, message, "a refund was refused and is parked");
                payment.park_refund(&code, clock.now())
            }
            // Perhaps it was done before, and only the answer was lost.
            Outcome::Unknown { reason } => {
                tracing::warn!(payment.id = %payment.payment_id, reason, "the outcome of a refund is not known yet");
                let found = self.inner.gateway.find_by_key(&cancel.payment_key).await;
                let is_done =
                    matches!(found, Lookup::Found(charge) if inquiry::is_refunded(&charge));
                is_done
                    .then(|| payment.finish_refund(clock.now()))
                    .flatten()
            }
        }
    }

    /// Everything that is left is given back, so that asking twice cannot give back more than was taken. The gateway
    /// repeats its first answer to a key, a failure too: what failed is asked for again with a fresh one.
    fn cancellation(&self, payment: &PaymentRecord) -> Option<Cancel> {
        let key = payment.refund_key.clone()?;
        let reason = payment.refund_reason.as_deref().unwrap_or_default();
        let reason: String = reason.chars().take(CANCEL_REASON_CHARS_MAX).collect();
        Some(Cancel {
            payment_key: payment.pg_payment_id.clone()?,
            reason: if reason.is_empty() {
                "no ticket".to_owned()
            } else {
                reason
            },
            amount: None,
            refund_account: None,
            idempotency_key: match self.inner.backoffs.tries(payment.payment_id) {
                0 => key,
                tries => format!("{key}:{tries}"),
            },
            test_code: None,
        })
    }
}

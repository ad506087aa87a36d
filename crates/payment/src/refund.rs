//! Refunds of payments and of orphan charges. The settler requests each at the gateway until it is done, refused, or
//! parked for an operator after `refund_give_up_secs`.

use contract::Timestamp;
use messaging::{Commit, StoreError};
use toss::{
    Cancel, ErrorCode, GatewayOutcome, Lookup,
    protocol::{CANCEL_REASON_CHARS_MAX, RefundAccount},
};

use crate::{
    Service, gateway_state,
    gateway_state::apply::commit_of,
    record::{OrphanChargeRecord, PaymentRecord},
};

/// A refund that is open for longer is reported to operators: by a metric, the reconciliation and the audit. Longer than
/// a bank is closed for the night.
pub const OVERDUE_SECS: i64 = 2 * 3_600;

/// What the gateway's answer to a cancellation proves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RefundOutcome {
    Done,
    /// Not executed, and never will be.
    Refused {
        code: String,
    },
    /// Not executed so far: request it again later.
    Delayed {
        code: String,
    },
    /// It may have been executed, or may still be. The gateway's code, if it sent one.
    Unknown {
        code: Option<String>,
    },
}

/// What follows from an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RefundDecision {
    Finish,
    Refuse(String),
    /// It was requested for too long.
    Park(String),
    Retry {
        code: Option<String>,
    },
}

/// The age of what the gateway is asked for: an attempt, or a refund.
pub(crate) struct RequestAge {
    pub since: Timestamp,
    /// When a request last had an unknown outcome, or may have had.
    pub unknown_at: Option<Timestamp>,
}

/// A request to cancel the whole balance of a charge.
struct RefundCall<'a> {
    payment_key: &'a str,
    reason: &'a str,
    account: Option<RefundAccount>,
    key: String,
    /// Tries without a result. The gateway repeats its first answer to a key, also a failure, so that every retry has a
    /// new key. Two requests cannot refund more than was charged, because each cancels the whole balance.
    tries: u32,
}

/// Whether a refund requested at `since` is reported to operators.
#[must_use]
pub fn is_overdue(since: Timestamp, now: Timestamp) -> bool {
    now.millis_since(since) > OVERDUE_SECS * 1_000
}

impl Service {
    /// Requests the refund of a payment; returns the Commit of its end, or `None` if it stays open.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub(crate) async fn settle_refund(
        &self,
        payment: &PaymentRecord,
    ) -> Result<Option<Commit>, StoreError> {
        let inner = &self.inner;
        let (now, id) = (|| inner.clock.now(), &payment.payment_id);
        if payment.is_free() {
            return Ok(payment.finish_refund(now()).as_ref().map(commit_of));
        }
        let Some(payment_key) = payment.pg_payment_id.as_deref() else {
            return Ok(None);
        };
        let call = RefundCall {
            payment_key,
            reason: payment.refund_reason.as_deref().unwrap_or_default(),
            account: payment.refund_account(),
            key: payment.refund_key(),
            tries: inner.payment_retries.tries(id),
        };
        let result = self.refund_at_gateway(call).await;
        if matches!(result, RefundOutcome::Unknown { .. }) {
            inner.payment_retries.note_unknown(id, now());
        }
        let age = self.age(
            payment.refund_requested_since(),
            inner.payment_retries.unknown_at(id),
        );
        let change = match self.decide(result, &age) {
            RefundDecision::Finish => payment.finish_refund(now()),
            RefundDecision::Refuse(code) => {
                tracing::error!(payment.id = %id, code, "the gateway refused a refund: see POST /payment/{{paymentId}}/refund");
                payment.refuse_refund(&code, now())
            }
            RefundDecision::Park(code) => {
                tracing::error!(payment.id = %id, code, since = %age.since, "a refund stays without a result and is parked: see POST /payment/{{paymentId}}/refund");
                payment.park_refund(&code, now())
            }
            RefundDecision::Retry { code } => {
                let delayed = code.and_then(|code| payment.delay_refund(&code, now()));
                return self.save_delay(delayed.as_ref().map(commit_of)).await;
            }
        };
        Ok(change.as_ref().map(commit_of))
    }

    /// The same for an orphan charge.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub(crate) async fn refund_orphan_charge(
        &self,
        orphan: &OrphanChargeRecord,
    ) -> Result<Option<Commit>, StoreError> {
        let inner = &self.inner;
        let (now, charge) = (|| inner.clock.now(), &orphan.pg_payment_id);
        // A deposit needs an account for its refund, which the buyer of the order may have set.
        let payment = self.show(orphan.payment_id).await?;
        let mut commit = Commit::new();
        if payment
            .as_ref()
            .is_some_and(|payment| payment.keeps(orphan))
        {
            commit.delete(orphan);
            return Ok(Some(commit));
        }
        let call = RefundCall {
            payment_key: charge,
            reason: &orphan.reason,
            account: payment.and_then(|payment| payment.refund_account()),
            key: orphan.refund_key(),
            tries: inner.orphan_retries.tries(charge),
        };
        let result = self.refund_at_gateway(call).await;
        if matches!(result, RefundOutcome::Unknown { .. }) {
            inner.orphan_retries.note_unknown(charge, now());
        }
        let unknown_at = inner.orphan_retries.unknown_at(charge);
        let age = self.age(orphan.refund_requested_since(), unknown_at);
        let after = match self.decide(result, &age) {
            RefundDecision::Finish => orphan.finished(now()),
            RefundDecision::Refuse(code) => {
                tracing::error!(payment.id = %orphan.payment_id, charge, code, "the gateway refused the refund of an orphan charge: see POST /payment/stray/{{pgPaymentId}}/refund");
                orphan.parked(&code, now())
            }
            RefundDecision::Park(code) => {
                tracing::error!(payment.id = %orphan.payment_id, charge, code, since = %age.since, "the refund of an orphan charge stays without a result and is parked: see POST /payment/stray/{{pgPaymentId}}/refund");
                orphan.parked(&code, now())
            }
            RefundDecision::Retry { code } => {
                let code = code.filter(|code| orphan.refund_code.as_ref() != Some(code));
                let delayed = code.map(|code| {
                    commit.put(&orphan.delayed(&code, now()));
                    commit
                });
                return self.save_delay(delayed).await;
            }
        };
        commit.put(&after);
        Ok(Some(commit))
    }

    /// Commits why a refund is not done yet.
    async fn save_delay(&self, delayed: Option<Commit>) -> Result<Option<Commit>, StoreError> {
        if let Some(commit) = delayed {
            self.settled(commit).await?;
        }
        Ok(None)
    }

    pub(crate) fn age(&self, since: Timestamp, unknown_at: Option<Timestamp>) -> RequestAge {
        let began = self.began(since);
        let is_older = since < self.settles_since || began != since;
        RequestAge {
            since: began,
            // An earlier settler may have sent a request, whose answer is lost.
            unknown_at: unknown_at.max(is_older.then_some(self.settles_since)),
        }
    }

    /// A refusal counts only when no earlier request can be in flight at the gateway. Until then, and without proof, the
    /// request is repeated, long enough for a bank to open in the morning. A gateway that does not answer never parks a
    /// refund.
    fn decide(&self, result: RefundOutcome, age: &RequestAge) -> RefundDecision {
        let (settings, now) = (&self.inner.settings, self.inner.clock.now());
        let may_be_in_flight = age
            .unknown_at
            .is_some_and(|at| now.millis_since(at) < settings.give_up_after_millis());
        let give_up_millis = settings.refund_give_up_secs.saturating_mul(1_000);
        let is_too_old = now.millis_since(age.since) >= give_up_millis;
        let decision = match result {
            RefundOutcome::Done => RefundDecision::Finish,
            RefundOutcome::Refused { code } if !may_be_in_flight => RefundDecision::Refuse(code),
            RefundOutcome::Refused { code } | RefundOutcome::Delayed { code } if is_too_old => {
                RefundDecision::Park(code)
            }
            RefundOutcome::Unknown { code: Some(code) } if is_too_old => RefundDecision::Park(code),
            RefundOutcome::Refused { code } | RefundOutcome::Delayed { code } => {
                RefundDecision::Retry { code: Some(code) }
            }
            RefundOutcome::Unknown { code } => RefundDecision::Retry { code },
        };
        if matches!(
            decision,
            RefundDecision::Refuse(_) | RefundDecision::Park(_)
        ) {
            self.inner.metrics.refund_refused();
        }
        decision
    }

    /// Closes a virtual account without a deposit. If that fails, a deposit may have arrived: the settler looks it up.
    pub(crate) async fn close_virtual_account(
        &self,
        payment: &PaymentRecord,
    ) -> Option<RefundOutcome> {
        let call = RefundCall {
            payment_key: payment.charge_key()?,
            reason: "no deposit came in time",
            account: None,
            key: format!("{}:close", payment.attempt_key.as_deref()?),
            tries: self.inner.payment_retries.tries(&payment.payment_id),
        };
        Some(self.refund_at_gateway(call).await)
    }

    async fn refund_at_gateway(&self, call: RefundCall<'_>) -> RefundOutcome {
        let reason: String = call.reason.chars().take(CANCEL_REASON_CHARS_MAX).collect();
        let cancel = Cancel {
            payment_key: call.payment_key.to_owned(),
            reason: if reason.is_empty() {
                "no ticket".to_owned()
            } else {
                reason
            },
            amount: None,
            refund_account: call.account,
            idempotency_key: match call.tries {
                0 => call.key,
                // An earlier settler, or this process when it led before, may have used the same number.
                tries => format!("{}:{}:{tries}", call.key, self.settles_since.as_millis()),
            },
            test_code: None,
        };
        let outcome = self.cancel(&cancel).await;
        if matches!(outcome, GatewayOutcome::Approved(_)) {
            return RefundOutcome::Done;
        }
        // An earlier request whose answer was lost may have done it, or a person at the gateway itself.
        let found = self.inner.gateway.find_by_key(&cancel.payment_key).await;
        let result = refund_outcome(outcome, &found);
        if !matches!(result, RefundOutcome::Done) {
            tracing::warn!(charge = cancel.payment_key, ?result, "a refund is not done");
        }
        result
    }

    /// The buyer may set an account although the payment was by card, which the gateway refuses. So a refused request with
    /// an account is repeated without it; then only the second answer counts, because the first moved no money.
    async fn cancel(&self, cancel: &Cancel) -> GatewayOutcome {
        let gateway = &self.inner.gateway;
        let outcome = gateway.cancel(cancel).await;
        match &outcome {
            GatewayOutcome::Declined { code, .. }
                if cancel.refund_account.is_some() && !is_temporary(code) =>
            {
                let plain = Cancel {
                    refund_account: None,
                    idempotency_key: format!("{}:plain", cancel.idempotency_key),
                    ..cancel.clone()
                };
                gateway.cancel(&plain).await
            }
            _ => outcome,
        }
    }
}

/// What the answer to a cancellation proves, together with a lookup after it.
fn refund_outcome(outcome: GatewayOutcome, found: &Lookup) -> RefundOutcome {
    if matches!(found, Lookup::Found(charge) if gateway_state::is_refunded(charge)) {
        return RefundOutcome::Done;
    }
    match outcome {
        GatewayOutcome::Approved(_) => RefundOutcome::Done,
        // The gateway also refuses what is already done: without the lookup this proves nothing.
        GatewayOutcome::Declined { code, .. } if matches!(found, Lookup::Unknown { .. }) => {
            RefundOutcome::Delayed { code }
        }
        GatewayOutcome::Declined { code, .. } if is_temporary(&code) => {
            RefundOutcome::Delayed { code }
        }
        GatewayOutcome::Declined { code, .. } => RefundOutcome::Refused { code },
        GatewayOutcome::Unknown { code, .. } => RefundOutcome::Unknown { code },
    }
}

/// Whether the bank is only closed for the night. Every other refusal needs an operator.
fn is_temporary(code: &str) -> bool {
    code == ErrorCode::NOT_AVAILABLE_BANK.name()
}

//! Money goes back: asked of the gateway until it is done, until the gateway refuses, or until it was asked for so long
//! that a person must look. What no payment stands for goes back in the same way.

use contract::Timestamp;
use messaging::{Commit, StoreError};

use crate::{
    Service,
    gateway::{
        Cancel, ErrorCode, Lookup, Outcome,
        protocol::{CANCEL_REASON_CHARS_MAX, RefundAccount},
    },
    gateway_state,
    gateway_state::apply::commit_of,
    record::{OrphanChargeRecord, PaymentRecord},
};

/// A refund that is asked for longer than this is told to operators: by a metric, by the reconciliation and by the
/// audit. Longer than a bank is closed for the night.
pub const OVERDUE_SECS: i64 = 2 * 3_600;

/// What the gateway said of a cancellation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RefundOutcome {
    Done,
    /// It moved nothing, and never will.
    Refused {
        code: String,
    },
    /// It moved nothing so far: it is to be asked again later.
    Delayed {
        code: String,
    },
    /// It may have been done, or may still be. The gateway's word, if it said one.
    Unknown {
        code: Option<String>,
    },
}

/// What becomes of a refund after an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum RefundDecision {
    Finish,
    Refuse(String),
    /// It was asked for too long.
    Park(String),
    Retry {
        code: Option<String>,
    },
}

/// How long a refund is asked for already.
struct RefundAge {
    since: Timestamp,
    /// When a cancellation was last asked for whose outcome is not known.
    unknown_at: Option<Timestamp>,
}

/// Everything that is left of a charge is to go back.
struct RefundCall<'a> {
    payment_key: &'a str,
    reason: &'a str,
    account: Option<RefundAccount>,
    key: String,
    /// How often it was asked in vain. The gateway repeats its first answer to a key, a failure too: what failed is
    /// asked for again with a fresh one. Asking twice cannot give back more than was taken, since it is everything.
    tries: u32,
}

/// Whether a refund that is asked for since then is told to operators.
#[must_use]
pub fn is_overdue(since: Timestamp, now: Timestamp) -> bool {
    now.millis_since(since) > OVERDUE_SECS * 1_000
}

impl Service {
    /// What becomes of a refund that is wanted; `None` where nothing is known yet.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
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
        let ask = RefundCall {
            payment_key,
            reason: payment.refund_reason.as_deref().unwrap_or_default(),
            account: payment.refund_account(),
            key: payment.refund_key(),
            tries: inner.payment_retries.tries(id),
        };
        let given_back = self.refund_at_gateway(ask).await;
        if matches!(given_back, RefundOutcome::Unknown { .. }) {
            inner.payment_retries.note_unknown(id, now());
        }
        let age = self.age(
            payment.refund_requested_since(),
            inner.payment_retries.unknown_at(id),
        );
        let change = match self.next(given_back, &age) {
            RefundDecision::Finish => payment.finish_refund(now()),
            RefundDecision::Refuse(code) => {
                tracing::error!(payment.id = %id, code, "a refund was refused");
                payment.refuse_refund(&code, now())
            }
            RefundDecision::Park(code) => {
                tracing::error!(payment.id = %id, code, since = %age.since, "a refund was asked for too long, and is parked");
                payment.park_refund(&code, now())
            }
            RefundDecision::Retry { code } => {
                let delayed = code.and_then(|code| payment.delay_refund(&code, now()));
                return self.save_delay(delayed.as_ref().map(commit_of)).await;
            }
        };
        Ok(change.as_ref().map(commit_of))
    }

    /// The same for a charge that no payment stands for.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
    pub(crate) async fn refund_orphan_charge(
        &self,
        orphan: &OrphanChargeRecord,
    ) -> Result<Option<Commit>, StoreError> {
        let inner = &self.inner;
        let (now, charge) = (|| inner.clock.now(), &orphan.pg_payment_id);
        // It may have come by a virtual account: whoever paid the order has perhaps said where its money goes.
        let payment = self.show(orphan.payment_id).await?;
        let mut commit = Commit::new();
        if payment
            .as_ref()
            .is_some_and(|payment| payment.keeps(orphan))
        {
            commit.delete(orphan);
            return Ok(Some(commit));
        }
        let ask = RefundCall {
            payment_key: charge,
            reason: &orphan.reason,
            account: payment.and_then(|payment| payment.refund_account()),
            key: orphan.refund_key(),
            tries: inner.orphan_retries.tries(charge),
        };
        let given_back = self.refund_at_gateway(ask).await;
        if matches!(given_back, RefundOutcome::Unknown { .. }) {
            inner.orphan_retries.note_unknown(charge, now());
        }
        let unknown_at = inner.orphan_retries.unknown_at(charge);
        let age = self.age(orphan.refund_requested_since(), unknown_at);
        let after = match self.next(given_back, &age) {
            RefundDecision::Finish => orphan.finished(now()),
            RefundDecision::Refuse(code) => {
                tracing::error!(payment.id = %orphan.payment_id, charge, code, "the refund of an orphan charge was refused");
                orphan.parked(&code, now())
            }
            RefundDecision::Park(code) => {
                tracing::error!(payment.id = %orphan.payment_id, charge, code, since = %age.since, "the refund of an orphan charge was asked for too long, and is parked");
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

    /// Keeps why a refund is not done yet; that is no end of it.
    async fn save_delay(&self, delayed: Option<Commit>) -> Result<Option<Commit>, StoreError> {
        if let Some(commit) = delayed {
            self.settled(commit).await?;
        }
        Ok(None)
    }

    fn age(&self, since: Timestamp, unknown_at: Option<Timestamp>) -> RefundAge {
        let (began, started_at) = (self.began(since), self.inner.started_at);
        let is_older = since < started_at || began != since;
        RefundAge {
            since: began,
            // The process before may have asked, and nobody knows what it was told.
            unknown_at: unknown_at.or_else(|| is_older.then_some(started_at)),
        }
    }

    /// A refusal decides once no earlier request can be under way at the gateway any more. Until then, and where
    /// nothing is proven, it is asked on, for so long that a bank can open in the morning. Silence alone never parks a
    /// refund: a gateway that is back does it.
    fn next(&self, given_back: RefundOutcome, age: &RefundAge) -> RefundDecision {
        let (settings, now) = (&self.inner.settings, self.inner.clock.now());
        let is_under_way = age
            .unknown_at
            .is_some_and(|at| now.millis_since(at) < settings.give_up_after_millis());
        let is_too_old = now.millis_since(age.since) >= settings.refund_give_up_millis();
        let next = match given_back {
            RefundOutcome::Done => RefundDecision::Finish,
            RefundOutcome::Refused { code } if !is_under_way => RefundDecision::Refuse(code),
            RefundOutcome::Refused { code } | RefundOutcome::Delayed { code } if is_too_old => {
                RefundDecision::Park(code)
            }
            RefundOutcome::Unknown { code: Some(code) } if is_too_old => RefundDecision::Park(code),
            RefundOutcome::Refused { code } | RefundOutcome::Delayed { code } => {
                RefundDecision::Retry { code: Some(code) }
            }
            RefundOutcome::Unknown { code } => RefundDecision::Retry { code },
        };
        if matches!(next, RefundDecision::Refuse(_) | RefundDecision::Park(_)) {
            self.inner.metrics.refund_refused();
        }
        next
    }

    /// Closes a virtual account that was not paid in time. Money may have come at the last moment: whatever is not done
    /// is looked up again.
    pub(crate) async fn close_virtual_account(
        &self,
        payment: &PaymentRecord,
    ) -> Option<RefundOutcome> {
        let ask = RefundCall {
            payment_key: payment.charge_key()?,
            reason: "no deposit came in time",
            account: None,
            key: format!("{}:close", payment.attempt_key.as_deref()?),
            tries: self.inner.payment_retries.tries(&payment.payment_id),
        };
        Some(self.refund_at_gateway(ask).await)
    }

    async fn refund_at_gateway(&self, ask: RefundCall<'_>) -> RefundOutcome {
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
        let outcome = self.cancel(&cancel).await;
        if matches!(outcome, Outcome::Approved(_)) {
            return RefundOutcome::Done;
        }
        // Perhaps it was done before, and only the answer was lost; or somebody did it at the gateway itself.
        let found = self.inner.gateway.find_by_key(&cancel.payment_key).await;
        let given_back = refund_outcome(outcome, &found);
        if !matches!(given_back, RefundOutcome::Done) {
            tracing::warn!(
                charge = cancel.payment_key,
                ?given_back,
                "a charge is not refunded"
            );
        }
        given_back
    }

    /// An account is for money that came by one; a card's goes back to the card. So what is refused with an account is
    /// asked for without one, and then only the second answer counts: the first has moved nothing.
    async fn cancel(&self, cancel: &Cancel) -> Outcome {
        let gateway = &self.inner.gateway;
        let outcome = gateway.cancel(cancel).await;
        match &outcome {
            Outcome::Declined { code, .. }
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

/// What the answer to a cancellation proves, together with what the gateway shows of the charge after it.
fn refund_outcome(outcome: Outcome, found: &Lookup) -> RefundOutcome {
    if matches!(found, Lookup::Found(charge) if gateway_state::is_refunded(charge)) {
        return RefundOutcome::Done;
    }
    match outcome {
        Outcome::Approved(_) => RefundOutcome::Done,
        // A refusal of what was done before, perhaps: as long as nobody can look, nobody knows.
        Outcome::Declined { code, .. } if matches!(found, Lookup::Unknown { .. }) => {
            RefundOutcome::Delayed { code }
        }
        Outcome::Declined { code, .. } if is_temporary(&code) => RefundOutcome::Delayed { code },
        Outcome::Declined { code, .. } => RefundOutcome::Refused { code },
        Outcome::Unknown { code, .. } => RefundOutcome::Unknown { code },
    }
}

/// The bank is closed for the night: the same refund is taken in the morning. Every other refusal needs a person.
fn is_temporary(code: &str) -> bool {
    code == ErrorCode::NotAvailableBank.name()
}

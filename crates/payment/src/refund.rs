//! Money goes back: asked of the gateway until it is done, until the gateway refuses, or until it was asked for so long
//! that a person must look. What no payment stands for goes back in the same way.

use contract::Timestamp;
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

/// A refund that is asked for longer than this is told to operators: by a metric, by the reconciliation and by the
/// audit. Longer than a bank is closed for the night.
pub const OVERDUE_SECS: i64 = 2 * 3_600;

/// What the gateway said of a cancellation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GivenBack {
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
enum Next {
    Finish,
    Refuse(String),
    /// It was asked for too long.
    Park(String),
    AskOn {
        code: Option<String>,
    },
}

/// How long a refund is asked for already.
struct Age {
    since: Timestamp,
    /// When a cancellation was last asked for whose outcome is not known.
    unknown_at: Option<Timestamp>,
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
            return Ok(payment.finish_refund(now()).as_ref().map(saved));
        }
        let Some(payment_key) = payment.pg_payment_id.as_deref() else {
            return Ok(None);
        };
        let ask = Ask {
            payment_key,
            reason: payment.refund_reason.as_deref().unwrap_or_default(),
            account: payment.refund_account(),
            key: payment.refund_key(),
            tries: inner.backoffs.tries(id),
        };
        let given_back = self.give_back(ask).await;
        if matches!(given_back, GivenBack::Unknown { .. }) {
            inner.backoffs.note_unknown(id, now());
        }
        let age = self.age(payment.refund_asked_since(), inner.backoffs.unknown_at(id));
        let change = match self.next(given_back, &age) {
            Next::Finish => payment.finish_refund(now()),
            Next::Refuse(code) => {
                tracing::error!(payment.id = %id, code, "a refund was refused");
                payment.refuse_refund(&code, now())
            }
            Next::Park(code) => {
                tracing::error!(payment.id = %id, code, since = %age.since, "a refund was asked for too long, and is parked");
                payment.park_refund(&code, now())
            }
            Next::AskOn { code } => {
                let delayed = code.and_then(|code| payment.delay_refund(&code, now()));
                return self.keep_delay(delayed.as_ref().map(saved)).await;
            }
        };
        Ok(change.as_ref().map(saved))
    }

    /// The same for a charge that no payment stands for.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
    pub(crate) async fn settle_stray(
        &self,
        stray: &StrayRecord,
    ) -> Result<Option<Commit>, StoreError> {
        let inner = &self.inner;
        let (now, charge) = (|| inner.clock.now(), &stray.pg_payment_id);
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
            payment_key: charge,
            reason: &stray.reason,
            account: payment.and_then(|payment| payment.refund_account()),
            key: stray.refund_key(),
            tries: inner.stray_backoffs.tries(charge),
        };
        let given_back = self.give_back(ask).await;
        if matches!(given_back, GivenBack::Unknown { .. }) {
            inner.stray_backoffs.note_unknown(charge, now());
        }
        let unknown_at = inner.stray_backoffs.unknown_at(charge);
        let age = self.age(stray.asked_since(), unknown_at);
        let after = match self.next(given_back, &age) {
            Next::Finish => stray.finished(now()),
            Next::Refuse(code) => {
                tracing::error!(payment.id = %stray.payment_id, charge, code, "the refund of a stray charge was refused");
                stray.parked(&code, now())
            }
            Next::Park(code) => {
                tracing::error!(payment.id = %stray.payment_id, charge, code, since = %age.since, "the refund of a stray charge was asked for too long, and is parked");
                stray.parked(&code, now())
            }
            Next::AskOn { code } => {
                let code = code.filter(|code| stray.refund_code.as_ref() != Some(code));
                let delayed = code.map(|code| {
                    commit.put(&stray.delayed(&code, now()));
                    commit
                });
                return self.keep_delay(delayed).await;
            }
        };
        commit.put(&after);
        Ok(Some(commit))
    }

    /// Keeps why a refund is not done yet; that is no end of it.
    async fn keep_delay(&self, delayed: Option<Commit>) -> Result<Option<Commit>, StoreError> {
        if let Some(commit) = delayed {
            self.settled(commit).await?;
        }
        Ok(None)
    }

    fn age(&self, since: Timestamp, unknown_at: Option<Timestamp>) -> Age {
        let (began, started_at) = (self.began(since), self.inner.started_at);
        let is_older = since < started_at || began != since;
        Age {
            since: began,
            // The process before may have asked, and nobody knows what it was told.
            unknown_at: unknown_at.or_else(|| is_older.then_some(started_at)),
        }
    }

    /// A refusal decides once no earlier request can be under way at the gateway any more. Until then, and where
    /// nothing is proven, it is asked on, for so long that a bank can open in the morning. Silence alone never parks a
    /// refund: a gateway that is back does it.
    fn next(&self, given_back: GivenBack, age: &Age) -> Next {
        let (settings, now) = (&self.inner.settings, self.inner.clock.now());
        let is_under_way = age
            .unknown_at
            .is_some_and(|at| now.millis_since(at) < settings.give_up_after_millis());
        let is_too_old = now.millis_since(age.since) >= settings.refund_give_up_millis();
        let next = match given_back {
            GivenBack::Done => Next::Finish,
            GivenBack::Refused { code } if !is_under_way => Next::Refuse(code),
            GivenBack::Refused { code } | GivenBack::Delayed { code } if is_too_old => {
                Next::Park(code)
            }
            GivenBack::Unknown { code: Some(code) } if is_too_old => Next::Park(code),
            GivenBack::Refused { code } | GivenBack::Delayed { code } => {
                Next::AskOn { code: Some(code) }
            }
            GivenBack::Unknown { code } => Next::AskOn { code },
        };
        if matches!(next, Next::Refuse(_) | Next::Park(_)) {
            self.inner.metrics.refund_refused();
        }
        next
    }

    /// Closes a virtual account that was not paid in time. Money may have come at the last moment: whatever is not done
    /// is looked up again.
    pub(crate) async fn close_account(&self, payment: &PaymentRecord) -> Option<GivenBack> {
        let ask = Ask {
            payment_key: payment.charge_key()?,
            reason: "no deposit came in time",
            account: None,
            key: format!("{}:close", payment.attempt_key.as_deref()?),
            tries: self.inner.backoffs.tries(&payment.payment_id),
        };
        Some(self.give_back(ask).await)
    }

    async fn give_back(&self, ask: Ask<'_>) -> GivenBack {
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
            return GivenBack::Done;
        }
        // Perhaps it was done before, and only the answer was lost; or somebody did it at the gateway itself.
        let found = self.inner.gateway.find_by_key(&cancel.payment_key).await;
        let given_back = judge(outcome, &found);
        if !matches!(given_back, GivenBack::Done) {
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
            Outcome::Declined { code, .. } if cancel.refund_account.is_some() && !passes(code) => {
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
fn judge(outcome: Outcome, found: &Lookup) -> GivenBack {
    if matches!(found, Lookup::Found(charge) if standing::is_refunded(charge)) {
        return GivenBack::Done;
    }
    match outcome {
        Outcome::Approved(_) => GivenBack::Done,
        // A refusal of what was done before, perhaps: as long as nobody can look, nobody knows.
        Outcome::Declined { code, .. } if matches!(found, Lookup::Unknown { .. }) => {
            GivenBack::Delayed { code }
        }
        Outcome::Declined { code, .. } if passes(&code) => GivenBack::Delayed { code },
        Outcome::Declined { code, .. } => GivenBack::Refused { code },
        Outcome::Unknown { code, .. } => GivenBack::Unknown { code },
    }
}

/// The bank is closed for the night: the same refund is taken in the morning. Every other refusal needs a person.
fn passes(code: &str) -> bool {
    code == ErrorCode::NotAvailableBank.name()
}

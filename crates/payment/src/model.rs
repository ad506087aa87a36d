//! What a payment may become. Pure: records and a question go in, a change comes out; the time is handed in.
//!
//! ```text
//! CREATED ──> CONFIRMING ──> SUCCEEDED ──> CANCELLED
//!    │          │    ^           ^            (refunded)
//!    │          v    │           │ money that came after all: taken, and to be refunded
//!    └──────> DELETED <── FAILED ┘
//! ```

mod opening;

use contract::{
    Money, PaymentId, Timestamp, UserId,
    domain::{self, DomainMessage, PaymentStatus},
    payment::{CancelRequest, ConfirmedRequest},
};
use messaging::{Commit, Message, Rejection};

use crate::record::{HistoryEntry, PaymentRecord, Refund};

pub use opening::{Creation, Deletion, create, delete};

/// The decline code of an attempt that was not charged before its payment's deadline.
pub const DEADLINE_PASSED: &str = "DEADLINE_PASSED";

/// A payment as it becomes, and why. Nothing else saves a payment, so that none changes without its history and
/// without the world being told.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Change {
    payment: PaymentRecord,
    note: String,
}

impl Change {
    #[must_use]
    pub fn payment(&self) -> &PaymentRecord {
        &self.payment
    }

    /// Adds to a Commit: the record, its history, and its domain message.
    pub fn save(&self, commit: &mut Commit) {
        let Self { payment, note } = self;
        let version = payment.version + 1;
        commit.put(payment);
        commit.append(&HistoryEntry {
            entry_id: HistoryEntry::id(payment.payment_id, version),
            payment_id: payment.payment_id,
            payment_version: version,
            status: payment.status,
            attempt: payment.attempt,
            pg_payment_id: payment.pg_payment_id.clone(),
            note: note.clone(),
            at: payment.updated_at,
        });
        let told = DomainMessage::new(payment.told(), version, payment.updated_at);
        let id = told.event_id.clone();
        commit.publish(Message::new(id, &told, payment.updated_at));
    }
}

/// Why an attempt to pay was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the payment belongs to another user")]
    OwnerMismatch,
    #[error("the payment is over {expected}")]
    AmountMismatch { expected: Money },
    #[error("the payment was confirmed before")]
    AlreadyConfirmed,
    #[error("an attempt is at the gateway")]
    InProgress,
    #[error("the payment is closed")]
    Closed,
    #[error("the payment had to be made before {at}")]
    DeadlinePassed { at: Timestamp },
}

/// What the buyer says of their payment at the gateway.
#[derive(Debug, Clone)]
pub struct Claim<'a> {
    pub pg_payment_id: &'a str,
    pub amount: Money,
    pub user_id: Option<UserId>,
}

impl PaymentRecord {
    /// Begins an attempt: from here on the gateway may be asked.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing is changed.
    pub fn begin_attempt(&self, claim: &Claim<'_>, now: Timestamp) -> Result<Change, Refusal> {
        if claim.user_id.is_some_and(|user| user != self.user_id) {
            return Err(Refusal::OwnerMismatch);
        }
        if claim.amount != self.final_amount {
            return Err(Refusal::AmountMismatch {
                expected: self.final_amount,
            });
        }
        match self.status {
            PaymentStatus::Created | PaymentStatus::Failed => {}
            PaymentStatus::Confirming => return Err(Refusal::InProgress),
            PaymentStatus::Succeeded | PaymentStatus::Cancelled => {
                return Err(Refusal::AlreadyConfirmed);
            }
            PaymentStatus::Deleted => return Err(Refusal::Closed),
        }
        if let Some(at) = self.expires_at.filter(|at| now > *at) {
            return Err(Refusal::DeadlinePassed { at });
        }
        let attempt = self.attempt + 1;
        let note = format!("attempt {attempt} begins");
        Ok(self.change(now, note, |payment| {
            payment.status = PaymentStatus::Confirming;
            payment.attempt = attempt;
            payment.attempt_key = Some(attempt_key(self.payment_id, attempt));
            payment.attempt_started_at = Some(now);
            payment.pg_payment_id = Some(claim.pg_payment_id.to_owned());
            payment.decline_code = None;
        }))
    }

    /// Takes in what the gateway said. Money is never lost: an approval counts whenever it comes, and one that comes
    /// to a payment that is closed is refunded.
    ///
    /// # Errors
    /// A [`Rejection`], for a person to look at, of an attempt that was never made, and of a second charge.
    pub fn take_outcome(
        &self,
        outcome: &ConfirmedRequest,
        now: Timestamp,
    ) -> Result<Option<Change>, Rejection> {
        let attempt = outcome.attempt.unwrap_or(self.attempt);
        if attempt > self.attempt {
            return Err(Rejection::new(format_args!(
                "payment {} has had no attempt {attempt}",
                self.payment_id
            )));
        }
        let is_current = attempt == self.attempt;
        match (self.status, outcome.confirmed) {
            (PaymentStatus::Created | PaymentStatus::Confirming, true) => {
                Ok(Some(self.succeed(outcome, now)))
            }
            (PaymentStatus::Created | PaymentStatus::Confirming, false) => {
                Ok(is_current.then(|| self.fail(outcome, now)))
            }
            (PaymentStatus::Failed | PaymentStatus::Deleted, true) => {
                Ok(Some(self.succeed_too_late(outcome, now)))
            }
            (PaymentStatus::Succeeded | PaymentStatus::Cancelled, true) => {
                if self.pg_payment_id.as_ref() == Some(&outcome.pg_payment_id) {
                    return Ok(None);
                }
                Err(Rejection::new(format_args!(
                    "payment {} was charged a second time",
                    self.payment_id
                )))
            }
            (
                PaymentStatus::Failed
                | PaymentStatus::Deleted
                | PaymentStatus::Succeeded
                | PaymentStatus::Cancelled,
                false,
            ) => Ok(None),
        }
    }

    /// Wants the money back: there is no ticket for it.
    ///
    /// # Errors
    /// A [`Rejection`] while an attempt is at the gateway: whether there is money is not known yet.
    pub fn request_refund(
        &self,
        request: &CancelRequest,
        now: Timestamp,
    ) -> Result<Option<Change>, Rejection> {
        match self.status {
            PaymentStatus::Succeeded if self.refund == Refund::None => {
                let note = format!("refund requested: {}", request.reason);
                Ok(Some(self.change(now, note, |payment| {
                    payment.want_refund(request.reason.clone());
                })))
            }
            PaymentStatus::Confirming => Err(Rejection::new(format_args!(
                "payment {} is being confirmed: its refund must wait",
                self.payment_id
            ))),
            PaymentStatus::Created
            | PaymentStatus::Succeeded
            | PaymentStatus::Failed
            | PaymentStatus::Cancelled
            | PaymentStatus::Deleted => Ok(None),
        }
    }

    /// The money went back.
    #[must_use]
    pub fn finish_refund(&self, now: Timestamp) -> Option<Change> {
        (self.refund == Refund::Requested).then(|| {
            self.change(now, "refunded".to_owned(), |payment| {
                payment.status = PaymentStatus::Cancelled;
                payment.refund = Refund::Done;
            })
        })
    }

    /// The gateway refused to give the money back: a person is needed.
    #[must_use]
    pub fn park_refund(&self, code: &str, now: Timestamp) -> Option<Change> {
        (self.refund == Refund::Requested).then(|| {
            self.change(now, format!("refund refused: {code}"), |payment| {
                payment.refund = Refund::Parked;
            })
        })
    }

    /// Whether an attempt may no longer be charged.
    #[must_use]
    pub fn is_past_deadline(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| now > at)
    }

    /// Our name for this payment at the gateway.
    #[must_use]
    pub fn order_id(&self) -> String {
        self.payment_id.to_string()
    }

    fn succeed(&self, outcome: &ConfirmedRequest, now: Timestamp) -> Change {
        self.change(now, "the gateway approved".to_owned(), |payment| {
            payment.status = PaymentStatus::Succeeded;
            payment.pg_payment_id = Some(outcome.pg_payment_id.clone());
            payment.decline_code = None;
        })
    }

    fn fail(&self, outcome: &ConfirmedRequest, now: Timestamp) -> Change {
        let code = outcome.decline_code.as_deref().unwrap_or("DECLINED");
        self.change(now, format!("the gateway declined: {code}"), |payment| {
            payment.status = PaymentStatus::Failed;
            payment.pg_payment_id = Some(outcome.pg_payment_id.clone());
            payment.decline_code = Some(code.to_owned());
        })
    }

    fn succeed_too_late(&self, outcome: &ConfirmedRequest, now: Timestamp) -> Change {
        let note = "the gateway approved after the payment was closed: refund requested".to_owned();
        self.change(now, note, |payment| {
            payment.status = PaymentStatus::Succeeded;
            payment.pg_payment_id = Some(outcome.pg_payment_id.clone());
            payment.want_refund("the payment was closed before its money came".to_owned());
        })
    }

    fn want_refund(&mut self, reason: String) {
        self.refund = Refund::Requested;
        self.refund_reason = Some(reason);
        self.refund_key = Some(format!("{}:refund", self.payment_id));
    }

    fn change(&self, now: Timestamp, note: String, apply: impl FnOnce(&mut Self)) -> Change {
        let mut payment = self.clone();
        payment.updated_at = now;
        apply(&mut payment);
        Change { payment, note }
    }

    /// The payment as the world is told. Money that is on its way back buys nothing: whoever hears `SUCCEEDED`
    /// issues a ticket, so a payment that is to be refunded is told as `CANCELLED` from the start.
    fn told(&self) -> domain::Payment {
        let status = match (self.status, self.refund) {
            (PaymentStatus::Succeeded, Refund::Requested | Refund::Parked) => {
                PaymentStatus::Cancelled
            }
            (status, _) => status,
        };
        domain::Payment {
            id: self.payment_id,
            event_id: self.event_id,
            user_id: self.user_id,
            ticket_id: self.ticket_id,
            saga_id: Some(self.saga_id),
            pg_payment_id: self.pg_payment_id.clone(),
            status,
            total_amount: self.total_amount,
            point_amount: self.point_amount,
            final_amount: self.final_amount,
            refund: self.refund,
            refund_reason: self.refund_reason.clone(),
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

/// The idempotency key of an attempt: asking again for the same attempt is asking with the same key.
#[must_use]
pub fn attempt_key(payment: PaymentId, attempt: u32) -> String {
    format!("{payment}:{attempt}")
}

#[cfg(test)]
mod tests;

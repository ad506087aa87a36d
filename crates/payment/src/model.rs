//! The transitions of a payment. Pure: records and a request go in, a change comes out; the time is passed in.
//!
//! ```text
//! CREATED ──> CONFIRMING ──> SUCCEEDED ──> CANCELLED
//!    │         │      ^        ^  ^         (refunded)
//!    │         v      │        │  │ a late charge
//!    │       FAILED ──┴────────┘  │ (from DELETED: refunded at once)
//!    └────> DELETED <── FAILED    │
//!              └──────────────────┘ (from CONFIRMING: declined, with a deferred deletion)
//! ```

mod opening;
mod refunding;

use contract::{
    Money, PaymentId, SagaId, Timestamp, UserId,
    domain::{self, DomainMessage, PaymentStatus},
    payment::ConfirmedRequest,
};
use messaging::{Commit, Message, Rejection};
use toss::protocol::{RefundAccount, VirtualAccount};

use crate::record::{HistoryEntry, PaymentRecord, Refund};

pub use opening::{Creation, Deletion, create, delete};
pub use refunding::RefundReply;

/// The decline code of an attempt that was not charged before its payment's deadline.
pub const DEADLINE_PASSED: &str = "DEADLINE_PASSED";

/// A changed payment, and why. Only [`Change::save`] stores payments, so that each change has its history entry and its
/// domain message.
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

    /// Adds the record, its history entry and its domain message to a Commit.
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
        let message = DomainMessage::new(payment.published(), version, payment.updated_at);
        let id = message.event_id.clone();
        commit.publish(Message::new(id, &message, payment.updated_at));
    }
}

/// Why an attempt was refused.
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
    /// It is refunded, or its refund is open.
    #[error("the payment is closed: {}", refund_text(*.refund))]
    Refunded { refund: Refund },
    #[error("the payment had to be made before {at}")]
    DeadlinePassed { at: Timestamp },
}

const fn refund_text(refund: Refund) -> &'static str {
    match refund {
        Refund::None => "its money was not taken",
        Refund::Requested => "its money is on its way back (refund REQUESTED)",
        Refund::Done => "its money went back (refund DONE)",
        Refund::Parked => "its refund waits for an operator (refund PARKED)",
    }
}

/// The effect of an outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutcomeEffect {
    Changed(Box<Change>),
    /// It is known, or about an attempt that a later one has replaced.
    AlreadyKnown,
    /// The order was charged a second time: the second charge is an orphan.
    ChargedAgain,
}

/// A request to pay.
#[derive(Debug, Clone)]
pub struct AttemptRequest<'a> {
    pub pg_payment_id: &'a str,
    pub amount: Money,
    pub user_id: Option<UserId>,
    /// The account that receives the refund of a deposit.
    pub refund_account: Option<&'a RefundAccount>,
}

impl PaymentRecord {
    /// Whether the same request has succeeded before: then its caller may have lost the answer. Not for another charge,
    /// nor for a refunded payment.
    #[must_use]
    pub fn has_succeeded_as(&self, claim: &AttemptRequest<'_>) -> bool {
        self.status == PaymentStatus::Succeeded
            && (self.is_free() || self.is_charged_as(claim.pg_payment_id))
            && self.final_amount == claim.amount
            && claim.user_id.is_none_or(|user| user == self.user_id)
    }

    /// Starts an attempt; after its Commit the gateway may be asked.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing is changed.
    pub fn begin_attempt(
        &self,
        claim: &AttemptRequest<'_>,
        now: Timestamp,
    ) -> Result<Change, Refusal> {
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
            PaymentStatus::Succeeded if self.refund == Refund::None => {
                return Err(Refusal::AlreadyConfirmed);
            }
            PaymentStatus::Succeeded | PaymentStatus::Cancelled => {
                return Err(Refusal::Refunded {
                    refund: self.refund,
                });
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
            payment.pg_payment_id = Some(self.key_of(claim.pg_payment_id));
            payment.decline_code = None;
            payment.deposit_bank = None;
            payment.deposit_account = None;
            payment.deposit_due = None;
            if let Some(account) = claim.refund_account {
                payment.store_refund_account(account);
            }
        }))
    }

    /// Records an outcome. An approval counts whenever it arrives; if the payment is closed, it is refunded.
    ///
    /// # Errors
    /// A [`Rejection`] if the attempt was never made.
    pub fn record_outcome(
        &self,
        outcome: &ConfirmedRequest,
        now: Timestamp,
    ) -> Result<OutcomeEffect, Rejection> {
        let attempt = outcome.attempt.unwrap_or(self.attempt);
        if attempt > self.attempt {
            return Err(Rejection::new(format_args!(
                "payment {} has had no attempt {attempt}",
                self.payment_id
            )));
        }
        let is_current = attempt == self.attempt;
        Ok(match (self.status, outcome.confirmed) {
            // After a decline the points are still held, so that a late approval completes the payment.
            (PaymentStatus::Created | PaymentStatus::Confirming | PaymentStatus::Failed, true) => {
                OutcomeEffect::Changed(Box::new(self.succeed(outcome, now)))
            }
            (PaymentStatus::Created | PaymentStatus::Confirming, false) if is_current => {
                OutcomeEffect::Changed(Box::new(self.fail(outcome, now)))
            }
            (PaymentStatus::Deleted, true) => {
                OutcomeEffect::Changed(Box::new(self.succeed_too_late(outcome, now)))
            }
            (PaymentStatus::Succeeded | PaymentStatus::Cancelled, true)
                if !self.is_free() && !self.is_charged_as(&outcome.pg_payment_id) =>
            {
                OutcomeEffect::ChargedAgain
            }
            (PaymentStatus::Succeeded | PaymentStatus::Cancelled, true)
            | (
                PaymentStatus::Created
                | PaymentStatus::Confirming
                | PaymentStatus::Failed
                | PaymentStatus::Deleted
                | PaymentStatus::Succeeded
                | PaymentStatus::Cancelled,
                false,
            ) => OutcomeEffect::AlreadyKnown,
        })
    }

    /// Stores the account for the deposit, once.
    #[must_use]
    pub fn set_virtual_account(&self, account: &VirtualAccount, now: Timestamp) -> Option<Change> {
        let is_known = self.deposit_account == account.account_number
            && self.deposit_bank == account.bank_code
            && self.deposit_due == account.due_date;
        let is_open = self.status == PaymentStatus::Confirming;
        (is_open && !is_known).then(|| {
            let note = "a virtual account waits for the deposit".to_owned();
            self.change(now, note, |payment| {
                payment.deposit_bank.clone_from(&account.bank_code);
                payment.deposit_account.clone_from(&account.account_number);
                payment.deposit_due.clone_from(&account.due_date);
            })
        })
    }

    /// The saga whose deletion waited for the outcome, and its answer now that the payment has become `after`.
    #[must_use]
    pub fn deferred_deletion(&self, after: &Self) -> Option<(SagaId, bool)> {
        let is_deleted = after.status == PaymentStatus::Deleted;
        self.delete_saga.map(|saga| (saga, is_deleted))
    }

    /// Whether nothing is to pay: the gateway is never asked about this payment.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.final_amount == Money::ZERO
    }

    /// Whether the charge with this key is this payment's. A free payment has no charge.
    #[must_use]
    pub fn is_charged_as(&self, pg_payment_id: &str) -> bool {
        self.charge_key() == Some(pg_payment_id)
    }

    /// The gateway's key of the current or last attempt; `None` for a free payment.
    #[must_use]
    pub fn charge_key(&self) -> Option<&str> {
        let key = self.pg_payment_id.as_deref();
        key.filter(|_| !self.is_free())
    }

    /// The key to store: the buyer's; for a free payment `free-{paymentId}`, because nothing proves that the buyer's key is
    /// theirs.
    fn key_of(&self, sent: &str) -> String {
        if self.is_free() {
            format!("free-{}", self.payment_id)
        } else {
            sent.to_owned()
        }
    }

    /// Whether the payment must not be charged any more: no confirm is repeated.
    #[must_use]
    pub fn is_unwanted(&self, now: Timestamp) -> bool {
        self.delete_saga.is_some() || self.is_past_deadline(now)
    }

    /// Whether the deadline of the payment has passed.
    #[must_use]
    pub fn is_past_deadline(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| now > at)
    }

    /// The order id of this payment at the gateway.
    #[must_use]
    pub fn order_id(&self) -> String {
        self.payment_id.to_string()
    }

    fn succeed(&self, outcome: &ConfirmedRequest, now: Timestamp) -> Change {
        self.change(now, "the gateway approved".to_owned(), |payment| {
            payment.status = PaymentStatus::Succeeded;
            payment.pg_payment_id = Some(self.key_of(&outcome.pg_payment_id));
            payment.decline_code = None;
            payment.delete_saga = None;
        })
    }

    fn fail(&self, outcome: &ConfirmedRequest, now: Timestamp) -> Change {
        let code = outcome.decline_code.as_deref().unwrap_or("DECLINED");
        let (status, end) = match self.delete_saga {
            Some(_) => (PaymentStatus::Deleted, "; deleted"),
            None => (PaymentStatus::Failed, ""),
        };
        self.change(
            now,
            format!("the gateway declined: {code}{end}"),
            |payment| {
                payment.status = status;
                payment.delete_saga = None;
                payment.pg_payment_id = Some(self.key_of(&outcome.pg_payment_id));
                payment.decline_code = Some(code.to_owned());
            },
        )
    }

    fn succeed_too_late(&self, outcome: &ConfirmedRequest, now: Timestamp) -> Change {
        let note = "the gateway approved after the payment was closed: refund requested".to_owned();
        self.change(now, note, |payment| {
            payment.status = PaymentStatus::Succeeded;
            payment.pg_payment_id = Some(self.key_of(&outcome.pg_payment_id));
            payment.start_refund("the payment was closed before its money came", None, now);
        })
    }

    fn change(&self, now: Timestamp, note: String, apply: impl FnOnce(&mut Self)) -> Change {
        let mut payment = self.clone();
        payment.updated_at = now;
        apply(&mut payment);
        Change { payment, note }
    }

    /// The published status. A consumer issues a ticket for `SUCCEEDED`, so a payment with an open refund is published as
    /// `CANCELLED`. If a saga requested the refund, the ticket stays valid until the refund is done.
    #[must_use]
    pub fn published_status(&self) -> PaymentStatus {
        let is_going_back = matches!(self.refund, Refund::Requested | Refund::Parked);
        if is_going_back && self.refund_saga.is_none() {
            PaymentStatus::Cancelled
        } else {
            self.status
        }
    }

    /// The payloads of the domain message.
    fn published(&self) -> domain::Payment {
        let status = self.published_status();
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

/// The idempotency key of an attempt, the same for every repeated confirm.
#[must_use]
pub fn attempt_key(payment: PaymentId, attempt: u32) -> String {
    format!("{payment}:{attempt}")
}

#[cfg(test)]
mod tests;

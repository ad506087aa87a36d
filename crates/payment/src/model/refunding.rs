//! The refund of a payment: requested, done, refused, parked, or found done at the gateway.

use contract::{
    Money, SagaId, Timestamp,
    domain::PaymentStatus,
    payment::{CancelRequest, CancelResponse},
};
use messaging::{Commit, Message, Rejection};
use toss::protocol::RefundAccount;

use super::Change;
use crate::record::{OrphanChargeRecord, PaymentRecord, Refund};

/// The decision about a request for a refund.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefundReply {
    Requested(Box<Change>),
    /// The refund is done, or impossible: the saga that waits gets the answer.
    Decided {
        succeed: bool,
        code: Option<String>,
    },
    /// Not decided yet; the saga repeats its request.
    Undecided,
}

fn refused(code: &str) -> RefundReply {
    RefundReply::Decided {
        succeed: false,
        code: Some(code.to_owned()),
    }
}

impl PaymentRecord {
    /// Requests a refund, because no ticket could be issued or the buyer cancels the ticket.
    ///
    /// # Errors
    /// A [`Rejection`] while an attempt is at the gateway and no saga repeats the request: whether the payment is charged
    /// is not known yet.
    pub fn request_refund(
        &self,
        request: &CancelRequest,
        now: Timestamp,
    ) -> Result<RefundReply, Rejection> {
        let saga = request.saga_id;
        Ok(match (self.status, self.refund) {
            (PaymentStatus::Succeeded, Refund::None)
                if saga.is_some() && self.refund_saga == saga =>
            {
                refused(self.refund_code.as_deref().unwrap_or("REFUND_REFUSED"))
            }
            (PaymentStatus::Succeeded, Refund::None) => {
                let note = format!("refund requested: {}", request.reason);
                let change = self.change(now, note, |payment| {
                    payment.start_refund(&request.reason, saga, now);
                });
                RefundReply::Requested(Box::new(change))
            }
            // The gateway has neither done nor refused it: the saga waits for an operator.
            (PaymentStatus::Succeeded, Refund::Parked)
                if saga.is_some() && self.refund_saga == saga =>
            {
                RefundReply::Undecided
            }
            (PaymentStatus::Succeeded, Refund::Parked) => refused("REFUND_PARKED"),
            // The refund is open already, and its ticket is cancelled.
            (PaymentStatus::Succeeded, Refund::Requested) if self.refund_saga.is_none() => {
                RefundReply::Decided {
                    succeed: true,
                    code: None,
                }
            }
            (PaymentStatus::Succeeded, Refund::Requested) => RefundReply::Undecided,
            (PaymentStatus::Confirming, _) if saga.is_some() => RefundReply::Undecided,
            (PaymentStatus::Confirming, _) => {
                return Err(Rejection::new(format_args!(
                    "payment {} is being confirmed: request its refund later",
                    self.payment_id
                )));
            }
            (PaymentStatus::Cancelled, _) | (PaymentStatus::Succeeded, Refund::Done) => {
                RefundReply::Decided {
                    succeed: true,
                    code: None,
                }
            }
            (PaymentStatus::Created | PaymentStatus::Failed | PaymentStatus::Deleted, _) => {
                refused("NOT_PAID")
            }
        })
    }

    /// The refund is done.
    #[must_use]
    pub fn finish_refund(&self, now: Timestamp) -> Option<Change> {
        matches!(self.refund, Refund::Requested | Refund::Parked).then(|| {
            self.change(now, "refunded".to_owned(), |payment| {
                payment.status = PaymentStatus::Cancelled;
                payment.refund = Refund::Done;
                payment.refund_code = None;
            })
        })
    }

    /// The gateway refused the refund. A saga that requested it compensates, and the payment stays paid; otherwise the refund
    /// is parked.
    #[must_use]
    pub fn refuse_refund(&self, code: &str, now: Timestamp) -> Option<Change> {
        (self.refund == Refund::Requested).then(|| {
            self.change(now, format!("refund refused: {code}"), |payment| {
                payment.refund_code = Some(code.to_owned());
                payment.refund = match payment.refund_saga {
                    Some(_) => Refund::None,
                    None => Refund::Parked,
                };
            })
        })
    }

    /// The refund is not done so far, for this reason, and is repeated. Recorded once for each reason.
    #[must_use]
    pub fn delay_refund(&self, code: &str, now: Timestamp) -> Option<Change> {
        let is_new = self.refund_code.as_deref() != Some(code);
        (self.refund == Refund::Requested && is_new).then(|| {
            self.change(now, format!("not refunded so far: {code}"), |payment| {
                payment.refund_code = Some(code.to_owned());
                // An earlier version did not store it.
                payment.refund_requested_at = Some(self.refund_requested_since());
            })
        })
    }

    /// The refund stays without a proven result, and an operator is needed. A saga that requested it gets no answer, because
    /// the refund may be done.
    #[must_use]
    pub fn park_refund(&self, code: &str, now: Timestamp) -> Option<Change> {
        (self.refund == Refund::Requested).then(|| {
            let since = self.refund_requested_since();
            let note = format!("refund parked: requested at {since}, last answer {code}");
            self.change(now, note, |payment| {
                payment.refund_code = Some(code.to_owned());
                payment.refund = Refund::Parked;
            })
        })
    }

    /// When the current refund was requested.
    #[must_use]
    pub fn refund_requested_since(&self) -> Timestamp {
        self.refund_requested_at.unwrap_or(self.updated_at)
    }

    /// Requests a parked refund again, after an operator has removed the obstacle.
    #[must_use]
    pub fn resume_refund(&self, now: Timestamp) -> Option<Change> {
        (self.refund == Refund::Parked).then(|| {
            let note = "refund requested again".to_owned();
            self.change(now, note, |payment| {
                payment.refund = Refund::Requested;
                payment.refund_number += 1;
                payment.refund_requested_at = Some(now);
            })
        })
    }

    /// The payment was cancelled at the gateway itself.
    #[must_use]
    pub fn cancelled_at_gateway(&self, now: Timestamp) -> Option<Change> {
        self.is_kept().then(|| {
            let reason = "it was cancelled at the gateway";
            self.change(now, reason.to_owned(), |payment| {
                payment.status = PaymentStatus::Cancelled;
                payment.refund = Refund::Done;
                payment.refund_saga = None;
                payment.refund_reason = Some(reason.to_owned());
            })
        })
    }

    /// The bank reversed the deposit. The refund closes the account, so that no later deposit arrives.
    #[must_use]
    pub fn deposit_reversed(&self, now: Timestamp) -> Option<Change> {
        self.is_kept().then(|| {
            let reason = "the bank took the deposit back";
            self.change(now, reason.to_owned(), |payment| {
                payment.start_refund(reason, None, now)
            })
        })
    }

    /// The orphan record that requests the refund of a charge, once each time that it is found charged; `None` if the
    /// refund is open. `known` is the stored record of the charge.
    #[must_use]
    pub fn orphan_to_refund(
        &self,
        pg_payment_id: &str,
        amount: Money,
        known: Option<OrphanChargeRecord>,
        now: Timestamp,
    ) -> Option<OrphanChargeRecord> {
        match known {
            None => {
                let reason = "the order has a charge that is not its payment's";
                let id = self.payment_id;
                let found = OrphanChargeRecord::found(id, pg_payment_id, amount, reason, now);
                Some(found)
            }
            Some(known) => (!known.is_open()).then(|| known.refund_requested_again(now)),
        }
    }

    /// Whether the charge is this payment's own and must not be refunded as an orphan.
    #[must_use]
    pub fn keeps(&self, orphan: &OrphanChargeRecord) -> bool {
        self.is_kept() && self.owns(orphan) && self.is_charged_as(&orphan.pg_payment_id)
    }

    /// Whether the payment was charged, and its money stays.
    fn is_kept(&self) -> bool {
        self.status == PaymentStatus::Succeeded && self.refund == Refund::None
    }

    /// Whether an orphan charge belongs to this payment's order. It is loaded by the gateway's key, which a caller may send
    /// for any payment; only its own payment may settle it.
    #[must_use]
    pub fn owns(&self, orphan: &OrphanChargeRecord) -> bool {
        orphan.payment_id == self.payment_id && !self.is_free()
    }

    /// Sets the account that receives the refund of a deposit.
    pub fn set_refund_account(&self, account: &RefundAccount, now: Timestamp) -> Change {
        let note = "an account for refunds was named".to_owned();
        self.change(now, note, |payment| payment.store_refund_account(account))
    }

    #[must_use]
    pub fn refund_account(&self) -> Option<RefundAccount> {
        Some(RefundAccount {
            bank: self.refund_bank.clone()?,
            account_number: self.refund_account.clone()?,
            holder_name: self.refund_holder.clone()?,
        })
    }

    /// The idempotency key of the current refund.
    #[must_use]
    pub fn refund_key(&self) -> String {
        format!("{}:refund:{}", self.payment_id, self.refund_number)
    }

    pub(super) fn store_refund_account(&mut self, account: &RefundAccount) {
        self.refund_bank = Some(account.bank.clone());
        self.refund_account = Some(account.account_number.clone());
        self.refund_holder = Some(account.holder_name.clone());
    }

    pub(super) fn start_refund(&mut self, reason: &str, saga: Option<SagaId>, now: Timestamp) {
        self.refund = Refund::Requested;
        self.refund_reason = Some(reason.to_owned());
        self.refund_number += 1;
        self.refund_saga = saga;
        self.refund_code = None;
        self.refund_requested_at = Some(now);
    }
}

impl Change {
    /// Publishes the response to the saga that requested the refund, if the result is known.
    pub(crate) fn answer_saga(&self, commit: &mut Commit) {
        let payment = &self.payment;
        let Some(saga_id) = payment.refund_saga else {
            return;
        };
        let succeed = match payment.refund {
            Refund::Done => true,
            Refund::None => false,
            Refund::Requested | Refund::Parked => return,
        };
        let response = CancelResponse {
            saga_id,
            payment_id: payment.payment_id,
            succeed,
            code: payment.refund_code.clone(),
        };
        let id = format!("{}:response", payment.refund_key());
        commit.publish(Message::new(id, &response, payment.updated_at));
    }
}

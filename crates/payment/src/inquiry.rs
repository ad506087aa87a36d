//! What a lookup proves of an attempt. Pure.

use crate::{
    confirm::Verdict,
    gateway::{Charge, ChargeStatus},
    record::PaymentRecord,
};

/// What the gateway knows of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Finding {
    Proven(Verdict),
    /// Nothing was charged so far, and something may still be.
    Open,
    /// The gateway says something that this program must not act on.
    Unclear,
}

/// What a charge says of the payment's current attempt. It was found by the attempt's key or by the order.
pub(crate) fn read(payment: &PaymentRecord, charge: &Charge) -> Finding {
    let is_ours = charge.order_id == payment.order_id();
    let is_this_attempt = payment.pg_payment_id.as_deref() == Some(charge.payment_key.as_str());
    if !is_ours {
        // The key that the buyer sent names another order: asked for it, the gateway refuses.
        return Finding::Open;
    }
    match &charge.status {
        // The money of this order was taken, by whichever attempt.
        ChargeStatus::Done if charge.total_amount == payment.final_amount.get() => {
            Finding::Proven(Verdict::Approved {
                pg_payment_id: charge.payment_key.clone(),
            })
        }
        ChargeStatus::Aborted | ChargeStatus::Expired | ChargeStatus::Canceled
            if is_this_attempt =>
        {
            Finding::Proven(Verdict::Declined {
                code: charge.status.as_str().to_owned(),
            })
        }
        ChargeStatus::Aborted
        | ChargeStatus::Expired
        | ChargeStatus::Canceled
        | ChargeStatus::Ready
        | ChargeStatus::InProgress => Finding::Open,
        ChargeStatus::Done
        | ChargeStatus::WaitingForDeposit
        | ChargeStatus::PartialCanceled
        | ChargeStatus::Other(_) => Finding::Unclear,
    }
}

/// Whether all the money of a charge has gone back.
pub(crate) fn is_refunded(charge: &Charge) -> bool {
    charge.status == ChargeStatus::Canceled && charge.balance_amount == 0
}

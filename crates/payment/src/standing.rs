//! What a charge at the gateway says of its payment. Pure: the two are compared, and what is to be done follows.
//!
//! Whoever looks a payment up compares it here: the settler, a webhook, the reconciliation. So the order in which
//! things are heard of does not matter: each looks at what is so now.

use contract::domain::PaymentStatus;

use crate::{
    confirm::Verdict,
    gateway::{Charge, ChargeStatus},
    record::{PaymentRecord, Refund},
};

/// How a payment and a charge stand to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// As it should be; or the gateway knows less, and nothing is to be done about it.
    Agrees,
    /// The payment has an outcome that we have not heard of.
    Outcome(Verdict),
    /// Nothing was charged so far, and something may still be.
    Open,
    /// A virtual account waits for its buyer's money.
    WaitsForDeposit,
    /// Somebody cancelled it at the gateway itself.
    Withdrawn,
    /// The bank took a deposit back that we had.
    DepositGone,
    /// A refund that was wanted is done.
    Refunded,
    /// The order was charged beside its payment: that money goes back.
    Stray,
    /// Another amount than the payment's was charged for it: that is not this purchase's money, and goes back.
    WrongAmount,
    /// They differ, and a person must say who is right.
    Differs(&'static str),
    /// The charge is another order's.
    Foreign,
}

/// What `charge`, as the gateway shows it now, says of `payment`, as it is now.
pub(crate) fn compare(payment: &PaymentRecord, charge: &Charge) -> Standing {
    if charge.order_id != payment.order_id() {
        return Standing::Foreign;
    }
    let is_named = payment.is_charged_as(&charge.payment_key);
    match &charge.status {
        ChargeStatus::Done => charged(payment, charge, is_named),
        ChargeStatus::Canceled => given_back(payment, charge, is_named),
        ChargeStatus::PartialCanceled if is_named => {
            Standing::Differs("only a part of it was cancelled")
        }
        ChargeStatus::PartialCanceled => Standing::Differs("another charge was cancelled in part"),
        ChargeStatus::WaitingForDeposit => match payment.status {
            PaymentStatus::Confirming if is_named => Standing::WaitsForDeposit,
            PaymentStatus::Succeeded if is_named && payment.refund == Refund::None => {
                Standing::DepositGone
            }
            PaymentStatus::Succeeded if is_named => Standing::Agrees,
            PaymentStatus::Created => Standing::Agrees,
            // It was opened after its attempt had been given up. Nobody wants its money: it is closed before any comes.
            PaymentStatus::Confirming
            | PaymentStatus::Succeeded
            | PaymentStatus::Failed
            | PaymentStatus::Cancelled
            | PaymentStatus::Deleted => Standing::Stray,
        },
        ChargeStatus::Aborted | ChargeStatus::Expired => match payment.status {
            PaymentStatus::Confirming if is_named => Standing::Outcome(declined(charge)),
            PaymentStatus::Confirming => Standing::Open,
            PaymentStatus::Succeeded if is_named && payment.refund == Refund::None => {
                Standing::Differs("the gateway has no money for it")
            }
            _ => Standing::Agrees,
        },
        ChargeStatus::Ready | ChargeStatus::InProgress => match payment.status {
            PaymentStatus::Confirming => Standing::Open,
            PaymentStatus::Succeeded if is_named => {
                Standing::Differs("the gateway has not charged it")
            }
            _ => Standing::Agrees,
        },
        ChargeStatus::Other(_) => Standing::Differs("the gateway tells a status that is not known"),
    }
}

/// The gateway holds money for the order.
fn charged(payment: &PaymentRecord, charge: &Charge, is_named: bool) -> Standing {
    let is_whole = charge.total_amount == payment.final_amount.get()
        && charge.balance_amount == charge.total_amount;
    match payment.status {
        PaymentStatus::Created
        | PaymentStatus::Confirming
        | PaymentStatus::Failed
        | PaymentStatus::Deleted
            if is_whole =>
        {
            Standing::Outcome(Verdict::Approved {
                pg_payment_id: charge.payment_key.clone(),
            })
        }
        PaymentStatus::Succeeded if is_named && is_whole => Standing::Agrees,
        PaymentStatus::Succeeded if !is_named => Standing::Stray,
        // It was given back, and there is money again.
        PaymentStatus::Cancelled => Standing::Stray,
        PaymentStatus::Created
        | PaymentStatus::Confirming
        | PaymentStatus::Failed
        | PaymentStatus::Deleted => Standing::WrongAmount,
        PaymentStatus::Succeeded => Standing::Differs("another amount was charged"),
    }
}

/// The gateway has given everything back, or has never had anything.
fn given_back(payment: &PaymentRecord, charge: &Charge, is_named: bool) -> Standing {
    if charge.balance_amount != 0 {
        return Standing::Differs("it is cancelled, but a part of it is left");
    }
    match (payment.status, payment.refund) {
        (PaymentStatus::Confirming, _) if is_named => Standing::Outcome(declined(charge)),
        (PaymentStatus::Confirming, _) => Standing::Open,
        (PaymentStatus::Succeeded, Refund::None) if is_named => Standing::Withdrawn,
        (PaymentStatus::Succeeded, Refund::Requested | Refund::Parked) if is_named => {
            Standing::Refunded
        }
        (
            PaymentStatus::Created
            | PaymentStatus::Succeeded
            | PaymentStatus::Failed
            | PaymentStatus::Cancelled
            | PaymentStatus::Deleted,
            _,
        ) => Standing::Agrees,
    }
}

fn declined(charge: &Charge) -> Verdict {
    Verdict::Declined {
        code: charge.status.as_str().to_owned(),
    }
}

/// Whether all the money of a charge has gone back.
pub(crate) fn is_refunded(charge: &Charge) -> bool {
    charge.status == ChargeStatus::Canceled && charge.balance_amount == 0
}

#[cfg(test)]
mod tests;

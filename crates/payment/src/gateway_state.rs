//! What a charge at the gateway says of its payment. Pure: the two are compared, and what is to be done follows.
//!
//! Whoever looks a payment up compares it here: the settler, a webhook, the reconciliation. So the order in which
//! things are heard of does not matter: each looks at what is so now.

pub(crate) mod apply;

use contract::domain::PaymentStatus;

use crate::{
    confirm::AttemptOutcome,
    gateway::{Charge, ChargeStatus},
    record::{PaymentRecord, Refund},
};

/// How a payment and a charge stand to each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GatewayState {
    /// As it should be; or the gateway knows less, and nothing is to be done about it.
    InSync,
    /// The payment has an outcome that we have not heard of.
    Outcome(AttemptOutcome),
    /// Nothing was charged so far, and something may still be.
    Pending,
    /// A virtual account waits for its buyer's money.
    AwaitingDeposit,
    /// Somebody cancelled it at the gateway itself.
    CancelledAtGateway,
    /// The bank took a deposit back that we had.
    DepositReversed,
    /// A refund that was wanted is done.
    Refunded,
    /// The order was charged beside its payment: that money goes back.
    Orphan,
    /// Another amount than the payment's was charged for it: that is not this purchase's money, and goes back.
    WrongAmount,
    /// They differ, and a person must say who is right.
    Mismatch(&'static str),
    /// The charge is another order's.
    OtherOrder,
}

/// What `charge`, as the gateway shows it now, says of `payment`, as it is now.
pub(crate) fn compare(payment: &PaymentRecord, charge: &Charge) -> GatewayState {
    if charge.order_id != payment.order_id() {
        return GatewayState::OtherOrder;
    }
    let is_named = payment.is_charged_as(&charge.payment_key);
    match &charge.status {
        ChargeStatus::Done => charged(payment, charge, is_named),
        ChargeStatus::Canceled => cancelled(payment, charge, is_named),
        ChargeStatus::PartialCanceled if is_named => {
            GatewayState::Mismatch("only a part of it was cancelled")
        }
        ChargeStatus::PartialCanceled => {
            GatewayState::Mismatch("another charge was cancelled in part")
        }
        ChargeStatus::WaitingForDeposit => match payment.status {
            PaymentStatus::Confirming if is_named => GatewayState::AwaitingDeposit,
            PaymentStatus::Succeeded if is_named && payment.refund == Refund::None => {
                GatewayState::DepositReversed
            }
            PaymentStatus::Succeeded if is_named => GatewayState::InSync,
            PaymentStatus::Created => GatewayState::InSync,
            // It was opened after its attempt had been given up. Nobody wants its money: it is closed before any comes.
            PaymentStatus::Confirming
            | PaymentStatus::Succeeded
            | PaymentStatus::Failed
            | PaymentStatus::Cancelled
            | PaymentStatus::Deleted => GatewayState::Orphan,
        },
        ChargeStatus::Aborted | ChargeStatus::Expired => match payment.status {
            PaymentStatus::Confirming if is_named => GatewayState::Outcome(declined(charge)),
            PaymentStatus::Confirming => GatewayState::Pending,
            PaymentStatus::Succeeded if is_named && payment.refund == Refund::None => {
                GatewayState::Mismatch("the gateway has no money for it")
            }
            _ => GatewayState::InSync,
        },
        ChargeStatus::Ready | ChargeStatus::InProgress => match payment.status {
            PaymentStatus::Confirming => GatewayState::Pending,
            PaymentStatus::Succeeded if is_named => {
                GatewayState::Mismatch("the gateway has not charged it")
            }
            _ => GatewayState::InSync,
        },
        ChargeStatus::Other(_) => {
            GatewayState::Mismatch("the gateway tells a status that is not known")
        }
    }
}

/// The gateway holds money for the order.
fn charged(payment: &PaymentRecord, charge: &Charge, is_named: bool) -> GatewayState {
    let is_whole = charge.total_amount == payment.final_amount.get()
        && charge.balance_amount == charge.total_amount;
    match payment.status {
        PaymentStatus::Created
        | PaymentStatus::Confirming
        | PaymentStatus::Failed
        | PaymentStatus::Deleted
            if is_whole =>
        {
            GatewayState::Outcome(AttemptOutcome::Approved {
                pg_payment_id: charge.payment_key.clone(),
            })
        }
        PaymentStatus::Succeeded if is_named && is_whole => GatewayState::InSync,
        PaymentStatus::Succeeded if !is_named => GatewayState::Orphan,
        // It was given back, and there is money again.
        PaymentStatus::Cancelled => GatewayState::Orphan,
        PaymentStatus::Created
        | PaymentStatus::Confirming
        | PaymentStatus::Failed
        | PaymentStatus::Deleted => GatewayState::WrongAmount,
        PaymentStatus::Succeeded => GatewayState::Mismatch("another amount was charged"),
    }
}

/// The gateway has given everything back, or has never had anything.
fn cancelled(payment: &PaymentRecord, charge: &Charge, is_named: bool) -> GatewayState {
    if charge.balance_amount != 0 {
        return GatewayState::Mismatch("it is cancelled, but a part of it is left");
    }
    match (payment.status, payment.refund) {
        (PaymentStatus::Confirming, _) if is_named => GatewayState::Outcome(declined(charge)),
        (PaymentStatus::Confirming, _) => GatewayState::Pending,
        (PaymentStatus::Succeeded, Refund::None) if is_named => GatewayState::CancelledAtGateway,
        (PaymentStatus::Succeeded, Refund::Requested | Refund::Parked) if is_named => {
            GatewayState::Refunded
        }
        (
            PaymentStatus::Created
            | PaymentStatus::Succeeded
            | PaymentStatus::Failed
            | PaymentStatus::Cancelled
            | PaymentStatus::Deleted,
            _,
        ) => GatewayState::InSync,
    }
}

fn declined(charge: &Charge) -> AttemptOutcome {
    AttemptOutcome::Declined {
        code: charge.status.as_str().to_owned(),
    }
}

/// Whether all the money of a charge has gone back.
pub(crate) fn is_refunded(charge: &Charge) -> bool {
    charge.status == ChargeStatus::Canceled && charge.balance_amount == 0
}

#[cfg(test)]
mod tests;

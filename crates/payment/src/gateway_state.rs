//! The state of a payment at the gateway, relative to its record. Pure.
//!
//! The settler, webhooks and the reconciliation all compare here, each with the current state of both. So the order in
//! which they run does not matter.
//!
//! [`apply`] makes the Commit that brings the payment to that state.

pub(crate) mod apply;

use contract::domain::PaymentStatus;
use toss::{Charge, ChargeStatus};

use crate::{
    confirm::AttemptOutcome,
    record::{PaymentRecord, Refund},
};

/// The state of a payment at the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GatewayState {
    /// Both agree, or the gateway is behind and nothing has to be done.
    InSync,
    /// The attempt has an outcome that the record does not have yet.
    Outcome(AttemptOutcome),
    /// Nothing was charged so far, but may still be.
    Pending,
    /// A virtual account waits for the buyer's deposit.
    AwaitingDeposit,
    /// It was cancelled at the gateway itself.
    CancelledAtGateway,
    /// The bank reversed the deposit.
    DepositReversed,
    /// A requested refund is done.
    Refunded,
    /// A charge of the order that is not the payment's: it is refunded.
    Orphan,
    /// The charge has another amount than the payment: it is refunded.
    WrongAmount,
    /// They differ, and an operator must decide.
    Mismatch(&'static str),
    /// The charge belongs to another order.
    OtherOrder,
}

/// Compares the current charge with the current record.
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
            // The account was opened after its attempt was given up: it is closed before a deposit arrives.
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
        ChargeStatus::Other(_) => GatewayState::Mismatch("the gateway sends an unknown status"),
    }
}

/// The gateway holds the money of the charge.
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
        // It was refunded, and is charged again.
        PaymentStatus::Cancelled => GatewayState::Orphan,
        PaymentStatus::Created
        | PaymentStatus::Confirming
        | PaymentStatus::Failed
        | PaymentStatus::Deleted => GatewayState::WrongAmount,
        PaymentStatus::Succeeded => GatewayState::Mismatch("another amount was charged"),
    }
}

/// The charge is cancelled: refunded in full, or never paid.
fn cancelled(payment: &PaymentRecord, charge: &Charge, is_named: bool) -> GatewayState {
    if charge.balance_amount != 0 {
        return GatewayState::Mismatch("it is cancelled, but has a balance");
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

/// Whether the charge is refunded in full.
pub(crate) fn is_refunded(charge: &Charge) -> bool {
    charge.status == ChargeStatus::Canceled && charge.balance_amount == 0
}

#[cfg(test)]
mod tests;

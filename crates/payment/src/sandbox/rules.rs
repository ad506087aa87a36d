//! What the gateway does with a payment: pure decisions on what is stored. The clock is handed in.

use jiff::Timestamp;
use jiff::tz;

use crate::gateway::ErrorCode;
use crate::gateway::protocol::{
    CANCEL_REASON_CHARS_MAX, CancelBody, CancelEntry, ChargeStatus, ConfirmBody, PaymentBody,
    is_order_id, is_path_key,
};

/// The gateway's clock shows Korean time, which has no summer time.
const KOREA_OFFSET_HOURS: i8 = 9;

/// What is stored that a confirm concerns.
pub(super) struct Known {
    pub by_key: Option<PaymentBody>,
    /// Whether a payment with another key has taken the order.
    pub order_taken: bool,
}

/// The payment that a confirm makes.
///
/// # Errors
/// The code that the gateway answers when it makes none.
pub(super) fn confirm(
    body: &ConfirmBody,
    known: Known,
    now: Timestamp,
) -> Result<PaymentBody, ErrorCode> {
    if !is_path_key(&body.payment_key) {
        return Err(ErrorCode::InvalidPaymentKey);
    }
    if !is_order_id(&body.order_id) {
        return Err(ErrorCode::InvalidOrderId);
    }
    if body.amount <= 0 {
        return Err(ErrorCode::BelowZeroAmount);
    }
    if let Some(payment) = known.by_key {
        let is_same = payment.order_id == body.order_id && payment.total_amount == body.amount;
        // The live gateway compares both with what the buyer authenticated; which code it then answers is not documented.
        return Err(if is_same {
            ErrorCode::AlreadyProcessedPayment
        } else {
            ErrorCode::InvalidRequest
        });
    }
    if known.order_taken {
        return Err(ErrorCode::DuplicatedOrderId);
    }
    let at = korean(now);
    Ok(PaymentBody {
        payment_key: body.payment_key.clone(),
        order_id: body.order_id.clone(),
        status: ChargeStatus::Done,
        total_amount: body.amount,
        balance_amount: body.amount,
        currency: Some("KRW".to_owned()),
        method: Some("카드".to_owned()),
        requested_at: Some(at.clone()),
        approved_at: Some(at),
        last_transaction_key: Some(transaction_key(&body.payment_key, 0)),
        cancels: None,
        failure: None,
        secret: None,
        virtual_account: None,
    })
}

/// The payment after a cancellation, which is its last entry.
///
/// # Errors
/// The code that the gateway answers when it cancels nothing.
pub(super) fn cancel(
    body: &CancelBody,
    known: Option<PaymentBody>,
    now: Timestamp,
) -> Result<PaymentBody, ErrorCode> {
    let mut payment = known.ok_or(ErrorCode::NotFoundPayment)?;
    if !(1..=CANCEL_REASON_CHARS_MAX).contains(&body.cancel_reason.chars().count()) {
        return Err(ErrorCode::InvalidRequest);
    }
    match payment.status {
        ChargeStatus::Done | ChargeStatus::PartialCanceled => {}
        ChargeStatus::Canceled => return Err(ErrorCode::AlreadyCanceledPayment),
        ChargeStatus::Ready
        | ChargeStatus::InProgress
        | ChargeStatus::WaitingForDeposit
        | ChargeStatus::Aborted
        | ChargeStatus::Expired
        | ChargeStatus::Other(_) => return Err(ErrorCode::NotCancelablePayment),
    }
    let amount = body.cancel_amount.unwrap_or(payment.balance_amount);
    if !(1..=payment.balance_amount).contains(&amount) {
        return Err(ErrorCode::NotCancelableAmount);
    }
    payment.balance_amount -= amount;
    payment.status = if payment.balance_amount == 0 {
        ChargeStatus::Canceled
    } else {
        ChargeStatus::PartialCanceled
    };
    let cancels = payment.cancels.get_or_insert_default();
    let transaction_key = transaction_key(&payment.payment_key, cancels.len() + 1);
    cancels.push(CancelEntry {
        cancel_amount: amount,
        cancel_reason: Some(body.cancel_reason.clone()),
        canceled_at: Some(korean(now)),
        transaction_key: Some(transaction_key.clone()),
    });
    payment.last_transaction_key = Some(transaction_key);
    Ok(payment)
}

fn transaction_key(payment_key: &str, number: usize) -> String {
    format!("{payment_key}.{number}")
}

/// `2026-01-02T03:04:05+09:00`, as the gateway writes it.
fn korean(now: Timestamp) -> String {
    let whole = Timestamp::from_second(now.as_second()).unwrap_or(now);
    whole
        .display_with_offset(tz::offset(KOREA_OFFSET_HOURS))
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(amount: i64) -> ConfirmBody {
        ConfirmBody {
            payment_key: "key-1".into(),
            order_id: "order-1".into(),
            amount,
        }
    }

    fn nothing() -> Known {
        Known {
            by_key: None,
            order_taken: false,
        }
    }

    #[test]
    fn a_confirm_that_breaks_a_documented_limit_is_refused() {
        for (body, code) in [
            (
                ConfirmBody {
                    payment_key: "..".into(),
                    ..body(1)
                },
                ErrorCode::InvalidPaymentKey,
            ),
            (
                ConfirmBody {
                    order_id: "short".into(),
                    ..body(1)
                },
                ErrorCode::InvalidOrderId,
            ),
            (
                ConfirmBody {
                    order_id: "o".repeat(65),
                    ..body(1)
                },
                ErrorCode::InvalidOrderId,
            ),
            (body(0), ErrorCode::BelowZeroAmount),
            (body(-1), ErrorCode::BelowZeroAmount),
        ] {
            assert_eq!(
                confirm(&body, nothing(), Timestamp::UNIX_EPOCH),
                Err(code),
                "{body:?}"
            );
        }
    }

    #[test]
    fn a_payment_is_charged_once_and_an_order_is_paid_once() {
        let paid = confirm(&body(1000), nothing(), Timestamp::UNIX_EPOCH).expect("a new payment");
        assert_eq!(
            paid.approved_at.as_deref(),
            Some("1970-01-01T09:00:00+09:00")
        );
        let again = |amount, order_id: &str| {
            let known = Known {
                by_key: Some(paid.clone()),
                order_taken: false,
            };
            let body = ConfirmBody {
                order_id: order_id.into(),
                ..body(amount)
            };
            confirm(&body, known, Timestamp::UNIX_EPOCH)
        };
        assert_eq!(
            again(1000, "order-1"),
            Err(ErrorCode::AlreadyProcessedPayment)
        );
        assert_eq!(again(999, "order-1"), Err(ErrorCode::InvalidRequest));
        assert_eq!(again(1000, "order-2"), Err(ErrorCode::InvalidRequest));
        let taken = Known {
            by_key: None,
            order_taken: true,
        };
        assert_eq!(
            confirm(&body(1000), taken, Timestamp::UNIX_EPOCH),
            Err(ErrorCode::DuplicatedOrderId)
        );
    }

    #[test]
    fn cancellations_never_give_back_more_than_was_charged() {
        let now = Timestamp::UNIX_EPOCH;
        let give_back = |payment: PaymentBody, amount| {
            let body = CancelBody {
                cancel_reason: "test".into(),
                cancel_amount: amount,
                refund_receive_account: None,
            };
            cancel(&body, Some(payment), now)
        };
        let paid = confirm(&body(1000), nothing(), now).expect("a new payment");
        for amount in [0, -1, 1001, i64::MAX, i64::MIN] {
            assert_eq!(
                give_back(paid.clone(), Some(amount)),
                Err(ErrorCode::NotCancelableAmount)
            );
        }
        let part = give_back(paid, Some(400)).expect("within the balance");
        assert_eq!(
            (part.balance_amount, part.status.as_str()),
            (600, "PARTIAL_CANCELED")
        );
        assert_eq!(
            give_back(part.clone(), Some(601)),
            Err(ErrorCode::NotCancelableAmount)
        );
        let gone = give_back(part, None).expect("the rest");
        assert_eq!((gone.balance_amount, gone.status.as_str()), (0, "CANCELED"));
        assert_eq!(gone.cancels.as_ref().map(Vec::len), Some(2));
        assert_eq!(
            give_back(gone, None),
            Err(ErrorCode::AlreadyCanceledPayment)
        );
    }
}

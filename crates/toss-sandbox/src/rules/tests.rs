//! Tables of the gateway's decisions.

use super::*;
use jiff::SignedDuration;

const START: Timestamp = Timestamp::constant(1_700_000_000, 0);

fn body(amount: i64) -> ConfirmBody {
    ConfirmBody {
        payment_key: "key-1".into(),
        order_id: "order-1".into(),
        amount,
    }
}

fn known(by_key: Option<Payment>) -> Known {
    Known {
        by_key,
        order_taken: false,
        lenient: true,
    }
}

fn requested(method: Method) -> Payment {
    Payment {
        due_secs: 60,
        secret: Some("secret".into()),
        account_number: Some("1".into()),
        ..request("key-1".into(), "order-1".into(), 1000, method, START)
    }
}

fn authenticated(method: Method) -> Payment {
    authenticate(requested(method), START)
        .expect("in this state")
        .payment
}

fn waiting() -> Payment {
    let account = authenticated(Method::VirtualAccount);
    confirm(&body(1000), known(Some(account)), START)
        .expect("in this state")
        .payment
}

fn cancel_amount(payment: Payment, amount: Option<i64>) -> Result<Change, ErrorCode> {
    let body = CancelBody {
        cancel_reason: "test".into(),
        cancel_amount: amount,
        refund_receive_account: None,
    };
    cancel(&body, Some(payment), START)
}

#[test]
fn a_confirm_that_breaks_a_documented_limit_is_refused() {
    let with_key = |key: &str| ConfirmBody {
        payment_key: key.into(),
        ..body(1)
    };
    let with_order = |order: String| ConfirmBody {
        order_id: order,
        ..body(1)
    };
    for (body, code) in [
        (with_key(".."), ErrorCode::INVALID_PAYMENT_KEY),
        (with_order("short".into()), ErrorCode::INVALID_ORDER_ID),
        (with_order("o".repeat(65)), ErrorCode::INVALID_ORDER_ID),
        (body(0), ErrorCode::BELOW_ZERO_AMOUNT),
        (body(-1), ErrorCode::BELOW_ZERO_AMOUNT),
    ] {
        assert_eq!(confirm(&body, known(None), START), Err(code), "{body:?}");
    }
}

#[test]
fn a_payment_is_charged_once_and_an_order_is_paid_once() {
    let paid = confirm(&body(1000), known(None), START)
        .expect("a new payment")
        .payment;
    assert_eq!(
        paid.body().approved_at.as_deref(),
        Some("2023-11-15T07:13:20+09:00")
    );
    let again = |amount, order_id: &str| {
        let body = ConfirmBody {
            order_id: order_id.into(),
            ..body(amount)
        };
        confirm(&body, known(Some(paid.clone())), START)
    };
    assert_eq!(
        again(1000, "order-1"),
        Err(ErrorCode::ALREADY_PROCESSED_PAYMENT)
    );
    assert_eq!(again(999, "order-1"), Err(ErrorCode::INVALID_REQUEST));
    assert_eq!(again(1000, "order-2"), Err(ErrorCode::INVALID_REQUEST));
    for by_key in [None, Some(authenticated(Method::Card))] {
        let taken = Known {
            order_taken: true,
            ..known(by_key)
        };
        assert_eq!(
            confirm(&body(1000), taken, START),
            Err(ErrorCode::DUPLICATED_ORDER_ID)
        );
    }
}

#[test]
fn a_payment_that_is_not_authenticated_has_no_session() {
    let strict = Known {
        lenient: false,
        ..known(None)
    };
    let aborted = abort(authenticated(Method::Card)).expect("in time").payment;
    let expired = super::expired(authenticated(Method::Card)).payment;
    let ready = requested(Method::Card);
    let all = [
        strict,
        known(Some(ready)),
        known(Some(aborted)),
        known(Some(expired)),
    ];
    for known in all {
        assert_eq!(
            confirm(&body(1000), known, START),
            Err(ErrorCode::NOT_FOUND_PAYMENT_SESSION)
        );
    }
}

#[test]
fn cancellations_never_refund_more_than_was_charged() {
    let paid = confirm(&body(1000), known(None), START)
        .expect("a new payment")
        .payment;
    for amount in [0, -1, 1001, i64::MAX, i64::MIN] {
        assert_eq!(
            cancel_amount(paid.clone(), Some(amount)),
            Err(ErrorCode::NOT_CANCELABLE_AMOUNT)
        );
    }
    let part = cancel_amount(paid, Some(400)).expect("within the balance");
    assert_eq!(part.moved, Some(-400));
    let part = part.payment;
    assert_eq!(
        (part.balance, &part.status),
        (600, &Status::PartialCanceled)
    );
    assert_eq!(
        cancel_amount(part.clone(), Some(601)),
        Err(ErrorCode::NOT_CANCELABLE_AMOUNT)
    );
    let gone = cancel_amount(part, None).expect("the rest").payment;
    assert_eq!((gone.balance, &gone.status), (0, &Status::Canceled));
    assert_eq!(gone.cancels.len(), 2);
    assert_eq!(
        cancel_amount(gone, None),
        Err(ErrorCode::ALREADY_CANCELED_PAYMENT)
    );
}

#[test]
fn a_virtual_account_without_a_deposit_can_only_be_cancelled_in_full() {
    let waiting = waiting();
    assert_eq!(
        cancel_amount(waiting.clone(), Some(1)),
        Err(ErrorCode::NOT_CANCELABLE_AMOUNT)
    );
    let closed = cancel_amount(waiting, None).expect("it waits for a deposit");
    assert_eq!(closed.moved, None);
    assert_eq!(
        (closed.payment.balance, closed.payment.status),
        (0, Status::Canceled)
    );
}

#[test]
fn a_reversed_deposit_leaves_the_account_waiting_until_its_due_date() {
    let paid = deposit(waiting(), START).expect("it waits for a deposit");
    assert_eq!(paid.moved, Some(1000));
    let back = withdraw(paid.payment).expect("it has a deposit");
    assert_eq!(back.moved, Some(-1000));
    assert_eq!(back.payment.status, Status::WaitingForDeposit);
    assert_eq!(
        back.payment.window_ends_at,
        Some(START + SignedDuration::from_secs(60))
    );
    assert!(deposit(back.payment, START).is_ok(), "it may be repeated");
}

#[test]
fn a_deposit_is_refunded_only_to_a_valid_account() {
    let paid = deposit(waiting(), START)
        .expect("it waits for a deposit")
        .payment;
    let to = |bank: &str, number: &str, holder: &str| {
        let body = CancelBody {
            cancel_reason: "test".into(),
            cancel_amount: None,
            refund_receive_account: Some(RefundAccount {
                bank: bank.into(),
                account_number: number.into(),
                holder_name: holder.into(),
            }),
        };
        cancel(&body, Some(paid.clone()), START)
    };
    for (bank, number, holder) in [
        ("2", "1", "Kim"),
        ("xx", "1", "Kim"),
        ("20", "", "Kim"),
        ("20", "1-2", "Kim"),
        ("20", "1", ""),
    ] {
        assert_eq!(to(bank, number, holder), Err(ErrorCode::INVALID_REQUEST));
    }
    assert_eq!(
        cancel_amount(paid.clone(), None),
        Err(ErrorCode::INVALID_REQUEST)
    );
    assert!(to("20", "12345", "Kim").is_ok());
}

//! The gateway's decisions about a payment. Pure; the time is passed in.
//!
//! Overdue payments expire (`expired`) before a rule runs, so that no rule reads a time window.

use jiff::{SignedDuration, Timestamp};

use super::payment::{Change, Method, Payment};
use super::windows;
use toss::korea;
use toss::protocol::{
    CANCEL_DONE, CANCEL_REASON_CHARS_MAX, CancelBody, CancelEntry, ConfirmBody, RefundAccount,
    is_order_id, is_path_key,
};
use toss::{ChargeStatus as Status, ErrorCode};

/// Documented limits of the account that receives the refund of a deposit.
const BANK_DIGITS: usize = 2;
const ACCOUNT_DIGITS_MAX: usize = 20;
const HOLDER_CHARS_MAX: usize = 60;

/// The stored state that a confirm needs.
pub(super) struct Known {
    pub by_key: Option<Payment>,
    /// Whether a confirmed payment with another key has the order.
    pub order_taken: bool,
    /// Whether an unknown key counts as a card payment that was just authenticated.
    pub lenient: bool,
}

/// A payment that a buyer requests; a virtual account gets its number and secret later.
pub(super) fn request(
    key: String,
    order_id: String,
    amount: i64,
    method: Method,
    now: Timestamp,
) -> Payment {
    Payment {
        key,
        order_id,
        method,
        status: Status::Ready,
        total: amount,
        balance: amount,
        requested_at: now,
        approved_at: None,
        is_confirmed: false,
        window_ends_at: Some(windows::authenticate_by(now)),
        due_secs: windows::DEPOSIT_SECS,
        due_at: None,
        secret: None,
        account_number: None,
        failure_code: None,
        next_transaction: 0,
        last_transaction_key: None,
        cancels: Vec::new(),
    }
}

/// The buyer authenticates: as the owner of the card, or by choosing a bank.
///
/// # Errors
/// The status, if it is not `READY`.
pub(super) fn authenticate(mut payment: Payment, now: Timestamp) -> Result<Change, Status> {
    if payment.status != Status::Ready {
        return Err(payment.status);
    }
    payment.status = Status::InProgress;
    payment.window_ends_at = Some(windows::confirm_by(now));
    Ok(unmoved(payment))
}

/// Decides a confirm.
///
/// # Errors
/// The error code of the answer, if the confirm fails.
pub(super) fn confirm(
    body: &ConfirmBody,
    known: Known,
    now: Timestamp,
) -> Result<Change, ErrorCode> {
    check(body)?;
    let payment = match known.by_key {
        Some(payment) => payment,
        None if known.order_taken => return Err(ErrorCode::DUPLICATED_ORDER_ID),
        None if known.lenient => just_authenticated(body, now),
        None => return Err(ErrorCode::NOT_FOUND_PAYMENT_SESSION),
    };
    // The live gateway compares both with the authenticated payment; the code of its answer is not documented.
    if payment.order_id != body.order_id || payment.total != body.amount {
        return Err(ErrorCode::INVALID_REQUEST);
    }
    match payment.status {
        Status::InProgress if known.order_taken => Err(ErrorCode::DUPLICATED_ORDER_ID),
        Status::InProgress => Ok(confirmed(payment, now)),
        Status::Ready => Err(ErrorCode::NOT_FOUND_PAYMENT_SESSION),
        Status::Aborted | Status::Expired if !payment.is_confirmed => {
            Err(ErrorCode::NOT_FOUND_PAYMENT_SESSION)
        }
        Status::WaitingForDeposit
        | Status::Done
        | Status::Canceled
        | Status::PartialCanceled
        | Status::Aborted
        | Status::Expired
        | Status::Other(_) => Err(ErrorCode::ALREADY_PROCESSED_PAYMENT),
    }
}

fn check(body: &ConfirmBody) -> Result<(), ErrorCode> {
    if !is_path_key(&body.payment_key) {
        return Err(ErrorCode::INVALID_PAYMENT_KEY);
    }
    if !is_order_id(&body.order_id) {
        return Err(ErrorCode::INVALID_ORDER_ID);
    }
    if body.amount <= 0 {
        return Err(ErrorCode::BELOW_ZERO_AMOUNT);
    }
    Ok(())
}

fn just_authenticated(body: &ConfirmBody, now: Timestamp) -> Payment {
    let (key, order_id) = (body.payment_key.clone(), body.order_id.clone());
    Payment {
        status: Status::InProgress,
        ..request(key, order_id, body.amount, Method::Card, now)
    }
}

fn confirmed(mut payment: Payment, now: Timestamp) -> Change {
    payment.is_confirmed = true;
    match payment.method {
        Method::Card => charge(payment, now),
        Method::VirtualAccount => {
            let due_at = now + SignedDuration::from_secs(payment.due_secs);
            payment.status = Status::WaitingForDeposit;
            payment.due_at = Some(due_at);
            payment.window_ends_at = Some(due_at);
            payment.take_transaction_key();
            unmoved(payment)
        }
    }
}

/// A change that moves no money.
pub(super) fn unmoved(payment: Payment) -> Change {
    Change {
        payment,
        moved: None,
    }
}

/// Charges a payment.
fn charge(mut payment: Payment, now: Timestamp) -> Change {
    payment.status = Status::Done;
    payment.approved_at = Some(now);
    payment.window_ends_at = None;
    payment.take_transaction_key();
    let moved = Some(payment.total);
    Change { payment, moved }
}

/// The buyer deposits to the virtual account.
///
/// # Errors
/// The status, if it does not wait for a deposit.
pub(super) fn deposit(payment: Payment, now: Timestamp) -> Result<Change, Status> {
    if payment.status == Status::WaitingForDeposit {
        Ok(charge(payment, now))
    } else {
        Err(payment.status)
    }
}

/// The bank reverses a deposit, as after a transfer by mistake.
///
/// # Errors
/// The status, if it is no virtual account with a full deposit.
pub(super) fn withdraw(mut payment: Payment) -> Result<Change, Status> {
    if payment.method != Method::VirtualAccount || payment.status != Status::Done {
        return Err(payment.status);
    }
    payment.status = Status::WaitingForDeposit;
    payment.approved_at = None;
    payment.window_ends_at = payment.due_at;
    payment.take_transaction_key();
    let moved = Some(-payment.total);
    Ok(Change { payment, moved })
}

/// The buyer or the bank aborts a payment before the confirm.
///
/// # Errors
/// The status, if it is too late.
pub(super) fn abort(mut payment: Payment) -> Result<Change, Status> {
    if !matches!(payment.status, Status::Ready | Status::InProgress) {
        return Err(payment.status);
    }
    payment.status = Status::Aborted;
    payment.window_ends_at = None;
    payment.failure_code = Some("PAY_PROCESS_ABORTED".to_owned());
    Ok(unmoved(payment))
}

/// The time window of a payment has ended.
pub(super) fn expired(mut payment: Payment) -> Change {
    payment.status = Status::Expired;
    payment.window_ends_at = None;
    unmoved(payment)
}

/// Decides a cancel; the cancellation is the last entry of the payment.
///
/// # Errors
/// The error code of the answer, if the cancel fails.
pub(super) fn cancel(
    body: &CancelBody,
    known: Option<Payment>,
    now: Timestamp,
) -> Result<Change, ErrorCode> {
    let payment = known.ok_or(ErrorCode::NOT_FOUND_PAYMENT)?;
    if !(1..=CANCEL_REASON_CHARS_MAX).contains(&body.cancel_reason.chars().count()) {
        return Err(ErrorCode::INVALID_REQUEST);
    }
    let account = body.refund_receive_account.as_ref();
    if account.is_some_and(|account| !is_account(account)) {
        return Err(ErrorCode::INVALID_REQUEST);
    }
    match payment.status {
        Status::Done | Status::PartialCanceled => {
            if payment.method == Method::VirtualAccount && account.is_none() {
                return Err(ErrorCode::INVALID_REQUEST);
            }
            refund(body, payment, now)
        }
        Status::WaitingForDeposit => close(body, payment, now),
        Status::Canceled => Err(ErrorCode::ALREADY_CANCELED_PAYMENT),
        Status::Ready
        | Status::InProgress
        | Status::Aborted
        | Status::Expired
        | Status::Other(_) => Err(ErrorCode::NOT_CANCELABLE_PAYMENT),
    }
}

fn is_account(account: &RefundAccount) -> bool {
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    account.bank.len() == BANK_DIGITS
        && is_digits(&account.bank)
        && (1..=ACCOUNT_DIGITS_MAX).contains(&account.account_number.len())
        && is_digits(&account.account_number)
        && (1..=HOLDER_CHARS_MAX).contains(&account.holder_name.chars().count())
}

fn refund(body: &CancelBody, payment: Payment, now: Timestamp) -> Result<Change, ErrorCode> {
    let amount = body.cancel_amount.unwrap_or(payment.balance);
    let payment = cancelled(body, payment, amount, now)?;
    let moved = Some(-amount);
    Ok(Change { payment, moved })
}

/// Closes a virtual account without a deposit: no money moves.
fn close(body: &CancelBody, payment: Payment, now: Timestamp) -> Result<Change, ErrorCode> {
    let amount = body.cancel_amount.unwrap_or(payment.balance);
    if amount != payment.balance {
        return Err(ErrorCode::NOT_CANCELABLE_AMOUNT);
    }
    let mut payment = cancelled(body, payment, amount, now)?;
    payment.window_ends_at = None;
    Ok(unmoved(payment))
}

fn cancelled(
    body: &CancelBody,
    mut payment: Payment,
    amount: i64,
    now: Timestamp,
) -> Result<Payment, ErrorCode> {
    if !(1..=payment.balance).contains(&amount) {
        return Err(ErrorCode::NOT_CANCELABLE_AMOUNT);
    }
    payment.balance -= amount;
    payment.status = if payment.balance == 0 {
        Status::Canceled
    } else {
        Status::PartialCanceled
    };
    let transaction_key = payment.take_transaction_key();
    payment.cancels.push(CancelEntry {
        cancel_amount: Some(amount),
        cancel_status: Some(CANCEL_DONE.to_owned()),
        cancel_reason: Some(body.cancel_reason.clone()),
        canceled_at: Some(korea::body_time(now)),
        transaction_key: Some(transaction_key),
    });
    Ok(payment)
}

#[cfg(test)]
mod tests;

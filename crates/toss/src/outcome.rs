//! What an answer of the gateway proves. Pure: an answer goes in, an outcome comes out.
//!
//! The rule: approved or declined only if the answer proves it. Everything else is unknown, and a lookup settles it: no
//! answer, a broken or unexpected body, a code such as `ALREADY_PROCESSED_PAYMENT` or `PROVIDER_ERROR`, an answer about
//! another payment. An HTTP status alone never decides.

use super::codes::{ErrorCode, Meaning};
use super::protocol::{CancelEntry, ChargeStatus, ErrorBody, PaymentBody};
use super::{Cancel, Charge, Confirm, GatewayOutcome, Listing, Lookup};

/// Amounts are in won, also in an answer that names no currency.
pub(super) const CURRENCY: &str = "KRW";
/// The codes of a lookup that finds no payment.
const NOT_FOUND: [&str; 2] = [
    ErrorCode::NOT_FOUND_PAYMENT.name(),
    ErrorCode::NOT_FOUND.name(),
];
/// The longest error code that is accepted; the documented ones have less than 50 characters.
const CODE_CHARS_MAX: usize = 64;
/// A longer message is truncated: it is shown and stored.
const MESSAGE_CHARS_MAX: usize = 300;

/// A complete HTTP answer.
#[derive(Clone, Debug)]
pub(super) struct RawAnswer {
    pub status: u16,
    pub is_json: bool,
    pub body: Vec<u8>,
}

/// Why an answer proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Inconclusive {
    #[error("no answer in time")]
    Timeout,
    #[error("no connection to the gateway")]
    NoConnection,
    #[error("the connection broke before the answer was complete")]
    Broken,
    #[error("the answer is too large")]
    TooLarge,
    #[error("the request could not be written")]
    Unserialisable,
    #[error("the key cannot stand in an address")]
    UnsendableKey,
    #[error("the answer with status {0} is not JSON")]
    NotJson(u16),
    #[error("the answer with status {0} cannot be read")]
    Unreadable(u16),
    #[error("the answer is about another {0} than was asked")]
    Mismatch(&'static str),
    #[error("the payment is {0}")]
    Unfinished(String),
    #[error("the cancellation is {0}")]
    CancelPending(String),
    #[error("the payment is WAITING_FOR_DEPOSIT: no money has come in so far, and some may later")]
    AwaitsDeposit,
    #[error("a whole page of transactions holds nothing to go on from")]
    NoCursor,
    #[error("the gateway answered {status} {code}")]
    Unsettled { status: u16, code: String },
}

impl From<Inconclusive> for GatewayOutcome {
    fn from(inconclusive: Inconclusive) -> Self {
        let reason = inconclusive.to_string();
        let code = match inconclusive {
            Inconclusive::Unsettled { code, .. } => Some(code),
            _ => None,
        };
        Self::Unknown { code, reason }
    }
}

impl From<Inconclusive> for Lookup {
    fn from(reason: Inconclusive) -> Self {
        Self::Unknown {
            reason: reason.to_string(),
        }
    }
}

impl From<Inconclusive> for Listing {
    fn from(reason: Inconclusive) -> Self {
        Self::Unknown {
            reason: reason.to_string(),
        }
    }
}

impl Inconclusive {
    /// Whether the connection failed, rather than the deadline or the answer.
    pub fn is_connection_failure(&self) -> bool {
        matches!(self, Self::NoConnection | Self::Broken)
    }
}

impl From<PaymentBody> for Charge {
    fn from(payment: PaymentBody) -> Self {
        let balance_amount = payment.balance();
        Self {
            payment_key: payment.payment_key,
            order_id: payment.order_id,
            status: payment.status,
            total_amount: payment.total_amount,
            balance_amount,
            secret: payment.secret,
            virtual_account: payment.virtual_account,
        }
    }
}

/// Judges the answer to `confirm`.
pub(super) fn of_confirm(confirm: &Confirm, answer: &RawAnswer) -> GatewayOutcome {
    judge(answer, |payment| {
        if payment.payment_key != confirm.payment_key {
            return Err(Inconclusive::Mismatch("payment key"));
        }
        if payment.order_id != confirm.order_id {
            return Err(Inconclusive::Mismatch("order id"));
        }
        if payment.total_amount != confirm.amount {
            return Err(Inconclusive::Mismatch("amount"));
        }
        confirmed(payment)
    })
}

fn confirmed(payment: PaymentBody) -> Result<GatewayOutcome, Inconclusive> {
    match payment.status {
        ChargeStatus::Done => Ok(GatewayOutcome::Approved(payment.into())),
        ChargeStatus::Aborted | ChargeStatus::Expired | ChargeStatus::Canceled => {
            let message = payment.failure.map(|failure| truncated(&failure.message));
            let message = message.filter(|message| !message.is_empty());
            Ok(GatewayOutcome::Declined {
                code: payment.status.as_str().to_owned(),
                message: message.unwrap_or_else(|| "the payment has ended".to_owned()),
            })
        }
        // The virtual account exists; a lookup or a webhook tells whether the buyer deposits.
        ChargeStatus::WaitingForDeposit => Err(Inconclusive::AwaitsDeposit),
        ChargeStatus::Ready
        | ChargeStatus::InProgress
        | ChargeStatus::PartialCanceled
        | ChargeStatus::Other(_) => {
            Err(Inconclusive::Unfinished(truncated(payment.status.as_str())))
        }
    }
}

/// Judges the answer to `cancel`.
pub(super) fn of_cancel(cancel: &Cancel, answer: &RawAnswer) -> GatewayOutcome {
    judge(answer, |payment| {
        if payment.payment_key != cancel.payment_key {
            return Err(Inconclusive::Mismatch("payment key"));
        }
        cancelled(cancel.amount, payment)
    })
}

/// The last entry is this cancellation, also for a repeated key: the gateway then repeats its first answer.
fn cancelled(amount: Option<i64>, payment: PaymentBody) -> Result<GatewayOutcome, Inconclusive> {
    match payment.status {
        ChargeStatus::Canceled | ChargeStatus::PartialCanceled => {}
        ChargeStatus::Ready
        | ChargeStatus::InProgress
        | ChargeStatus::WaitingForDeposit
        | ChargeStatus::Done
        | ChargeStatus::Aborted
        | ChargeStatus::Expired
        | ChargeStatus::Other(_) => {
            return Err(Inconclusive::Unfinished(truncated(payment.status.as_str())));
        }
    }
    let last = payment.cancels.as_ref().and_then(|cancels| cancels.last());
    if let Some(open) = last.filter(|entry| !entry.is_done()) {
        return Err(cancel_pending(open));
    }
    let is_as_asked = match amount {
        Some(amount) => last.is_some_and(|entry| entry.cancel_amount == Some(amount)),
        None => payment.status == ChargeStatus::Canceled && payment.balance() == 0,
    };
    if is_as_asked {
        Ok(GatewayOutcome::Approved(payment.into()))
    } else {
        Err(Inconclusive::Mismatch("amount"))
    }
}

fn cancel_pending(entry: &CancelEntry) -> Inconclusive {
    Inconclusive::CancelPending(truncated(
        entry.cancel_status.as_deref().unwrap_or_default(),
    ))
}

/// The payment, unless it is `CANCELED` by a cancellation that is still in progress.
fn settled_payment_in(answer: &RawAnswer) -> Result<PaymentBody, Inconclusive> {
    let payment = payment_in(answer)?;
    let last = payment.cancels.as_ref().and_then(|cancels| cancels.last());
    match last {
        Some(last) if payment.status == ChargeStatus::Canceled && !last.is_done() => {
            Err(cancel_pending(last))
        }
        Some(_) | None => Ok(payment),
    }
}

/// Judges the answer to a lookup; `is_requested` tells whether a payment is the requested one.
pub(super) fn of_lookup(answer: &RawAnswer, is_requested: impl Fn(&Charge) -> bool) -> Lookup {
    if answer.status == 200 {
        let charge = match settled_payment_in(answer) {
            Ok(payment) => Charge::from(payment),
            Err(reason) => return reason.into(),
        };
        return if is_requested(&charge) {
            Lookup::Found(charge)
        } else {
            Inconclusive::Mismatch("payment").into()
        };
    }
    match error_in(answer) {
        // Only the two documented codes count: a bare 404 may come from a wrong address or a proxy.
        Ok(error) if answer.status == 404 && NOT_FOUND.contains(&error.code.as_str()) => {
            Lookup::NotFound
        }
        Ok(_) | Err(_) => reason_in(answer).into(),
    }
}

/// Why an answer that is no success proves nothing.
pub(super) fn reason_in(answer: &RawAnswer) -> Inconclusive {
    match error_in(answer) {
        Ok(error) => Inconclusive::Unsettled {
            status: answer.status,
            code: error.code,
        },
        Err(reason) => reason,
    }
}

fn judge(
    answer: &RawAnswer,
    judge_payment: impl FnOnce(PaymentBody) -> Result<GatewayOutcome, Inconclusive>,
) -> GatewayOutcome {
    let judged = match answer.status {
        200 => payment_in(answer).and_then(judge_payment),
        _ => error_in(answer).and_then(|error| refused(answer.status, error)),
    };
    judged.unwrap_or_else(GatewayOutcome::from)
}

/// Only a known code declines, and only if its status does not contradict it: a 500 with the code of a refusal is an
/// error of the server. An unknown code is inconclusive whatever its status, because `PROVIDER_ERROR` is a 400 too, and
/// money may have moved. That costs one lookup; the opposite mistake tells a buyer who paid that the payment failed.
fn refused(status: u16, error: ErrorBody) -> Result<GatewayOutcome, Inconclusive> {
    let meaning = ErrorCode::parse(&error.code).map(ErrorCode::meaning);
    match meaning {
        Some(Meaning::Refused) if (400..500).contains(&status) => Ok(GatewayOutcome::Declined {
            code: error.code,
            message: truncated(&error.message),
        }),
        Some(Meaning::Refused | Meaning::Unsettled) | None => Err(Inconclusive::Unsettled {
            status,
            code: error.code,
        }),
    }
}

fn payment_in(answer: &RawAnswer) -> Result<PaymentBody, Inconclusive> {
    if !answer.is_json {
        return Err(Inconclusive::NotJson(answer.status));
    }
    let payment: PaymentBody = serde_json::from_slice(&answer.body)
        .map_err(|_| Inconclusive::Unreadable(answer.status))?;
    // The same number in another currency is another amount.
    match payment.currency.as_deref() {
        None | Some(CURRENCY) => Ok(payment),
        Some(_) => Err(Inconclusive::Mismatch("currency")),
    }
}

fn error_in(answer: &RawAnswer) -> Result<ErrorBody, Inconclusive> {
    if !answer.is_json {
        return Err(Inconclusive::NotJson(answer.status));
    }
    let error: ErrorBody = serde_json::from_slice(&answer.body)
        .map_err(|_| Inconclusive::Unreadable(answer.status))?;
    let is_code = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if (1..=CODE_CHARS_MAX).contains(&error.code.len()) && error.code.bytes().all(is_code) {
        Ok(error)
    } else {
        Err(Inconclusive::Unreadable(answer.status))
    }
}

fn truncated(text: &str) -> String {
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;

//! What an answer of the gateway says of the money. Pure: an answer goes in, an outcome comes out.
//!
//! The rule: approved or declined only when the answer proves it. Whatever else happens (silence, a broken or
//! strange body, a code that says "it was done before" or "something failed here", an answer about another payment)
//! is unknown, and is settled by a lookup. An HTTP status alone never decides.

use super::codes::{ErrorCode, Meaning};
use super::protocol::{CancelEntry, ChargeStatus, ErrorBody, PaymentBody};
use super::{Cancel, Charge, Confirm, Listing, Lookup, Outcome};

/// Amounts are in won; an answer that names no currency means it too.
pub(super) const CURRENCY: &str = "KRW";
/// What a lookup is answered with where there is no such payment.
const NOT_FOUND: [&str; 2] = [
    ErrorCode::NotFoundPayment.name(),
    ErrorCode::NotFound.name(),
];
/// The longest error code that is believed; the documented ones are below 50.
const CODE_CHARS_MAX: usize = 64;
/// A longer message is cut: it is shown and stored.
const MESSAGE_CHARS_MAX: usize = 300;

/// A complete HTTP answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub status: u16,
    pub is_json: bool,
    pub body: Vec<u8>,
}

/// A refusal that is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    code: String,
    message: String,
}

/// Why nothing is proven.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Doubt {
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
    CancelOpen(String),
    #[error("the payment is WAITING_FOR_DEPOSIT: no money has come in so far, and some may later")]
    AwaitsDeposit,
    #[error("a whole page of transactions holds nothing to go on from")]
    NoWayOn,
    #[error("the gateway answered {status} {code}")]
    Unsettled { status: u16, code: String },
}

impl From<Doubt> for Outcome {
    fn from(doubt: Doubt) -> Self {
        let reason = doubt.to_string();
        let code = match doubt {
            Doubt::Unsettled { code, .. } => Some(code),
            _ => None,
        };
        Self::Unknown { code, reason }
    }
}

impl From<Doubt> for Lookup {
    fn from(doubt: Doubt) -> Self {
        Self::Unknown {
            reason: doubt.to_string(),
        }
    }
}

impl From<Doubt> for Listing {
    fn from(doubt: Doubt) -> Self {
        Self::Unknown {
            reason: doubt.to_string(),
        }
    }
}

impl Doubt {
    /// Whether the connection failed, rather than the patience or the answer.
    pub fn is_of_the_connection(&self) -> bool {
        matches!(self, Self::NoConnection | Self::Broken)
    }
}

impl From<Refusal> for Outcome {
    fn from(Refusal { code, message }: Refusal) -> Self {
        Self::Declined { code, message }
    }
}

impl Refusal {
    /// For a request that was never sent.
    pub fn unsent(code: ErrorCode) -> Self {
        Self {
            code: code.name().to_owned(),
            message: "not sent: the gateway would refuse it".to_owned(),
        }
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

/// What became of `confirm`.
pub(super) fn of_confirm(confirm: &Confirm, answer: &Answer) -> Outcome {
    decide(answer, |payment| {
        if payment.payment_key != confirm.payment_key {
            return Err(Doubt::Mismatch("payment key"));
        }
        if payment.order_id != confirm.order_id {
            return Err(Doubt::Mismatch("order id"));
        }
        if payment.total_amount != confirm.amount {
            return Err(Doubt::Mismatch("amount"));
        }
        confirmed(payment)
    })
}

fn confirmed(payment: PaymentBody) -> Result<Outcome, Doubt> {
    match payment.status {
        ChargeStatus::Done => Ok(Outcome::Approved(payment.into())),
        ChargeStatus::Aborted | ChargeStatus::Expired | ChargeStatus::Canceled => {
            let message = payment.failure.map(|failure| cut(&failure.message));
            let message = message.filter(|message| !message.is_empty());
            Ok(Outcome::Declined {
                code: payment.status.as_str().to_owned(),
                message: message.unwrap_or_else(|| "the payment has ended".to_owned()),
            })
        }
        // A virtual account was made; whether its buyer will pay is learned by lookup or webhook.
        ChargeStatus::WaitingForDeposit => Err(Doubt::AwaitsDeposit),
        ChargeStatus::Ready
        | ChargeStatus::InProgress
        | ChargeStatus::PartialCanceled
        | ChargeStatus::Other(_) => Err(Doubt::Unfinished(cut(payment.status.as_str()))),
    }
}

/// What became of `cancel`.
pub(super) fn of_cancel(cancel: &Cancel, answer: &Answer) -> Outcome {
    decide(answer, |payment| {
        if payment.payment_key != cancel.payment_key {
            return Err(Doubt::Mismatch("payment key"));
        }
        cancelled(cancel.amount, payment)
    })
}

/// The last entry is this cancellation, for a repeated key too: the gateway then repeats the answer of that time.
fn cancelled(amount: Option<i64>, payment: PaymentBody) -> Result<Outcome, Doubt> {
    match payment.status {
        ChargeStatus::Canceled | ChargeStatus::PartialCanceled => {}
        ChargeStatus::Ready
        | ChargeStatus::InProgress
        | ChargeStatus::WaitingForDeposit
        | ChargeStatus::Done
        | ChargeStatus::Aborted
        | ChargeStatus::Expired
        | ChargeStatus::Other(_) => return Err(Doubt::Unfinished(cut(payment.status.as_str()))),
    }
    let last = payment.cancels.as_ref().and_then(|cancels| cancels.last());
    if let Some(open) = last.filter(|entry| !entry.is_done()) {
        return Err(cancel_open(open));
    }
    let is_as_asked = match amount {
        Some(amount) => last.is_some_and(|entry| entry.cancel_amount == Some(amount)),
        None => payment.status == ChargeStatus::Canceled && payment.balance() == 0,
    };
    if is_as_asked {
        Ok(Outcome::Approved(payment.into()))
    } else {
        Err(Doubt::Mismatch("amount"))
    }
}

fn cancel_open(entry: &CancelEntry) -> Doubt {
    Doubt::CancelOpen(cut(entry.cancel_status.as_deref().unwrap_or_default()))
}

/// The money has not gone back before the cancellation that says so is made.
fn standing_in(answer: &Answer) -> Result<PaymentBody, Doubt> {
    let payment = payment_in(answer)?;
    let last = payment.cancels.as_ref().and_then(|cancels| cancels.last());
    match last {
        Some(last) if payment.status == ChargeStatus::Canceled && !last.is_done() => {
            Err(cancel_open(last))
        }
        Some(_) | None => Ok(payment),
    }
}

/// What a lookup learned; `is_asked` tells whether a payment is the one that was looked for.
pub(super) fn of_lookup(answer: &Answer, is_asked: impl Fn(&Charge) -> bool) -> Lookup {
    if answer.status == 200 {
        let charge = match standing_in(answer) {
            Ok(payment) => Charge::from(payment),
            Err(doubt) => return doubt.into(),
        };
        return if is_asked(&charge) {
            Lookup::Found(charge)
        } else {
            Doubt::Mismatch("payment").into()
        };
    }
    match error_in(answer) {
        // Only the gateway's own words, of which it documents two: a bare 404 may come from a wrong address or a proxy.
        Ok(error) if answer.status == 404 && NOT_FOUND.contains(&error.code.as_str()) => {
            Lookup::NotFound
        }
        Ok(_) | Err(_) => doubt_in(answer).into(),
    }
}

/// What an answer that is not a success leaves open.
pub(super) fn doubt_in(answer: &Answer) -> Doubt {
    match error_in(answer) {
        Ok(error) => Doubt::Unsettled {
            status: answer.status,
            code: error.code,
        },
        Err(doubt) => doubt,
    }
}

fn decide(answer: &Answer, judge: impl FnOnce(PaymentBody) -> Result<Outcome, Doubt>) -> Outcome {
    let judged = match answer.status {
        200 => payment_in(answer).and_then(judge),
        _ => error_in(answer).and_then(|error| refused(answer.status, error)),
    };
    judged.unwrap_or_else(Outcome::from)
}

/// Only a code that this system knows declines, and only where its status does not contradict it: a server error that
/// speaks of a refusal is an error of the server. A code that nobody here has heard of is unknown whatever its status:
/// `PROVIDER_ERROR` too is a 400, and the money may have moved. The price is one lookup; the price of the other
/// mistake is a buyer who paid and was told that he did not. So every documented refusal stands in the table.
fn refused(status: u16, error: ErrorBody) -> Result<Outcome, Doubt> {
    let meaning = ErrorCode::parse(&error.code).map(ErrorCode::meaning);
    match meaning {
        Some(Meaning::Refused) if (400..500).contains(&status) => Ok(Outcome::Declined {
            code: error.code,
            message: cut(&error.message),
        }),
        Some(Meaning::Refused | Meaning::Unsettled) | None => Err(Doubt::Unsettled {
            status,
            code: error.code,
        }),
    }
}

fn payment_in(answer: &Answer) -> Result<PaymentBody, Doubt> {
    if !answer.is_json {
        return Err(Doubt::NotJson(answer.status));
    }
    let payment: PaymentBody =
        serde_json::from_slice(&answer.body).map_err(|_| Doubt::Unreadable(answer.status))?;
    // A thousand of another currency is another amount.
    match payment.currency.as_deref() {
        None | Some(CURRENCY) => Ok(payment),
        Some(_) => Err(Doubt::Mismatch("currency")),
    }
}

fn error_in(answer: &Answer) -> Result<ErrorBody, Doubt> {
    if !answer.is_json {
        return Err(Doubt::NotJson(answer.status));
    }
    let error: ErrorBody =
        serde_json::from_slice(&answer.body).map_err(|_| Doubt::Unreadable(answer.status))?;
    let is_code = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    if (1..=CODE_CHARS_MAX).contains(&error.code.len()) && error.code.bytes().all(is_code) {
        Ok(error)
    } else {
        Err(Doubt::Unreadable(answer.status))
    }
}

fn cut(text: &str) -> String {
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;

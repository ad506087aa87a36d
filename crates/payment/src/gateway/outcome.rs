//! What an answer of the gateway says of the money. Pure: an answer goes in, an outcome comes out.
//!
//! The rule: approved or declined only when the answer proves it. Whatever else happens (silence, a broken or
//! strange body, a code that says "it was done before" or "something failed here", an answer about another payment)
//! is unknown, and is settled by a lookup. An HTTP status alone never decides.

use super::codes::{ErrorCode, Meaning};
use super::protocol::{ChargeStatus, ErrorBody, PaymentBody};
use super::{Cancel, Confirm};

/// The longest error code that is believed; the documented ones are below 50.
const CODE_CHARS_MAX: usize = 64;
/// A longer message is cut: it is shown and stored.
const MESSAGE_CHARS_MAX: usize = 300;

/// What became of a confirm or a cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done, exactly as asked.
    Approved(Charge),
    /// It was not done, and this request never will be.
    Declined { code: String, message: String },
    /// It may have been done: look it up before anything else.
    Unknown { reason: String },
}

/// What a lookup found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    Found(Charge),
    /// The gateway says that there is no such payment.
    NotFound,
    /// Nothing was learned: look again later.
    Unknown {
        reason: String,
    },
}

/// A payment as the gateway sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    pub payment_key: String,
    pub order_id: String,
    pub status: ChargeStatus,
    /// Minor units.
    pub total_amount: i64,
    /// Minor units that were charged and not given back.
    pub balance_amount: i64,
    /// What an unsigned webhook about this payment must carry.
    pub secret: Option<String>,
}

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
    #[error("the gateway answered {status} {code}")]
    Unsettled { status: u16, code: String },
}

impl From<Doubt> for Outcome {
    fn from(doubt: Doubt) -> Self {
        Self::Unknown {
            reason: doubt.to_string(),
        }
    }
}

impl From<Doubt> for Lookup {
    fn from(doubt: Doubt) -> Self {
        Self::Unknown {
            reason: doubt.to_string(),
        }
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
        Self {
            payment_key: payment.payment_key,
            order_id: payment.order_id,
            status: payment.status,
            total_amount: payment.total_amount,
            balance_amount: payment.balance_amount,
            secret: payment.secret,
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
            Ok(Outcome::Declined {
                code: payment.status.as_str().to_owned(),
                message: message.unwrap_or_else(|| "the payment has ended".to_owned()),
            })
        }
        ChargeStatus::Ready
        | ChargeStatus::InProgress
        | ChargeStatus::WaitingForDeposit
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
    let is_as_asked = match amount {
        Some(amount) => last.is_some_and(|entry| entry.cancel_amount == amount),
        None => payment.status == ChargeStatus::Canceled && payment.balance_amount == 0,
    };
    if is_as_asked {
        Ok(Outcome::Approved(payment.into()))
    } else {
        Err(Doubt::Mismatch("amount"))
    }
}

/// What a lookup learned; `is_asked` tells whether a payment is the one that was looked for.
pub(super) fn of_lookup(answer: &Answer, is_asked: impl Fn(&Charge) -> bool) -> Lookup {
    if answer.status == 200 {
        let charge = match payment_in(answer) {
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
        // Only the gateway's own words: a bare 404 may come from a wrong address or a proxy.
        Ok(error) if answer.status == 404 && error.code == ErrorCode::NotFoundPayment.name() => {
            Lookup::NotFound
        }
        Ok(error) => Doubt::Unsettled {
            status: answer.status,
            code: error.code,
        }
        .into(),
        Err(doubt) => doubt.into(),
    }
}

fn decide(answer: &Answer, judge: impl FnOnce(PaymentBody) -> Result<Outcome, Doubt>) -> Outcome {
    let judged = match answer.status {
        200 => payment_in(answer).and_then(judge),
        _ => error_in(answer).and_then(|error| refused(answer.status, error)),
    };
    judged.unwrap_or_else(Outcome::from)
}

fn refused(status: u16, error: ErrorBody) -> Result<Outcome, Doubt> {
    let meaning = ErrorCode::parse(&error.code).map(ErrorCode::meaning);
    match meaning_of_error(Family::of(status), meaning) {
        Meaning::Refused => Ok(Outcome::Declined {
            code: error.code,
            message: cut(&error.message),
        }),
        Meaning::Unsettled => Err(Doubt::Unsettled {
            status,
            code: error.code,
        }),
    }
}

/// HTTP statuses by what they say when the code beside them is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    /// The request was judged and found wanting.
    Judged,
    /// The request was turned away before it was judged: not authorised, too many, in flight, too slow.
    TurnedAway,
    /// An error of the server, or a status that cannot carry an error.
    Other,
}

impl Family {
    fn of(status: u16) -> Self {
        match status {
            401 | 403 | 408 | 409 | 425 | 429 => Self::TurnedAway,
            400..=499 => Self::Judged,
            _ => Self::Other,
        }
    }
}

/// A known code decides (many card refusals come as 403), unless the status contradicts it.
fn meaning_of_error(family: Family, known: Option<Meaning>) -> Meaning {
    match (known, family) {
        (Some(Meaning::Refused) | None, Family::Judged) => Meaning::Refused,
        (Some(Meaning::Refused), Family::TurnedAway) => Meaning::Refused,
        (None, Family::TurnedAway) => Meaning::Unsettled,
        (Some(Meaning::Refused) | None, Family::Other) => Meaning::Unsettled,
        (Some(Meaning::Unsettled), Family::Judged | Family::TurnedAway | Family::Other) => {
            Meaning::Unsettled
        }
    }
}

fn payment_in(answer: &Answer) -> Result<PaymentBody, Doubt> {
    if !answer.is_json {
        return Err(Doubt::NotJson(answer.status));
    }
    serde_json::from_slice(&answer.body).map_err(|_| Doubt::Unreadable(answer.status))
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

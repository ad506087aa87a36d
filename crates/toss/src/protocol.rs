//! Paths, headers and bodies, for a client and for a double of the gateway.
//!
//! Bodies are read tolerantly: fields that the client does not judge may be missing, null or new.

use serde::{Deserialize, Deserializer, Serialize};

/// The gateway repeats its first answer to a key for 15 days.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";
/// Makes a test gateway answer the named error.
pub const TEST_CODE_HEADER: &str = "tosspayments-test-code";
/// Documented limit of an idempotency key.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 300;
/// Documented limit of a payment key.
pub const PAYMENT_KEY_CHARS_MAX: usize = 200;
/// Documented limits of an order id.
pub const ORDER_ID_CHARS_MIN: usize = 6;
/// See [`ORDER_ID_CHARS_MIN`].
pub const ORDER_ID_CHARS_MAX: usize = 64;
/// Documented limit of the reason of a cancellation.
pub const CANCEL_REASON_CHARS_MAX: usize = 200;

/// Path segments of the confirm call.
pub const CONFIRM_PATH: [&str; 3] = ["v1", "payments", "confirm"];

/// Path segments of the list of transactions: `?startDate=&endDate=&startingAfter=&limit=`, dates in Korean time.
pub const TRANSACTIONS_PATH: [&str; 2] = ["v1", "transactions"];
/// Documented limit of transactions in one answer (the default is 100).
pub const TRANSACTIONS_MAX: u32 = 5_000;

/// Path segments of the cancel call.
pub fn cancel_path(payment_key: &str) -> [&str; 4] {
    ["v1", "payments", payment_key, "cancel"]
}

/// Path segments of the lookup by payment key.
pub fn payment_path(payment_key: &str) -> [&str; 3] {
    ["v1", "payments", payment_key]
}

/// Path segments of the lookup by order id.
pub fn order_path(order_id: &str) -> [&str; 4] {
    ["v1", "payments", "orders", order_id]
}

/// Whether a key is a path segment that cannot change the path.
pub fn is_path_key(key: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=.".contains(&byte);
    (1..=PAYMENT_KEY_CHARS_MAX).contains(&key.len())
        && key.bytes().all(is_plain)
        && key.bytes().any(|byte| byte != b'.')
}

/// Whether an order id has the documented alphabet and length.
pub fn is_order_id(order_id: &str) -> bool {
    (ORDER_ID_CHARS_MIN..=ORDER_ID_CHARS_MAX).contains(&order_id.len())
        && order_id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_=".contains(&byte))
}

/// Whether an idempotency key is a header value within the documented limit.
pub fn is_idempotency_key(key: &str) -> bool {
    (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&key.len())
        && key.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The body of confirm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmBody {
    pub payment_key: String,
    pub order_id: String,
    /// Minor units.
    pub amount: i64,
}

/// The body of cancel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelBody {
    pub cancel_reason: String,
    /// Minor units; the whole balance if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel_amount: Option<i64>,
    /// The account that receives the refund of a deposit; a card payment is refunded to the card.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund_receive_account: Option<RefundAccount>,
}

/// A bank account that receives a refund.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefundAccount {
    /// The gateway's code of the bank: two digits.
    pub bank: String,
    /// At most 20 digits.
    pub account_number: String,
    /// At most 60 characters.
    pub holder_name: String,
}

/// Hides the account from logs.
impl std::fmt::Debug for RefundAccount {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("RefundAccount(***)")
    }
}

/// The answer to every failed call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// Empty if the gateway sends none.
    #[serde(default, deserialize_with = "text_or_none")]
    pub code: String,
    /// Empty if the gateway sends none.
    #[serde(default, deserialize_with = "text_or_none")]
    pub message: String,
}

/// The answer to every successful call, as far as this crate reads or writes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentBody {
    pub payment_key: String,
    pub order_id: String,
    pub status: ChargeStatus,
    /// Minor units.
    #[serde(deserialize_with = "whole")]
    pub total_amount: i64,
    /// Minor units that can still be cancelled; see [`Self::balance`].
    #[serde(default, deserialize_with = "whole_or_none")]
    pub balance_amount: Option<i64>,
    pub currency: Option<String>,
    pub method: Option<String>,
    pub requested_at: Option<String>,
    pub approved_at: Option<String>,
    pub last_transaction_key: Option<String>,
    pub cancels: Option<Vec<CancelEntry>>,
    pub failure: Option<ErrorBody>,
    /// Known only to the merchant and the gateway: a `DEPOSIT_CALLBACK` carries the same. At most 50 characters.
    pub secret: Option<String>,
    pub virtual_account: Option<VirtualAccount>,
}

impl PaymentBody {
    /// Minor units that can still be cancelled. If the gateway does not say, the status tells.
    pub fn balance(&self) -> i64 {
        let by_status = match self.status {
            ChargeStatus::Canceled => 0,
            ChargeStatus::Ready
            | ChargeStatus::InProgress
            | ChargeStatus::WaitingForDeposit
            | ChargeStatus::Done
            | ChargeStatus::PartialCanceled
            | ChargeStatus::Aborted
            | ChargeStatus::Expired
            | ChargeStatus::Other(_) => self.total_amount,
        };
        self.balance_amount.unwrap_or(by_status)
    }
}

/// An account that was created for one payment, and waits for the buyer's deposit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualAccount {
    pub account_number: Option<String>,
    pub bank_code: Option<String>,
    /// The deadline of the deposit.
    pub due_date: Option<String>,
    pub expired: Option<bool>,
}

/// One approval or cancellation in the list of transactions, which is in the order of `transaction_at`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TransactionBody {
    /// The id of this transaction, and the cursor of the page that follows it.
    pub transaction_key: String,
    pub payment_key: String,
    pub order_id: String,
    pub status: ChargeStatus,
    /// Minor units; negative for a cancellation of some merchants, so that only the status tells the two apart.
    #[serde(deserialize_with = "whole")]
    pub amount: i64,
    pub currency: Option<String>,
    pub method: Option<String>,
    /// ISO 8601 with offset.
    pub transaction_at: Option<String>,
}

/// The id of one webhook, the same for every delivery.
pub const WEBHOOK_ID_HEADER: &str = "tosspayments-webhook-transmission-id";
/// Earlier deliveries, from 0.
pub const WEBHOOK_RETRIED_HEADER: &str = "tosspayments-webhook-transmission-retried-count";
/// The time of the delivery.
pub const WEBHOOK_TIME_HEADER: &str = "tosspayments-webhook-transmission-time";
/// The webhook about every payment.
pub const PAYMENT_STATUS_CHANGED: &str = "PAYMENT_STATUS_CHANGED";

/// A webhook `PAYMENT_STATUS_CHANGED`. It is not signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusWebhook {
    pub event_type: String,
    pub created_at: String,
    pub data: PaymentBody,
}

/// A webhook `DEPOSIT_CALLBACK`: it has no event type, and carries the secret of its payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DepositWebhook {
    pub created_at: String,
    pub secret: String,
    pub status: ChargeStatus,
    pub transaction_key: String,
    pub order_id: String,
}

/// The status of a completed cancellation.
pub const CANCEL_DONE: &str = "DONE";

/// One cancellation of a payment, oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelEntry {
    /// Minor units.
    #[serde(default, deserialize_with = "whole_or_none")]
    pub cancel_amount: Option<i64>,
    /// See [`CANCEL_DONE`]; a cancellation that completes later is `IN_PROGRESS` at first.
    pub cancel_status: Option<String>,
    pub cancel_reason: Option<String>,
    pub canceled_at: Option<String>,
    pub transaction_key: Option<String>,
}

impl CancelEntry {
    /// Whether it has completed; the gateway sends one without a status only afterwards.
    pub fn is_done(&self) -> bool {
        let status = self.cancel_status.as_deref();
        status.is_none_or(|status| status == CANCEL_DONE)
    }
}

/// Amounts are JSON numbers: 1000.0 is 1000, and a fraction of a won is no amount.
#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Whole(i64),
    Real(f64),
}

/// 2^53: beyond it a float does not identify one whole number.
const REAL_MAX: f64 = 9_007_199_254_740_992.0;

impl Number {
    fn whole<E: serde::de::Error>(self) -> Result<i64, E> {
        match self {
            Self::Whole(amount) => Ok(amount),
            Self::Real(amount) if amount.fract() == 0.0 && amount.abs() < REAL_MAX => {
                format!("{amount:.0}").parse().map_err(E::custom)
            }
            Self::Real(_) => Err(E::custom("an amount is a whole number")),
        }
    }
}

fn whole<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    Number::deserialize(deserializer)?.whole()
}

fn whole_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let number = Option::<Number>::deserialize(deserializer)?;
    number.map(Number::whole).transpose()
}

fn text_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// The status of a payment at the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum ChargeStatus {
    Ready,
    InProgress,
    WaitingForDeposit,
    Done,
    Canceled,
    PartialCanceled,
    Aborted,
    Expired,
    /// An unknown status: it proves nothing.
    Other(String),
}

impl ChargeStatus {
    /// Its name on the wire.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Ready => "READY",
            Self::InProgress => "IN_PROGRESS",
            Self::WaitingForDeposit => "WAITING_FOR_DEPOSIT",
            Self::Done => "DONE",
            Self::Canceled => "CANCELED",
            Self::PartialCanceled => "PARTIAL_CANCELED",
            Self::Aborted => "ABORTED",
            Self::Expired => "EXPIRED",
            Self::Other(name) => name,
        }
    }
}

impl From<String> for ChargeStatus {
    fn from(name: String) -> Self {
        match name.as_str() {
            "READY" => Self::Ready,
            "IN_PROGRESS" => Self::InProgress,
            "WAITING_FOR_DEPOSIT" => Self::WaitingForDeposit,
            "DONE" => Self::Done,
            "CANCELED" => Self::Canceled,
            "PARTIAL_CANCELED" => Self::PartialCanceled,
            "ABORTED" => Self::Aborted,
            "EXPIRED" => Self::Expired,
            _ => Self::Other(name),
        }
    }
}

impl From<ChargeStatus> for String {
    fn from(status: ChargeStatus) -> Self {
        status.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_would_change_the_path_is_no_path_key() {
        for key in ["", ".", "..", "a/b", "a?b", "a b", "결제", &"k".repeat(201)] {
            assert!(!is_path_key(key), "{key}");
        }
        for key in ["tviva20240213121757MvuS8", "a-b_c=d.e", &"k".repeat(200)] {
            assert!(is_path_key(key), "{key}");
        }
    }

    #[test]
    fn an_unknown_status_keeps_its_name() {
        for name in ["READY", "DONE", "PARTIAL_CANCELED", "SOMETHING_NEW"] {
            assert_eq!(ChargeStatus::from(name.to_owned()).as_str(), name);
        }
        assert_eq!(
            ChargeStatus::from("SOMETHING_NEW".to_owned()),
            ChargeStatus::Other("SOMETHING_NEW".to_owned())
        );
    }
}

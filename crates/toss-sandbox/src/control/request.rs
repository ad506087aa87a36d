//! Bodies of the control API, read strictly, so that a tester learns of a misspelt field.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::faults::script::parse;
use crate::payment::Method;
use crate::routes::answer::named;
use crate::state::StoredAnswer;
use crate::windows;
use toss::protocol::{
    ORDER_ID_CHARS_MAX, ORDER_ID_CHARS_MIN, PAYMENT_KEY_CHARS_MAX, is_order_id, is_path_key,
};

/// A payment that a buyer requests in the gateway's payment window.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NewPayment {
    pub order_id: String,
    /// Minor units.
    pub amount: i64,
    #[serde(default)]
    pub method: Method,
    pub payment_key: Option<String>,
    #[serde(default = "yes")]
    pub authenticated: bool,
    #[serde(default = "due_secs")]
    pub due_secs: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WebhookAddress {
    /// Required, but may be null.
    #[serde(deserialize_with = "present")]
    pub url: Option<String>,
}

fn yes() -> bool {
    true
}

fn due_secs() -> i64 {
    windows::DEPOSIT_SECS
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::deserialize(deserializer)
}

impl NewPayment {
    /// # Errors
    /// The answer, which names the field.
    pub fn check(self) -> Result<Self, StoredAnswer> {
        if !is_order_id(&self.order_id) {
            let form = format!(
                "is not {ORDER_ID_CHARS_MIN} to {ORDER_ID_CHARS_MAX} letters, digits, -, _ and ="
            );
            return Err(bad("orderId", &form));
        }
        if self.amount <= 0 {
            return Err(bad("amount", "is not above zero"));
        }
        if self
            .payment_key
            .as_deref()
            .is_some_and(|key| !is_path_key(key))
        {
            let form =
                format!("is not 1 to {PAYMENT_KEY_CHARS_MAX} letters, digits, -, _, = and .");
            return Err(bad("paymentKey", &form));
        }
        if !(1..=windows::DEPOSIT_SECS_MAX).contains(&self.due_secs) {
            let range = format!("is not between 1 and {}", windows::DEPOSIT_SECS_MAX);
            return Err(bad("dueSecs", &range));
        }
        Ok(self)
    }
}

/// # Errors
/// The answer, which names the field.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoredAnswer> {
    parse(bytes, "body").map_err(|error| bad(&error.field, &error.problem))
}

pub(super) fn bad(field: &str, problem: &str) -> StoredAnswer {
    named(400, "INVALID_REQUEST", format!("{field}: {problem}"))
}

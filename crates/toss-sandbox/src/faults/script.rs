//! The fault script: which faults apply to which requests and webhooks, and how often. Plain data, read from JSON.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use toss::ErrorCode;

/// Rules in one script.
const RULES_MAX: usize = 1_000;
/// The longest wait of a fault: ten minutes.
const MILLIS_MAX: u64 = 600_000;
/// The most repetitions of a webhook by a fault.
const TIMES_MAX: u32 = 7;
const PER_MILLE_ALWAYS: u16 = 1_000;

/// The faults of a run. The same script with the same seed gives every payment the same faults, in any order of requests
/// of different payments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultScript {
    /// Seeds the rules with `perMille`.
    #[serde(default)]
    pub seed: u64,
    /// The first rule that applies wins.
    pub rules: Vec<FaultRule>,
}

/// Applies a fault to some requests or webhooks. All counters are per payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FaultRule {
    pub on: FaultTarget,
    /// Only requests about this order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<String>,
    /// Only requests about this payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_key: Option<String>,
    /// Skips so many requests first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<u32>,
    /// Applies at most so often; no limit if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// The probability in 1/1000; always if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_mille: Option<u16>,
    pub fault: Fault,
}

/// What a rule applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FaultTarget {
    Confirm,
    Cancel,
    Lookup,
    Transactions,
    Webhook,
}

/// A fault. Those up to `LieProviderError` apply to calls, those from `Drop` to webhooks, `Delay` to both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Fault {
    /// A request that would succeed is not executed, and answered with this error.
    Refuse {
        code: String,
        /// If missing: the documented status of the code, or 400.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
    },
    /// The request is not executed, and the connection is closed without an answer.
    DropBefore,
    /// The request is not executed, and the connection is closed after this time.
    Hang { millis: u64 },
    /// The request is executed, and the connection is closed without an answer.
    DoThenDrop,
    /// The request is executed, and the connection is closed in the middle of the answer.
    DoAnswerThenDrop,
    /// The request is executed, and the connection is closed after this time.
    DoThenHang { millis: u64 },
    /// The request is executed, and answered with a 500.
    DoThen500,
    /// The request is executed, or the webhook sent, after this time.
    Delay { millis: u64 },
    /// The request is not executed, and answered as if the same request were in flight.
    InFlight,
    /// The request is executed, and the answer has the content type of a web page.
    WrongContentType,
    /// The request is executed, and half of the body is sent as if it were complete.
    TruncatedBody,
    /// The request is executed, and answered with a 400 that looks like a refusal.
    LieProviderError,
    /// The webhook is not sent, which counts as a failed delivery.
    Drop,
    /// The webhook is sent so many more times at once.
    Duplicate { times: u32 },
    /// The webhook is sent after the next one of the same payment.
    Reorder,
    /// The webhook is sent so many more times after it was accepted.
    Repeat { times: u32 },
}

/// Why a script, or another text of the control API, is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FaultScriptError {
    /// For example `rules[1].fault`.
    pub field: String,
    pub problem: String,
}

impl FaultScript {
    /// # Errors
    /// If the text is no valid script; the error names the rule and the field.
    pub fn parse(text: &[u8]) -> Result<Self, FaultScriptError> {
        let script: Self = parse(text, "script")?;
        script.check()?;
        Ok(script)
    }

    /// # Errors
    /// If a rule is invalid.
    pub fn check(&self) -> Result<(), FaultScriptError> {
        if self.rules.len() > RULES_MAX {
            return Err(FaultScriptError {
                field: "rules".into(),
                problem: format!("there are more than {RULES_MAX}"),
            });
        }
        for (index, rule) in self.rules.iter().enumerate() {
            rule.check().map_err(|(field, problem)| FaultScriptError {
                field: format!("rules[{index}].{field}"),
                problem,
            })?;
        }
        Ok(())
    }
}

impl FaultRule {
    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.per_mille() > PER_MILLE_ALWAYS {
            return Err(("perMille", format!("is above {PER_MILLE_ALWAYS}")));
        }
        let is_named = self.order_id.is_some() || self.payment_key.is_some();
        if is_named && self.on == FaultTarget::Transactions {
            return Err((
                "on",
                "a list of transactions is not about one payment".into(),
            ));
        }
        if !self.fault.can_apply_to(self.on) {
            return Err(("fault", format!("cannot apply to {:?}", self.on)));
        }
        self.fault
            .check()
            .map_err(|problem| ("fault", problem.to_owned()))
    }

    pub(crate) fn per_mille(&self) -> u16 {
        self.per_mille.unwrap_or(PER_MILLE_ALWAYS)
    }
}

impl Fault {
    fn can_apply_to(&self, on: FaultTarget) -> bool {
        let is_of_webhooks = matches!(
            self,
            Self::Drop | Self::Duplicate { .. } | Self::Reorder | Self::Repeat { .. }
        );
        matches!(self, Self::Delay { .. }) || is_of_webhooks == (on == FaultTarget::Webhook)
    }

    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Refuse { code, .. } if code.is_empty() => Err("the code is empty"),
            Self::Refuse {
                status: Some(status),
                ..
            } if !(400..600).contains(status) => Err("the status must be from 400 to 599"),
            Self::Hang { millis } | Self::DoThenHang { millis } | Self::Delay { millis }
                if *millis > MILLIS_MAX =>
            {
                Err("millis is above 600000")
            }
            Self::Duplicate { times } | Self::Repeat { times }
                if !(1..=TIMES_MAX).contains(times) =>
            {
                Err("times is not between 1 and 7")
            }
            _ => Ok(()),
        }
    }
}

/// Reads JSON strictly. An error about the whole text names `root` as its field.
pub(crate) fn parse<T: DeserializeOwned>(text: &[u8], root: &str) -> Result<T, FaultScriptError> {
    let wrong = |path: String, problem: serde_json::Error| FaultScriptError {
        field: match path.as_str() {
            "." | "?" => root.to_owned(),
            _ => path,
        },
        problem: problem.to_string(),
    };
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value = serde_path_to_error::deserialize(&mut reader)
        .map_err(|error| wrong(error.path().to_string(), error.into_inner()))?;
    reader.end().map_err(|error| wrong(".".to_owned(), error))?;
    Ok(value)
}

/// The HTTP status of a refusal.
pub(crate) fn status_of(code: &str, status: Option<u16>) -> u16 {
    status
        .or_else(|| ErrorCode::parse(code).map(ErrorCode::http_status))
        .unwrap_or(400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_round_trips() {
        let text = r#"{"seed":7,"rules":[
            {"on":"confirm","skip":1,"times":2,"perMille":500,"fault":{"refuse":{"code":"X","status":503}}},
            {"on":"webhook","orderId":"order-1","fault":{"duplicate":{"times":2}}},
            {"on":"lookup","paymentKey":"key-1","fault":"doThen500"}]}"#;
        let script = FaultScript::parse(text.as_bytes()).expect("a script");
        let again = serde_json::to_vec(&script).expect("plain data");
        assert_eq!(FaultScript::parse(&again), Ok(script));
    }

    /// A rule, the wrong field, and a part of the problem.
    #[rustfmt::skip]
    const WRONG: [(&str, &str, &str); 13] = [
        (r#"{"on":"confirm"}"#, "rules[1]", "fault"),
        (r#"{"on":"confirm","fault":"explode"}"#, "rules[1].fault", "explode"),
        (r#"{"on":"refund","fault":"inFlight"}"#, "rules[1].on", "refund"),
        (r#"{"on":"confirm","often":1,"fault":"inFlight"}"#, "rules[1].often", "unknown field"),
        (r#"{"on":"confirm","perMille":1001,"fault":"inFlight"}"#, "rules[1].perMille", "1000"),
        (r#"{"on":"confirm","times":-1,"fault":"inFlight"}"#, "rules[1].times", "-1"),
        (r#"{"on":"webhook","fault":"inFlight"}"#, "rules[1].fault", "Webhook"),
        (r#"{"on":"confirm","fault":"reorder"}"#, "rules[1].fault", "Confirm"),
        (r#"{"on":"confirm","fault":{"hang":{"millis":600001}}}"#, "rules[1].fault", "millis"),
        (r#"{"on":"confirm","fault":{"hang":{"secs":1}}}"#, "rules[1].fault", "secs"),
        (r#"{"on":"webhook","fault":{"repeat":{"times":0}}}"#, "rules[1].fault", "times"),
        (r#"{"on":"confirm","fault":{"refuse":{"code":"X","status":200}}}"#, "rules[1].fault", "status"),
        (r#"{"on":"transactions","orderId":"order-1","fault":"inFlight"}"#, "rules[1].on", "not about one payment"),
    ];

    #[test]
    fn an_invalid_script_is_refused_with_rule_and_field() {
        for (rule, field, problem) in WRONG {
            let text = format!(r#"{{"rules":[{{"on":"lookup","fault":"inFlight"}},{rule}]}}"#);
            let error = FaultScript::parse(text.as_bytes())
                .expect_err(rule)
                .to_string();
            assert!(
                error.starts_with(field) && error.contains(problem),
                "{rule}: {error}"
            );
        }
        let error = FaultScript::parse(b"{").expect_err("no JSON").to_string();
        assert!(error.starts_with("script"), "{error}");
    }
}

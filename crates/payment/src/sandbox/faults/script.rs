//! The fault script: which requests and webhooks are struck, how often, and by what. Plain data, read from JSON.

use serde::{Deserialize, Serialize};

use crate::gateway::ErrorCode;

/// Rules in one script.
const RULES_MAX: usize = 1_000;
/// The longest wait that a fault may ask for: ten minutes.
const MILLIS_MAX: u64 = 600_000;
/// The most repetitions of one webhook that a fault may ask for.
const TIMES_MAX: u32 = 7;
const PER_MILLE_ALWAYS: u16 = 1_000;

/// What goes wrong in a run. The same script, with the same seed, tells every payment the same story, whatever order
/// the requests of different payments come in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Script {
    /// Decides for the rules that strike only now and then.
    #[serde(default)]
    pub seed: u64,
    /// The first one that strikes is taken.
    pub rules: Vec<Rule>,
}

/// Strikes some requests, or some webhooks. All counts are of one payment: "the first" is the first of each payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    pub on: On,
    /// Only this order's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order_id: Option<String>,
    /// Only this payment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_key: Option<String>,
    /// Lets so many pass first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<u32>,
    /// Strikes at most so often; without limit where missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Strikes so many of 1000; always where missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_mille: Option<u16>,
    pub fault: Fault,
}

/// What a rule strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum On {
    Confirm,
    Cancel,
    Lookup,
    Transactions,
    Webhook,
}

/// What goes wrong. Those down to `LieProviderError` are for calls, those from `Drop` for webhooks, `Delay` for both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    deny_unknown_fields
)]
pub enum Fault {
    /// Answers this error where it would have done what was asked, and does not do it.
    Refuse {
        code: String,
        /// The documented one of the code where missing, and 400 where none is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
    },
    /// Nothing is done, and the connection is closed without an answer.
    DropBefore,
    /// Nothing is done, and the connection is closed after so long.
    Hang { millis: u64 },
    /// It is done, and the connection is closed without an answer.
    DoThenDrop,
    /// It is done, and the connection is closed in the middle of the answer.
    DoAnswerThenDrop,
    /// It is done, and the connection is closed after so long.
    DoThenHang { millis: u64 },
    /// It is done, and answered as by a server that failed.
    DoThen500,
    /// It is done, or the webhook is sent, after so long.
    Delay { millis: u64 },
    /// Nothing is done: answered as if the same request were still under way.
    InFlight,
    /// It is done, and the answer calls itself a web page.
    WrongContentType,
    /// It is done, and half of the answer is given as if it were the whole.
    TruncatedBody,
    /// It is done, and answered with a 400 that sounds like a refusal.
    LieProviderError,
    /// Not sent this time, which counts as a failed delivery.
    Drop,
    /// Sent so many times more at once.
    Duplicate { times: u32 },
    /// Sent after the next one of the same payment.
    Reorder,
    /// Sent so many times more, after it was taken.
    Repeat { times: u32 },
}

/// Why a script cannot be played.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ScriptError {
    /// As in `rules[1].fault`.
    pub field: String,
    pub problem: String,
}

impl Script {
    /// # Errors
    /// Where the text is no script, or one that cannot be played; it names the rule and the field.
    pub fn parse(text: &[u8]) -> Result<Self, ScriptError> {
        let mut reader = serde_json::Deserializer::from_slice(text);
        let script: Self = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
            let path = error.path().to_string();
            ScriptError {
                field: if is_no_field(&path) {
                    "script".into()
                } else {
                    path
                },
                problem: error.inner().to_string(),
            }
        })?;
        reader.end().map_err(|error| ScriptError {
            field: "script".into(),
            problem: error.to_string(),
        })?;
        script.check()?;
        Ok(script)
    }

    /// # Errors
    /// Where a rule cannot be played.
    pub fn check(&self) -> Result<(), ScriptError> {
        if self.rules.len() > RULES_MAX {
            return Err(ScriptError {
                field: "rules".into(),
                problem: format!("there are more than {RULES_MAX}"),
            });
        }
        for (index, rule) in self.rules.iter().enumerate() {
            rule.check().map_err(|(field, problem)| ScriptError {
                field: format!("rules[{index}].{field}"),
                problem,
            })?;
        }
        Ok(())
    }
}

impl Rule {
    fn check(&self) -> Result<(), (&'static str, String)> {
        if self.per_mille() > PER_MILLE_ALWAYS {
            return Err(("perMille", format!("is above {PER_MILLE_ALWAYS}")));
        }
        let is_named = self.order_id.is_some() || self.payment_key.is_some();
        if is_named && self.on == On::Transactions {
            return Err(("on", "a list of transactions is of no one payment".into()));
        }
        if !self.fault.can_strike(self.on) {
            return Err(("fault", format!("cannot strike {:?}", self.on)));
        }
        self.fault
            .check()
            .map_err(|problem| ("fault", problem.to_owned()))
    }

    pub(in crate::sandbox) fn per_mille(&self) -> u16 {
        self.per_mille.unwrap_or(PER_MILLE_ALWAYS)
    }
}

impl Fault {
    fn can_strike(&self, on: On) -> bool {
        match self {
            Self::Delay { .. } => true,
            Self::Refuse { .. }
            | Self::DropBefore
            | Self::Hang { .. }
            | Self::DoThenDrop
            | Self::DoAnswerThenDrop
            | Self::DoThenHang { .. }
            | Self::DoThen500
            | Self::InFlight
            | Self::WrongContentType
            | Self::TruncatedBody
            | Self::LieProviderError => on != On::Webhook,
            Self::Drop | Self::Duplicate { .. } | Self::Reorder | Self::Repeat { .. } => {
                on == On::Webhook
            }
        }
    }

    fn check(&self) -> Result<(), &'static str> {
        match self {
            Self::Refuse { code, status } => {
                if code.is_empty() {
                    return Err("the code is empty");
                }
                if status.is_some_and(|status| !(400..600).contains(&status)) {
                    return Err("the status is none of an error (400 to 599)");
                }
            }
            Self::Hang { millis } | Self::DoThenHang { millis } | Self::Delay { millis } => {
                if *millis > MILLIS_MAX {
                    return Err("millis is above 600000");
                }
            }
            Self::Duplicate { times } | Self::Repeat { times } => {
                if !(1..=TIMES_MAX).contains(times) {
                    return Err("times is not between 1 and 7");
                }
            }
            Self::DropBefore
            | Self::DoThenDrop
            | Self::DoAnswerThenDrop
            | Self::DoThen500
            | Self::InFlight
            | Self::WrongContentType
            | Self::TruncatedBody
            | Self::LieProviderError
            | Self::Drop
            | Self::Reorder => {}
        }
        Ok(())
    }
}

/// Where what was read is broken as a whole, and not in one of its fields.
pub(in crate::sandbox) fn is_no_field(path: &str) -> bool {
    matches!(path, "." | "?")
}

/// The HTTP status that a refusal comes with.
pub(in crate::sandbox) fn status_of(code: &str, status: Option<u16>) -> u16 {
    status
        .or_else(|| ErrorCode::parse(code).map(ErrorCode::http_status))
        .unwrap_or(400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_reads_back_as_it_was_written() {
        let text = r#"{"seed":7,"rules":[
            {"on":"confirm","skip":1,"times":2,"perMille":500,"fault":{"refuse":{"code":"X","status":503}}},
            {"on":"webhook","orderId":"order-1","fault":{"duplicate":{"times":2}}},
            {"on":"lookup","paymentKey":"key-1","fault":"doThen500"}]}"#;
        let script = Script::parse(text.as_bytes()).expect("a script");
        let again = serde_json::to_vec(&script).expect("plain data");
        assert_eq!(Script::parse(&again), Ok(script));
    }

    /// A rule, the field that is wrong, and a word of why.
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
        (r#"{"on":"transactions","orderId":"order-1","fault":"inFlight"}"#, "rules[1].on", "no one payment"),
    ];

    #[test]
    fn a_script_that_cannot_be_played_is_refused_by_rule_and_field() {
        for (rule, field, problem) in WRONG {
            let text = format!(r#"{{"rules":[{{"on":"lookup","fault":"inFlight"}},{rule}]}}"#);
            let error = Script::parse(text.as_bytes()).expect_err(rule).to_string();
            assert!(
                error.starts_with(field) && error.contains(problem),
                "{rule}: {error}"
            );
        }
        let error = Script::parse(b"{").expect_err("no JSON").to_string();
        assert!(error.starts_with("script"), "{error}");
    }
}

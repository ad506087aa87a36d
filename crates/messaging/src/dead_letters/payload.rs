//! What the bus carries about dead letters.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{DeadLetterId, Timestamp, payload};

/// A message that `group` rejected. It is reissued to that group alone, `retryIntervalMillis` after
/// `timeStamp`, until `retryCount` reaches `maxRetryCount`; then it waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// The dead letter's own id: stable over all its retries.
    pub event_id: DeadLetterId,
    /// How many times it has been reissued so far.
    pub retry_count: u32,
    pub max_retry_count: u32,
    pub retry_interval_millis: u64,
    #[serde(deserialize_with = "crate::lenient::time")]
    pub time_stamp: Timestamp,
    pub reason: String,
    pub reissued_topic: String,
    pub reissued_key: String,
    /// The payload as it came, byte for byte where it was text.
    pub reissued_payload: String,
    /// The consumer group that rejected it; `outbox` if the brokers refuse it and no group has seen it yet; empty if it
    /// never came to one, because it could not be published when its time had come. Read as empty where it is absent, as services of another make write it: then nobody is known to
    /// whom alone it could go back, and it waits for a person at once.
    #[serde(default, deserialize_with = "crate::lenient::null_is_absent")]
    #[schema(required = true)]
    pub group: String,
    /// The id of the message that was rejected first. Read as empty where it is absent.
    #[serde(default, deserialize_with = "crate::lenient::null_is_absent")]
    #[schema(required = true)]
    pub message_id: String,
    /// The W3C trace context of that message, where it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}
payload!(DeadLetter, "common.dlt", event_id);

/// A reissued message was handled at last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterResolved {
    pub event_id: DeadLetterId,
}
payload!(DeadLetterResolved, "common.dlt.resolved", event_id);

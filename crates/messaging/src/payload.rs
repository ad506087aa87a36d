//! Payloads: what a message says, with the topic it travels on and the key that orders it.

use serde::{Serialize, de::DeserializeOwned};

/// A payload knows its topic and its key. Messages of one key are handled in the order they were committed.
pub trait Payload: Serialize + DeserializeOwned + Send + Sync + 'static {
    const TOPIC: &'static str;
    /// The field that the key is, by its name in the payload type; empty if it is not one field.
    const KEY: &'static str = "";

    /// The id of the aggregate or saga that this message belongs to.
    fn key(&self) -> String;

    /// The aggregate that it describes, if messages of several aggregates share a key.
    fn subject(&self) -> Option<String> {
        None
    }
}

/// Ties a payload to its topic and to the field that is its key.
///
/// ```
/// #[derive(serde::Serialize, serde::Deserialize)]
/// struct Deposit {
///     account_id: u64,
/// }
/// messaging::payload!(Deposit, "bank.deposit", account_id);
/// ```
#[macro_export]
macro_rules! payload {
    ($name:ty, $topic:expr, $($key:ident).+) => {
        impl $crate::Payload for $name {
            const TOPIC: &'static str = $topic;
            const KEY: &'static str = stringify!($($key).+);
            fn key(&self) -> String {
                self.$($key).+.to_string()
            }
        }
    };
}

/// What a bus must know of a deployment's payloads to exchange them with services that do not read its headers.
/// By default nothing: every service reads the headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PayloadRules {
    /// Topics of requests and replies. Each waits for the one before, so they need no order on the bus.
    pub request_reply_topics: &'static [&'static str],
    /// Topics whose payload holds the message's id in its field `eventId`.
    pub identified_topics: &'static [&'static str],
    /// The names of all fields that hold an instant.
    pub time_fields: &'static [&'static str],
}

//! What names a message for services that read no headers. Pure.

use std::borrow::Cow;

use contract::{id, topic};
use serde::Deserialize;
use serde_json::Value;

use crate::Message;

/// The field of a domain message that is its id.
const EVENT_ID: &str = "eventId";

/// How a record says which message it is. The header `ce_id` says it always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageIdentity {
    /// By that header alone: the record key is what orders.
    #[default]
    Header,
    /// By a UUID too, a digest of `ce_id`: it is the record key of what is asked of a service and answered, and the
    /// `eventId` of a domain message.
    Uuid,
}

impl MessageIdentity {
    /// The record key. What is asked and answered needs no order of its own: a saga waits for one answer at a time.
    /// Domain messages keep the key that gives one consumer an event's stock.
    pub(super) fn key(self, message: &Message) -> Cow<'_, str> {
        match self {
            Self::Uuid if topic::is_between_services(&message.topic) => {
                id::digest(&message.id).to_string().into()
            }
            Self::Uuid | Self::Header => message.key.as_str().into(),
        }
    }

    /// The record value.
    pub(super) fn value(self, message: &Message) -> Cow<'_, str> {
        let renamed = match self {
            Self::Uuid if topic::is_domain(&message.topic) => with_event_id(message),
            Self::Uuid | Self::Header => None,
        };
        renamed.map_or(Cow::Borrowed(message.payload.as_str()), Cow::Owned)
    }
}

fn with_event_id(message: &Message) -> Option<String> {
    let mut value: Value = serde_json::from_str(&message.payload).ok()?;
    *value.get_mut(EVENT_ID)? = Value::String(id::digest(&message.id).to_string());
    Some(value.to_string())
}

#[cfg(test)]
mod tests {
    use contract::Timestamp;

    use super::*;

    fn message(topic: &str, id: &str) -> Message {
        Message {
            id: id.to_owned(),
            topic: topic.to_owned(),
            key: "a-key".to_owned(),
            subject: None,
            time: Timestamp::from_millis(0),
            payload: r#"{"eventId":"payment:1:2","payload":{"eventId":7}}"#.to_owned(),
            reissue: None,
            trace: None,
        }
    }

    #[test]
    fn every_request_of_a_saga_has_a_uuid_of_its_own_and_a_repeated_message_has_the_same() {
        let key = |topic, id| MessageIdentity::Uuid.key(&message(topic, id)).into_owned();
        let asked = key("user.reserve.point.request", "saga:1:request:1");
        assert!(uuid::Uuid::parse_str(&asked).is_ok(), "{asked}");
        assert_eq!(asked, key("user.reserve.point.request", "saga:1:request:1"));
        assert_ne!(asked, key("user.reserve.point.request", "saga:1:request:2"));
        for ordered in [
            "domain.payment",
            "ticketing.process",
            "ticketing.ticket.cancel.request",
            "ticketing.saga.timeout",
            "common.dlt",
        ] {
            assert_eq!(key(ordered, "x"), "a-key", "{ordered}");
        }
        let message = message("user.reserve.point.request", "x");
        assert_eq!(MessageIdentity::Header.key(&message), "a-key");
    }

    #[test]
    fn a_domain_message_is_named_by_a_uuid_and_its_state_stays() {
        let message = message("domain.payment", "payment:1:2");
        assert_eq!(MessageIdentity::Header.value(&message), message.payload);
        let value: Value = serde_json::from_str(&MessageIdentity::Uuid.value(&message)).unwrap();
        let named = value[EVENT_ID].as_str().unwrap();
        assert!(uuid::Uuid::parse_str(named).is_ok(), "{named}");
        assert_eq!(value["payload"][EVENT_ID], 7);
    }
}

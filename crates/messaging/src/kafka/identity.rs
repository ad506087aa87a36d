//! How a record identifies its message to services that read no headers. Pure.

use std::borrow::Cow;

use serde_json::Value;

use crate::{Message, PayloadRules, id, kafka_settings::MessageIdentity};

/// The field of a domain message that holds its id.
const EVENT_ID: &str = "eventId";

impl MessageIdentity {
    /// The record key. Requests and responses need no order among themselves: a saga waits for one response at a time.
    /// Domain messages keep their key, so that one consumer handles all messages of a ticketed event.
    pub(super) fn key<'a>(self, rules: &PayloadRules, message: &'a Message) -> Cow<'a, str> {
        match self {
            Self::Uuid if rules.request_reply_topics.contains(&message.topic.as_str()) => {
                id::digest(&message.id).to_string().into()
            }
            Self::Uuid | Self::Header => message.key.as_str().into(),
        }
    }

    /// The record value.
    pub(super) fn value<'a>(self, rules: &PayloadRules, message: &'a Message) -> Cow<'a, str> {
        let with_id = match self {
            Self::Uuid if rules.identified_topics.contains(&message.topic.as_str()) => {
                with_event_id(message)
            }
            Self::Uuid | Self::Header => None,
        };
        with_id.map_or(Cow::Borrowed(message.payload.as_str()), Cow::Owned)
    }
}

fn with_event_id(message: &Message) -> Option<String> {
    let mut value: Value = serde_json::from_str(&message.payload).ok()?;
    *value.get_mut(EVENT_ID)? = Value::String(id::digest(&message.id).to_string());
    Some(value.to_string())
}

#[cfg(test)]
mod tests {
    use crate::Timestamp;

    use super::*;

    const RULES: PayloadRules = PayloadRules {
        request_reply_topics: &["user.reserve.point.request"],
        identified_topics: &["domain.payment"],
        time_fields: &[],
    };

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
    fn each_request_of_a_saga_has_its_own_uuid_and_a_repeated_message_has_the_same() {
        let key = |topic, id| {
            MessageIdentity::Uuid
                .key(&RULES, &message(topic, id))
                .into_owned()
        };
        let request = key("user.reserve.point.request", "saga:1:request:1");
        assert!(uuid::Uuid::parse_str(&request).is_ok(), "{request}");
        assert_eq!(
            request,
            key("user.reserve.point.request", "saga:1:request:1")
        );
        assert_ne!(
            request,
            key("user.reserve.point.request", "saga:1:request:2")
        );
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
        assert_eq!(MessageIdentity::Header.key(&RULES, &message), "a-key");
    }

    #[test]
    fn a_domain_message_is_identified_by_a_uuid_and_its_state_is_unchanged() {
        let message = message("domain.payment", "payment:1:2");
        assert_eq!(
            MessageIdentity::Header.value(&RULES, &message),
            message.payload
        );
        let value: Value =
            serde_json::from_str(&MessageIdentity::Uuid.value(&RULES, &message)).unwrap();
        let id = value[EVENT_ID].as_str().unwrap();
        assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}");
        assert_eq!(value["payload"][EVENT_ID], 7);
    }
}

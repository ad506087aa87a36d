//! The messages between the services as an AsyncAPI 3.1 document, for companies that run their own user or payment
//! service. Generated from the payload types, so that it cannot drift. Pure.

use contract::{
    schema::{Topic, topics},
    topic::PAYLOAD_RULES,
};
use serde_json::{Map, Value, json};

/// The rules that a schema cannot express: identity, headers, keys, order, and the duties of a participant.
const RULES: &str = include_str!("asyncapi/rules.md");

const REQUEST: &str = ".request";
const RESPONSE: &str = ".response";

/// The whole document. <https://www.asyncapi.com/docs/reference/specification/v3.1.0>
pub fn document() -> Value {
    let topics = topics();
    let mut schemas = Map::new();
    for (name, schema) in topics.iter().flat_map(|topic| &topic.schemas) {
        schemas.insert(name.clone(), json!(schema));
    }
    json!({
        "asyncapi": "3.1.0",
        "info": {
            "title": "Boxoffice messages",
            "version": env!("CARGO_PKG_VERSION"),
            "description": RULES,
        },
        "defaultContentType": "application/json",
        "channels": map(&topics, channel),
        "operations": map(&topics, |topic| operation(topic, &topics)),
        "components": {
            "messages": map(&topics, message),
            "schemas": schemas,
            "messageTraits": { "record": { "headers": headers() } },
            "correlationIds": { "saga": {
                "description": "The saga that sent the request. Its response repeats it.",
                "location": "$message.payload#/sagaId",
            } },
        },
    })
}

fn map(topics: &[Topic], value: impl Fn(&Topic) -> Value) -> Map<String, Value> {
    let entry = |topic: &Topic| (topic.name.to_owned(), value(topic));
    topics.iter().map(entry).collect()
}

fn channel(topic: &Topic) -> Value {
    let name = topic.name;
    let message = json!({ "$ref": format!("#/components/messages/{name}") });
    json!({ "address": name, "messages": { name: message } })
}

fn message(topic: &Topic) -> Value {
    let mut message = json!({
        "name": topic.name,
        "contentType": "application/json",
        "payload": { "$ref": format!("#/components/schemas/{}", topic.payload) },
        "traits": [{ "$ref": "#/components/messageTraits/record" }],
        "bindings": { "kafka": { "key": { "type": "string", "description": key(topic) } } },
    });
    if is_of_saga(topic) {
        message["correlationId"] = json!({ "$ref": "#/components/correlationIds/saga" });
    }
    message
}

fn is_of_saga(topic: &Topic) -> bool {
    let is_asked = topic.name.ends_with(REQUEST) || topic.name.ends_with(RESPONSE);
    is_asked && topic.key != "paymentId"
}

fn key(topic: &Topic) -> String {
    let field = &topic.key;
    if PAYLOAD_RULES.request_reply_topics.contains(&topic.name) {
        return format!(
            "`{field}`; with `bus.kafka.message_identity = \"uuid\"` a UUID of this message alone, a digest of `ce_id`."
        );
    }
    format!("`{field}`, as text.")
}

/// The headers that are sent; none is required of other senders.
fn headers() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    json!({
        "type": "object",
        "description": "CloudEvents, Kafka protocol binding 1.0.2, binary mode. Boxoffice sends all of them and requires none.",
        "properties": {
            "ce_specversion": text("`1.0`."),
            "ce_id": text("The message's identity, stable over redeliveries. Absent: topic, partition and offset."),
            "ce_type": text("The topic, without the deployment's prefix."),
            "ce_source": text("The deployment: `bus.kafka.source`."),
            "ce_time": text("When the message was created: RFC 3339. Absent: the record's time stamp."),
            "content-type": text("`application/json`."),
            "traceparent": text("W3C trace context, if there is a trace."),
            "ce_traceparent": text("The same, as the CloudEvents extension for distributed tracing."),
            "ce_reissue": text("JSON; only the consumer group named by `group` handles this record."),
        },
    })
}

/// A request is received and answered by the service that implements it; all other topics are published.
fn operation(topic: &Topic, topics: &[Topic]) -> Value {
    let at = |name: &str| json!({ "$ref": format!("#/channels/{name}") });
    let response = topic
        .name
        .strip_suffix(REQUEST)
        .map(|stem| format!("{stem}{RESPONSE}"))
        .filter(|name| topics.iter().any(|other| other.name == name));
    match response {
        Some(name) => json!({
            "action": "receive",
            "channel": at(topic.name),
            "reply": { "channel": at(&name) },
        }),
        None => json!({ "action": "send", "channel": at(topic.name) }),
    }
}

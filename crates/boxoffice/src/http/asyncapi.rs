//! The contract between the services, published as AsyncAPI 3.0: whoever runs a user or payment service of their own
//! reads here what is asked of it. Made from the payload types themselves, so that it cannot drift.

use contract::schema::{Topic, topics};
use serde_json::{Map, Value, json};

const REQUEST: &str = ".request";
const RESPONSE: &str = ".response";

/// The whole document. <https://www.asyncapi.com/docs/reference/specification/v3.0.0>
#[must_use]
pub fn document() -> Value {
    let topics = topics();
    let mut schemas = Map::new();
    for (name, schema) in topics.iter().flat_map(|topic| &topic.schemas) {
        schemas.insert(name.clone(), json!(schema));
    }
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Boxoffice messages",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The messages between the services of Boxoffice. Messages of one key are handled in the \
                order in which they were published, each at least once: an answer may be asked for again, and a \
                service answers the same saga's request the same way. Further fields may be added.",
        },
        "defaultContentType": "application/json",
        "channels": map(&topics, channel),
        "operations": map(&topics, |topic| operation(topic, &topics)),
        "components": {
            "messages": map(&topics, message),
            "schemas": schemas,
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
    json!({
        "name": topic.name,
        "contentType": "application/json",
        "payload": { "$ref": format!("#/components/schemas/{}", topic.payload) },
        "bindings": { "kafka": { "key": { "type": "string" } } },
    })
}

/// A request is received and answered by whoever runs the service; everything else is told to whoever listens.
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

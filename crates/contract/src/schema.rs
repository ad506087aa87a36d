//! The contract as data: every topic with the JSON schema of its payload. From this it is published as AsyncAPI, so
//! that a company can answer these topics itself.

use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

use crate::{
    Payload,
    domain::{Aggregate, DomainMessage},
    ticketing, topic,
};

/// One topic.
pub struct Topic {
    pub name: &'static str,
    /// The field that is the record's key, as it is written: `sagaId`, `payload.eventId`.
    pub key: String,
    /// The name of its payload's schema.
    pub payload: String,
    /// That schema, and every other that it refers to, by name.
    pub schemas: Vec<(String, RefOr<Schema>)>,
}

/// All topics, in the order of [`topic::ALL`].
#[must_use]
pub fn topics() -> Vec<Topic> {
    let entries = topic::ENTRIES.into_iter().flatten();
    entries.map(|entry| (entry.schema)()).collect()
}

pub(crate) fn of<P: Payload + ToSchema>() -> Topic {
    on::<P>(P::TOPIC, P::KEY)
}

pub(crate) fn saga_timeout() -> Topic {
    on::<ticketing::SagaTimeout>(ticketing::SAGA_TIMEOUT, ticketing::SAGA_TIMEOUT_KEY)
}

fn on<S: ToSchema>(topic: &'static str, key: &str) -> Topic {
    let payload = S::name().into_owned();
    let mut schemas = vec![(payload.clone(), S::schema())];
    S::schemas(&mut schemas);
    Topic {
        name: topic,
        key: camel_case(key),
        payload,
        schemas,
    }
}

/// A generic schema contains neither its argument's schema nor a unique name; both are added here.
pub(crate) fn of_domain<A: Aggregate + ToSchema>() -> Topic {
    let topic = of::<DomainMessage<A>>();
    let payload = format!("{}_{}", topic.payload, A::name());
    let mut schemas = topic.schemas;
    schemas[0].0.clone_from(&payload);
    schemas.push((A::name().into_owned(), A::schema()));
    Topic {
        key: format!("payload.{}", camel_case(A::EVENT)),
        payload,
        schemas,
        ..topic
    }
}

/// A field's name as it is written.
fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |all, word| {
        let (head, rest) = word.split_at(word.len().min(1));
        all + &head.to_uppercase() + rest
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_topic_is_published_with_its_own_schema() {
        let topics = topics();
        let names: Vec<_> = topics.iter().map(|topic| topic.name).collect();
        assert_eq!(names, crate::topic::ALL);
        let payloads: HashSet<_> = topics.iter().map(|topic| &topic.payload).collect();
        assert_eq!(
            payloads.len(),
            topics.len(),
            "two payloads share a name: {payloads:?}"
        );
    }

    #[test]
    fn each_key_is_a_field_of_its_payload() {
        for topic in topics() {
            let schemas: serde_json::Value = topic
                .schemas
                .iter()
                .map(|(name, schema)| (name.clone(), serde_json::json!(schema)))
                .collect::<serde_json::Map<_, _>>()
                .into();
            let (holder, field) = match topic.key.strip_prefix("payload.") {
                Some(field) => (topic.payload.rsplit('_').next().unwrap(), field),
                None => (topic.payload.as_str(), topic.key.as_str()),
            };
            let field = &schemas[holder]["properties"][field];
            assert!(field.is_object(), "{}: {}", topic.name, topic.key);
        }
    }
}

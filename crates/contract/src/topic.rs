//! The list of all topics, and what a bus must know of their payloads.
//!
//! **To add a topic:**
//!
//! 1. Its payload with `payload!` (topic, key) in the file of the service that answers or publishes it. Requests end with
//!    `.request` and their responses with `.response`.
//! 2. Here `of::<Payload>()` in an array, whose length grows: `REQUEST_REPLY` for requests to other services than ticketing
//!    and their responses (the test below names those services), `DOMAIN` for an `Aggregate` (`of_domain`), else `TICKETING`.
//! 3. The topics of the consumer's `GROUP`.
//! 4. docs/distributed.md counts the topics (Topics, Sizing) and a purchase's messages (Scale).
//!
//! Trap: with Kafka each process creates missing topics at its start. With ACLs an operator must allow new ones first.

use messaging::{Payload, PayloadRules};
use utoipa::ToSchema;

use crate::{
    dead_letter,
    domain::{self, Aggregate, DomainMessage},
    payment,
    schema::{self, Topic},
    ticketing, user,
};

/// A topic's name and its schema.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    name: &'static str,
    pub schema: fn() -> Topic,
}

const TICKETING: [Entry; 7] = [
    of::<ticketing::Process>(),
    of::<ticketing::Release>(),
    of::<ticketing::Expire>(),
    of::<ticketing::Cancel>(),
    of::<ticketing::CancelTicketRequest>(),
    of::<ticketing::CancelTicketResponse>(),
    Entry {
        name: ticketing::SAGA_TIMEOUT,
        schema: schema::saga_timeout,
    },
];

/// The requests to the user and payment services, and their responses.
const REQUEST_REPLY: [Entry; 15] = [
    of::<user::CheckActiveRequest>(),
    of::<user::CheckActiveResponse>(),
    of::<user::ReservePointRequest>(),
    of::<user::ReservePointResponse>(),
    of::<user::RestorePointRequest>(),
    of::<user::RestorePointResponse>(),
    of::<user::CheckFraudRequest>(),
    of::<user::CheckFraudResponse>(),
    of::<payment::CreateRequest>(),
    of::<payment::CreateResponse>(),
    of::<payment::DeleteRequest>(),
    of::<payment::DeleteResponse>(),
    of::<payment::ConfirmedRequest>(),
    of::<payment::CancelRequest>(),
    of::<payment::CancelResponse>(),
];

const DOMAIN: [Entry; 3] = [
    of_domain::<domain::Event>(),
    of_domain::<domain::Payment>(),
    of_domain::<domain::Ticket>(),
];

const DEAD_LETTERS: [Entry; 2] = [
    of::<dead_letter::DeadLetter>(),
    of::<dead_letter::DeadLetterResolved>(),
];

/// All topics with their schemas, in the order of a purchase.
pub(crate) const ENTRIES: [&[Entry]; 4] = [&TICKETING, &REQUEST_REPLY, &DOMAIN, &DEAD_LETTERS];

/// The names of all topics, in the same order.
pub const ALL: &[&str] = &names::<
    { TICKETING.len() + REQUEST_REPLY.len() + DOMAIN.len() + DEAD_LETTERS.len() },
>(&ENTRIES);

const fn of<P: Payload + ToSchema>() -> Entry {
    Entry {
        name: P::TOPIC,
        schema: schema::of::<P>,
    }
}

const fn of_domain<A: Aggregate + ToSchema>() -> Entry {
    Entry {
        name: DomainMessage::<A>::TOPIC,
        schema: schema::of_domain::<A>,
    }
}

const fn names<const N: usize>(groups: &[&[Entry]]) -> [&'static str; N] {
    let mut names = [""; N];
    let (mut next, mut group) = (0, 0);
    while group < groups.len() {
        let mut at = 0;
        while at < groups[group].len() {
            names[next] = groups[group][at].name;
            next += 1;
            at += 1;
        }
        group += 1;
    }
    assert!(next == N, "every name has a place");
    names
}

/// The rules for services of other companies, which read no headers.
pub const PAYLOAD_RULES: PayloadRules = PayloadRules {
    request_reply_topics: &names::<{ REQUEST_REPLY.len() }>(&[&REQUEST_REPLY]),
    identified_topics: &names::<{ DOMAIN.len() }>(&[&DOMAIN]),
    time_fields: &[
        "timeStamp",
        "createdAt",
        "updatedAt",
        "expiresAt",
        "saleOpensAt",
        "saleClosesAt",
    ],
};

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn each_topic_of_the_user_and_payment_services_is_a_request_reply_topic() {
        let is_between_services = |topic: &&str| {
            let is_of_theirs = topic.starts_with("user.") || topic.starts_with("payment.");
            is_of_theirs && (topic.ends_with(".request") || topic.ends_with(".response"))
        };
        let expected: Vec<_> = ALL.iter().copied().filter(is_between_services).collect();
        assert_eq!(PAYLOAD_RULES.request_reply_topics, expected);
        let expected: Vec<_> = ALL
            .iter()
            .copied()
            .filter(|topic| topic.starts_with("domain."))
            .collect();
        assert_eq!(PAYLOAD_RULES.identified_topics, expected);
    }

    #[test]
    fn each_time_field_of_the_contract_is_in_the_payload_rules() {
        fn times(schema: &Value, found: &mut Vec<String>) {
            let Value::Object(fields) = schema else {
                if let Value::Array(all) = schema {
                    all.iter().for_each(|it| times(it, found));
                }
                return;
            };
            if let Some(Value::Object(properties)) = fields.get("properties") {
                let is_time = |it: &&String| {
                    let schema = properties[*it].to_string();
                    schema.contains("date-time") || schema.contains("schemas/Timestamp")
                };
                found.extend(properties.keys().filter(is_time).cloned());
            }
            fields.values().for_each(|it| times(it, found));
        }
        let mut found = Vec::new();
        for (_, schema) in crate::schema::topics().iter().flat_map(|it| &it.schemas) {
            let mut own = Vec::new();
            times(&serde_json::to_value(schema).unwrap(), &mut own);
            found.extend(own);
        }
        // An envelope contains the times of what is in it.
        found.retain(|it| it != "payload");
        let unknown: Vec<_> = found
            .iter()
            .filter(|it| !PAYLOAD_RULES.time_fields.contains(&it.as_str()))
            .collect();
        assert_eq!(unknown, [] as [&String; 0]);
        assert!(!found.is_empty());
    }
}

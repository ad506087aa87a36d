//! Topics: the list of all of them, and what a bus must know of their payloads.

use messaging::{Payload, PayloadRules};

use crate::{dead_letter, domain, payment, ticketing, user};

/// Every topic, in the order of a purchase.
pub const ALL: &[&str] = &[
    ticketing::Process::TOPIC,
    ticketing::Release::TOPIC,
    ticketing::Expire::TOPIC,
    ticketing::Cancel::TOPIC,
    ticketing::CancelTicketRequest::TOPIC,
    ticketing::CancelTicketResponse::TOPIC,
    ticketing::SAGA_TIMEOUT,
    user::CheckActiveRequest::TOPIC,
    user::CheckActiveResponse::TOPIC,
    user::ReservePointRequest::TOPIC,
    user::ReservePointResponse::TOPIC,
    user::RestorePointRequest::TOPIC,
    user::RestorePointResponse::TOPIC,
    user::CheckFraudRequest::TOPIC,
    user::CheckFraudResponse::TOPIC,
    payment::CreateRequest::TOPIC,
    payment::CreateResponse::TOPIC,
    payment::DeleteRequest::TOPIC,
    payment::DeleteResponse::TOPIC,
    payment::ConfirmedRequest::TOPIC,
    payment::CancelRequest::TOPIC,
    payment::CancelResponse::TOPIC,
    domain::DomainMessage::<domain::Event>::TOPIC,
    domain::DomainMessage::<domain::Payment>::TOPIC,
    domain::DomainMessage::<domain::Ticket>::TOPIC,
    dead_letter::DeadLetter::TOPIC,
    dead_letter::DeadLetterResolved::TOPIC,
];

/// For services of others, which read no headers.
pub const PAYLOAD_RULES: PayloadRules = PayloadRules {
    request_reply_topics: &[
        user::CheckActiveRequest::TOPIC,
        user::CheckActiveResponse::TOPIC,
        user::ReservePointRequest::TOPIC,
        user::ReservePointResponse::TOPIC,
        user::RestorePointRequest::TOPIC,
        user::RestorePointResponse::TOPIC,
        user::CheckFraudRequest::TOPIC,
        user::CheckFraudResponse::TOPIC,
        payment::CreateRequest::TOPIC,
        payment::CreateResponse::TOPIC,
        payment::DeleteRequest::TOPIC,
        payment::DeleteResponse::TOPIC,
        payment::ConfirmedRequest::TOPIC,
        payment::CancelRequest::TOPIC,
        payment::CancelResponse::TOPIC,
    ],
    identified_topics: &[
        domain::DomainMessage::<domain::Event>::TOPIC,
        domain::DomainMessage::<domain::Payment>::TOPIC,
        domain::DomainMessage::<domain::Ticket>::TOPIC,
    ],
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
    fn every_topic_that_asks_or_answers_a_user_or_payment_service_is_one_of_request_and_reply() {
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
    fn every_time_of_the_contract_is_known_by_its_name() {
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

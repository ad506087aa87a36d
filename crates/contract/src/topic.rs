//! Topics: which payload travels where, and by which key it is ordered.

use serde::{Serialize, de::DeserializeOwned};

use crate::{dead_letter, domain, payment, ticketing, user};

/// A payload knows its topic and its key. Messages of one key are handled in the order they were committed.
pub trait Payload: Serialize + DeserializeOwned + Send + Sync + 'static {
    const TOPIC: &'static str;
    /// The field that the key is, by its name in the payload type; empty where it is not one field.
    const KEY: &'static str = "";

    /// The id of the aggregate or saga that this message belongs to.
    fn key(&self) -> String;

    /// The aggregate that it tells of, where messages of several share a key.
    fn subject(&self) -> Option<String> {
        None
    }
}

/// Ties a payload to its topic, with the field that is its key.
macro_rules! payload {
    ($name:ty, $topic:literal, $($key:ident).+) => {
        impl $crate::Payload for $name {
            const TOPIC: &'static str = $topic;
            const KEY: &'static str = stringify!($($key).+);
            fn key(&self) -> String {
                self.$($key).+.to_string()
            }
        }
    };
}
pub(crate) use payload;

/// Whether messages of this topic are asked of the user or the payment service, or answered by it. Whoever asks waits
/// for one answer at a time.
#[must_use]
pub fn is_between_services(topic: &str) -> bool {
    let is_of_theirs = topic.starts_with("user.") || topic.starts_with("payment.");
    is_of_theirs && (topic.ends_with(".request") || topic.ends_with(".response"))
}

/// Whether messages of this topic say what has become of an aggregate.
#[must_use]
pub fn is_domain(topic: &str) -> bool {
    topic.starts_with("domain.")
}

/// Every topic, in the order of a purchase.
pub const ALL: &[&str] = &[
    ticketing::Process::TOPIC,
    ticketing::Release::TOPIC,
    ticketing::Expire::TOPIC,
    ticketing::Cancel::TOPIC,
    ticketing::CancelTicketRequest::TOPIC,
    ticketing::CancelTicketResponse::TOPIC,
    ticketing::SagaTimeout::TOPIC,
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

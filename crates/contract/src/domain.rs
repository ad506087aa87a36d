//! Domain messages: what has become of an event, a payment, a ticket. Each carries the whole state and a version;
//! a consumer applies a newer version and ignores an older one.

use messaging::Message;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use utoipa::ToSchema;

use crate::{EventId, Money, Payload, PaymentId, Points, SagaId, TicketId, Timestamp, UserId};

/// Whether the aggregate is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Create,
    Update,
}

/// The state that a domain message carries.
pub trait Aggregate: Serialize + DeserializeOwned + Send + Sync + 'static {
    const TOPIC: &'static str;
    const TYPE: &'static str;
    /// The field of the state that is its event.
    const EVENT: &'static str = "event_id";

    fn aggregate_id(&self) -> String;

    /// All domain messages are ordered by event, so that one consumer owns an event's allocation.
    fn event_id(&self) -> EventId;
}

/// The envelope around a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", bound = "T: Aggregate")]
pub struct DomainMessage<T> {
    /// The message's own id: `<aggregate type>:<aggregate id>:<version>`.
    pub event_id: String,
    /// Grows with every message of its aggregate. Ours begin with 1; another service may begin with 0.
    pub version: i64,
    #[serde(deserialize_with = "crate::lenient::text")]
    pub aggregate_id: String,
    pub aggregate_type: String,
    pub event_type: Change,
    #[serde(deserialize_with = "crate::lenient::time")]
    pub time_stamp: Timestamp,
    pub payload: T,
}

impl<T: Aggregate> DomainMessage<T> {
    /// Version 1 is the creation.
    #[must_use]
    pub fn new(payload: T, version: i64, now: Timestamp) -> Self {
        let aggregate_id = payload.aggregate_id();
        Self {
            event_id: format!("{}:{aggregate_id}:{version}", T::TYPE),
            version,
            aggregate_id,
            aggregate_type: T::TYPE.to_owned(),
            event_type: if version == 1 {
                Change::Create
            } else {
                Change::Update
            },
            time_stamp: now,
            payload,
        }
    }

    /// The message that publishes this state, as [`new`](Self::new) makes it.
    #[must_use]
    pub fn publish(payload: T, version: i64, now: Timestamp) -> Message {
        let envelope = Self::new(payload, version, now);
        Message::new(envelope.event_id.clone(), &envelope, now)
    }
}

impl<T: Aggregate> Payload for DomainMessage<T> {
    const TOPIC: &'static str = T::TOPIC;
    fn key(&self) -> String {
        self.payload.event_id().to_string()
    }

    fn subject(&self) -> Option<String> {
        Some(self.aggregate_id.clone())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub id: EventId,
    pub name: String,
    pub ticket_quantity: i64,
    /// The price of every ticket; where it is absent, the buyer's client names it.
    #[serde(default)]
    pub price: Option<Money>,
    #[serde(default, deserialize_with = "crate::lenient::optional_time")]
    pub sale_opens_at: Option<Timestamp>,
    #[serde(default, deserialize_with = "crate::lenient::optional_time")]
    pub sale_closes_at: Option<Timestamp>,
    #[serde(deserialize_with = "crate::lenient::time")]
    pub created_at: Timestamp,
    #[serde(deserialize_with = "crate::lenient::time")]
    pub updated_at: Timestamp,
}

impl Aggregate for Event {
    const TOPIC: &'static str = "domain.event";
    const TYPE: &'static str = "event";
    const EVENT: &'static str = "id";
    fn aggregate_id(&self) -> String {
        self.id.to_string()
    }
    fn event_id(&self) -> EventId {
        self.id
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PaymentStatus {
    /// Open: the buyer can pay.
    Created,
    /// An attempt is at the gateway, its outcome not known yet.
    Confirming,
    /// Money was taken.
    Succeeded,
    /// The last attempt was declined; another may follow.
    Failed,
    /// Money was given back, or is on its way back because there is no ticket for it.
    Cancelled,
    /// Closed before anything was paid.
    Deleted,
}

/// Whether the money of a payment goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Refund {
    #[default]
    None,
    /// To be asked of the gateway, until it is done or refused.
    Requested,
    Done,
    /// The gateway refused it: a person is needed.
    Parked,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Payment {
    pub id: PaymentId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub ticket_id: TicketId,
    #[serde(default)]
    pub saga_id: Option<SagaId>,
    pub pg_payment_id: Option<String>,
    pub status: PaymentStatus,
    pub total_amount: Money,
    pub point_amount: Points,
    pub final_amount: Money,
    #[serde(default, deserialize_with = "crate::lenient::null_is_absent")]
    pub refund: Refund,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund_reason: Option<String>,
    #[serde(deserialize_with = "crate::lenient::time")]
    pub created_at: Timestamp,
    #[serde(deserialize_with = "crate::lenient::time")]
    pub updated_at: Timestamp,
}

impl Aggregate for Payment {
    const TOPIC: &'static str = "domain.payment";
    const TYPE: &'static str = "payment";
    fn aggregate_id(&self) -> String {
        self.id.to_string()
    }
    fn event_id(&self) -> EventId {
        self.event_id
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TicketStatus {
    /// The buyer owns it.
    Reserved,
    /// Given back.
    Cancelled,
    /// Its show is over, or it was never paid.
    Expired,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    pub id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub status: TicketStatus,
    #[serde(deserialize_with = "crate::lenient::time")]
    pub created_at: Timestamp,
    #[serde(deserialize_with = "crate::lenient::time")]
    pub updated_at: Timestamp,
}

impl Aggregate for Ticket {
    const TOPIC: &'static str = "domain.ticket";
    const TYPE: &'static str = "ticket";
    fn aggregate_id(&self) -> String {
        self.id.to_string()
    }
    fn event_id(&self) -> EventId {
        self.event_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_of_one_event_go_to_one_consumer_and_each_has_an_order_of_its_own() {
        let now = Timestamp::from_millis(0);
        let told = |id: u128, version| {
            let ticket = Ticket {
                id: TicketId(uuid::Uuid::from_u128(id)),
                event_id: EventId(7),
                user_id: UserId(1),
                status: TicketStatus::Reserved,
                created_at: now,
                updated_at: now,
            };
            DomainMessage::new(ticket, version, now)
        };
        let (one, changed, other) = (told(1, 1), told(1, 2), told(2, 1));
        assert_eq!([one.key(), changed.key(), other.key()], ["7", "7", "7"]);
        assert_eq!(one.subject(), changed.subject());
        assert_ne!(one.subject(), other.subject());
    }

    /// As the learning project that the topics come from writes it.
    const FOREIGN_PAYMENT: &str = r#"{
        "eventId": "0f8c2a53-3c63-4fbd-90c5-0e2c1a6f5a01", "version": 0,
        "aggregateId": "1a2b3c4d-0000-4000-8000-000000000001", "aggregateType": "payment", "eventType": "update",
        "timeStamp": "2026-11-30T14:30:29.123456789",
        "payload": {"id": "1a2b3c4d-0000-4000-8000-000000000001", "eventId": 7, "userId": 1,
            "ticketId": "1a2b3c4d-0000-4000-8000-000000000002", "status": "SUCCEEDED", "totalAmount": 50000,
            "pointAmount": 0, "finalAmount": 50000, "refund": null, "createdAt": "2026-11-30T14:30:29",
            "updatedAt": "2026-11-30T14:30:29.12"}}"#;

    #[test]
    fn a_payment_is_read_as_others_write_it() {
        let message: DomainMessage<Payment> = serde_json::from_str(FOREIGN_PAYMENT).unwrap();
        assert_eq!((message.version, message.payload.refund), (0, Refund::None));
        assert_eq!(message.time_stamp.to_string(), "2026-11-30T14:30:29.123Z");
        assert_eq!(message.payload.pg_payment_id, None);
        assert_eq!(message.key(), "7");
    }

    #[test]
    fn the_times_of_a_sale_are_read_as_others_write_them() {
        let read = |opens: &str, closes: &str| {
            let text = format!(
                r#"{{"eventId":"e","version":0,"aggregateId":7,"aggregateType":"event","eventType":"create",
                "timeStamp":"2026-11-30T14:30:29","payload":{{"id":7,"name":"show","ticketQuantity":3,
                "saleOpensAt":{opens},"saleClosesAt":{closes},
                "createdAt":"2026-11-30T14:30:29","updatedAt":"2026-11-30T14:30:29"}}}}"#
            );
            let event = serde_json::from_str::<DomainMessage<Event>>(&text)
                .unwrap()
                .payload;
            [event.sale_opens_at, event.sale_closes_at].map(|it| it.map(|it| it.to_string()))
        };
        let zoned = |text: &str| Some(text.to_owned());
        assert_eq!(
            read(r#""2027-01-01T10:00:00""#, r#""2027-01-02T10:00:00.5""#),
            [
                zoned("2027-01-01T10:00:00.000Z"),
                zoned("2027-01-02T10:00:00.500Z")
            ]
        );
        assert_eq!(read("null", "null"), [None, None]);
    }

    #[test]
    fn an_aggregate_is_named_by_a_number_or_a_text() {
        let event = |id: &str| {
            let text = format!(
                r#"{{"eventId":"e","version":0,"aggregateId":{id},"aggregateType":"event","eventType":"create",
                "timeStamp":"2026-11-30T14:30:29","payload":{{"id":7,"name":"show","ticketQuantity":3,
                "createdAt":"2026-11-30T14:30:29","updatedAt":"2026-11-30T14:30:29"}}}}"#
            );
            serde_json::from_str::<DomainMessage<Event>>(&text)
        };
        assert_eq!(event("7").unwrap(), event("\"7\"").unwrap());
        for wrong in ["null", "7.5", "[7]"] {
            assert!(event(wrong).is_err(), "{wrong}");
        }
    }
}

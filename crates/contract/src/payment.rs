//! Requests to the payment service, and its responses.

use messaging::payload;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{EventId, Money, PaymentId, Points, SagaId, TicketId, Timestamp, UserId};

/// Open a payment that the buyer can settle at the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateRequest {
    pub saga_id: SagaId,
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub total_amount: Money,
    pub point: Points,
    /// After this instant the payment is refused without asking the gateway.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "crate::lenient::optional_time"
    )]
    pub expires_at: Option<Timestamp>,
}
payload!(CreateRequest, "payment.create.request", saga_id);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CreateResponse {
    pub saga_id: SagaId,
    pub succeed: bool,
    pub user_id: UserId,
    pub event_id: EventId,
    #[serde(default)]
    pub payment_id: Option<PaymentId>,
}
payload!(CreateResponse, "payment.create.response", saga_id);

/// Close a payment that nobody has paid. Refused (`succeed: false`) where money was taken; not answered while money
/// may be moving, so that whoever asks asks again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeleteRequest {
    pub saga_id: SagaId,
    pub payment_id: PaymentId,
}
payload!(DeleteRequest, "payment.delete.request", saga_id);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeleteResponse {
    pub saga_id: SagaId,
    /// Read as `true` where it is absent: a service that can only close a payment says no more than that it did.
    #[serde(default = "crate::lenient::yes")]
    #[schema(required = true)]
    pub succeed: bool,
    pub payment_id: PaymentId,
}
payload!(DeleteResponse, "payment.delete.response", saga_id);

/// What the gateway said of a payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmedRequest {
    pub payment_id: PaymentId,
    pub pg_payment_id: String,
    pub confirmed: bool,
    /// Which attempt this is the outcome of, counted from 1. A late outcome of an earlier attempt changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The gateway's code, where it declined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decline_code: Option<String>,
}
payload!(ConfirmedRequest, "payment.confirmed.request", payment_id);

/// Give the money of a payment back: there is no ticket for it, or its buyer gives the ticket back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CancelRequest {
    pub payment_id: PaymentId,
    pub reason: String,
    /// The saga that asks and is answered. It can turn back: where the gateway refuses, the payment stands as it
    /// was. Without a saga nobody is answered, and a refund that is refused is parked for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saga_id: Option<SagaId>,
}
payload!(CancelRequest, "payment.cancel.request", payment_id);

/// What became of a refund that a saga asked for. There is no answer while the gateway has not given one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CancelResponse {
    pub saga_id: SagaId,
    pub payment_id: PaymentId,
    pub succeed: bool,
    /// Why not: the gateway's code, or our own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}
payload!(CancelResponse, "payment.cancel.response", saga_id);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_read_as_others_write_it() {
        let id = "1a2b3c4d-0000-4000-8000-000000000001";
        let read = |rest: &str| {
            let text = format!(
                r#"{{"sagaId":"{id}","ticketId":"{id}","eventId":7,"userId":1,"totalAmount":5,
                "point":0{rest}}}"#
            );
            let request: CreateRequest = serde_json::from_str(&text).unwrap();
            request.expires_at.map(|it| it.to_string())
        };
        let without_zone = read(r#","expiresAt":"2026-11-30T14:30:29.123456789""#);
        assert_eq!(without_zone.as_deref(), Some("2026-11-30T14:30:29.123Z"));
        assert_eq!((read(""), read(r#","expiresAt":null"#)), (None, None));
    }

    #[test]
    fn a_deletion_that_says_no_more_than_its_name_is_done() {
        let id = "1a2b3c4d-0000-4000-8000-000000000001";
        let read = |rest: &str| {
            let text = format!(r#"{{"sagaId":"{id}","paymentId":"{id}"{rest}}}"#);
            serde_json::from_str::<DeleteResponse>(&text).map(|it| it.succeed)
        };
        assert!(read("").unwrap());
        assert!(!read(r#","succeed":false"#).unwrap());
        assert!(read(r#","succeed":null"#).is_err());
    }
}

//! What giving a ticket back asks of its participants.

use contract::{
    EventId, PaymentId, Points, TicketId, Timestamp, UserId, payment::CancelRequest,
    ticketing::CancelTicketRequest, user::RestorePointRequest,
};
use messaging::{
    Message, Rejection,
    coordinator::{SagaRecord, Send},
};
use serde::{Deserialize, Serialize};

use super::{CANCEL_PAYMENT, CANCEL_TICKET, RESTORE_POINT};

/// What a cancellation is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cancellation {
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub payment_id: PaymentId,
    /// What the purchase took; the user service gives back what its own books say.
    pub point: Points,
    pub reason: String,
}

impl Cancellation {
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a payload has string keys only")
    }
}

pub(super) fn request(
    saga: &SagaRecord,
    send: &Send,
    now: Timestamp,
) -> Result<Message, Rejection> {
    let Cancellation {
        ticket_id,
        event_id,
        user_id,
        payment_id,
        point,
        reason,
    } = super::read_payload(saga)?;
    let saga_id = saga.saga_id;
    let id = send.message_id.as_str();
    match super::step_name(saga, send) {
        CANCEL_PAYMENT => {
            let request = CancelRequest {
                payment_id,
                reason,
                saga_id: Some(saga_id),
            };
            Ok(Message::new(id, &request, now))
        }
        RESTORE_POINT => {
            let request = RestorePointRequest {
                saga_id,
                user_id,
                point,
                held_by: Some(ticket_id.purchase_saga()),
                refunded: true,
            };
            Ok(Message::new(id, &request, now))
        }
        CANCEL_TICKET => {
            let request = CancelTicketRequest {
                saga_id,
                ticket_id,
                event_id,
                user_id,
            };
            Ok(Message::new(id, &request, now))
        }
        unknown => Err(super::no_such_step(saga, unknown)),
    }
}

//! What a purchase asks of its participants, forward and back.

use contract::{EventId, Money, PaymentId, Points, TicketId, Timestamp, UserId, payment, user};
use messaging::{
    Message, Rejection,
    coordinator::{SagaRecord, Send},
};
use saga::Direction;
use serde::{Deserialize, Serialize};

use crate::model::Purchase;

use super::{
    CHECK_ACTIVE, CHECK_FRAUD, CREATE_PAYMENT, DELETE_PAYMENT, RESERVE_POINT, RESTORE_POINT,
};

/// What a purchase is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Payload {
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub total_amount: Money,
    pub point: Points,
    pub expires_at: Option<Timestamp>,
    /// The payment, as the service that opened it names it; absent while no answer said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment_id: Option<PaymentId>,
}

impl From<Purchase> for Payload {
    fn from(purchase: Purchase) -> Self {
        Self {
            ticket_id: purchase.ticket_id,
            event_id: purchase.event_id,
            user_id: purchase.user_id,
            total_amount: purchase.total_amount,
            point: purchase.point,
            expires_at: Some(purchase.expires_at),
            payment_id: None,
        }
    }
}

impl Payload {
    /// # Errors
    /// A [`Rejection`] where the stored payload is not one.
    pub fn of(saga: &SagaRecord) -> Result<Self, Rejection> {
        super::read_payload(saga)
    }

    /// What names the payment of this purchase: what the answer said, or what our own payment service would say, which
    /// is known before any answer.
    #[must_use]
    pub fn payment_id(&self) -> PaymentId {
        let derived = || PaymentId::of_saga(self.ticket_id.purchase_saga());
        self.payment_id.unwrap_or_else(derived)
    }

    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a payload has string keys only")
    }
}

/// The message of a step of a purchase, or of the taking back of one.
pub(super) fn request(
    saga: &SagaRecord,
    send: &Send,
    now: Timestamp,
) -> Result<Message, Rejection> {
    let payload = Payload::of(saga)?;
    let payment_id = payload.payment_id();
    let Payload {
        ticket_id,
        event_id,
        user_id,
        total_amount,
        point,
        expires_at,
        ..
    } = payload;
    let saga_id = saga.saga_id;
    let id = send.message_id.as_str();
    match (super::step_name(saga, send), send.direction) {
        (CHECK_ACTIVE, _) => {
            let request = user::CheckActiveRequest { saga_id, user_id };
            Ok(Message::new(id, &request, now))
        }
        (RESERVE_POINT, Direction::Request) => {
            let request = user::ReservePointRequest {
                saga_id,
                user_id,
                point,
            };
            Ok(Message::new(id, &request, now))
        }
        (RESERVE_POINT, Direction::Compensation) | (RESTORE_POINT, _) => {
            let request = user::RestorePointRequest {
                saga_id,
                user_id,
                point,
                held_by: Some(ticket_id.purchase_saga()),
                refunded: false,
            };
            Ok(Message::new(id, &request, now))
        }
        (CHECK_FRAUD, _) => {
            let request = user::CheckFraudRequest {
                saga_id,
                user_id,
                total_amount: Some(total_amount),
            };
            Ok(Message::new(id, &request, now))
        }
        (CREATE_PAYMENT, Direction::Request) => {
            let request = payment::CreateRequest {
                saga_id,
                ticket_id,
                event_id,
                user_id,
                total_amount,
                point,
                expires_at,
            };
            Ok(Message::new(id, &request, now))
        }
        (CREATE_PAYMENT, Direction::Compensation) | (DELETE_PAYMENT, _) => {
            let request = payment::DeleteRequest {
                saga_id,
                payment_id,
            };
            Ok(Message::new(id, &request, now))
        }
        (unknown, _) => Err(super::no_such_step(saga, unknown)),
    }
}

//! The cancellation of a ticket by its buyer. The money is refunded first: if the gateway refuses, everything stays as it
//! was, and the buyer may try again.
//!
//! What a step of the purchase takes is given back here as in `expiry.rs`, in a new version of [`CANCEL`].

use contract::{
    EventId, Payload as _, PaymentId, Points, TicketId, UserId,
    payment::{CancelRequest, CancelResponse},
    ticketing::{CancelTicketRequest, CancelTicketResponse},
    user::{RestorePointRequest, RestorePointResponse},
};
use saga::Definition;
use serde::{Deserialize, Serialize};

use super::{
    reply::reply,
    step::{SagaStep, definitions, refusable, required},
};

pub static CANCEL: Definition = Definition {
    kind: "ticketing.cancel",
    version: 1,
    steps: &definitions(&STEPS),
};

pub(super) static STEPS: [SagaStep<CancellationPayload>; 3] = [
    SagaStep {
        definition: refusable("payment.cancel", CancelRequest::TOPIC),
        request: |cancellation, out| {
            out.message(&CancelRequest {
                payment_id: cancellation.payment_id,
                reason: cancellation.reason.clone(),
                saga_id: Some(out.saga_id),
            })
        },
        reply: reply::<CancelResponse>(),
        compensation: None,
    },
    SagaStep {
        definition: required("user.restore.point", RestorePointRequest::TOPIC),
        request: |cancellation, out| {
            out.message(&RestorePointRequest {
                saga_id: out.saga_id,
                user_id: cancellation.user_id,
                point: cancellation.point,
                held_by: Some(cancellation.ticket_id.purchase_saga()),
                refunded: true,
            })
        },
        reply: reply::<RestorePointResponse>(),
        compensation: None,
    },
    SagaStep {
        definition: required("ticket.cancel", CancelTicketRequest::TOPIC),
        request: |cancellation, out| {
            out.message(&CancelTicketRequest {
                saga_id: out.saga_id,
                ticket_id: cancellation.ticket_id,
                event_id: cancellation.event_id,
                user_id: cancellation.user_id,
            })
        },
        reply: reply::<CancelTicketResponse>(),
        compensation: None,
    },
];

/// The payload of a cancellation's saga.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancellationPayload {
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub payment_id: PaymentId,
    /// What the purchase reserved; the user service restores what its own ledger holds.
    pub point: Points,
    pub reason: String,
}

impl CancellationPayload {
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("a payload has string keys only")
    }
}

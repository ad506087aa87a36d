//! Messages that the ticketing service sends to itself, and the one that starts a purchase.

use messaging::payload;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{EventId, Money, PaymentId, Points, SagaId, TicketId, UserId};

pub use messaging::coordinator::SagaTimeout;

/// Start the purchase of a reserved ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub total_amount: Money,
    pub point: Points,
}
payload!(Process, "ticketing.process", ticket_id);

/// Give a reservation back to the stock: its purchase was compensated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
}
payload!(Release, "ticketing.release", ticket_id);

/// A reservation lapsed before it was paid: take back what its purchase took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Expire {
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
}
payload!(Expire, "ticketing.expire", ticket_id);

/// The buyer gives an issued ticket back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cancel {
    pub ticket_id: TicketId,
    /// Counts the tries to give this ticket back, from 1; each is a saga of its own.
    pub cancellation: u32,
    pub event_id: EventId,
    pub user_id: UserId,
    pub payment_id: PaymentId,
    /// Shown at the gateway.
    pub reason: String,
}
payload!(Cancel, "ticketing.cancel", ticket_id);

/// Its money has gone back: the ticket is cancelled and on sale again. Ordered by event, as everything that changes
/// an event's stock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CancelTicketRequest {
    pub saga_id: SagaId,
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
}
payload!(
    CancelTicketRequest,
    "ticketing.ticket.cancel.request",
    event_id
);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CancelTicketResponse {
    pub saga_id: SagaId,
    pub ticket_id: TicketId,
    pub succeed: bool,
}
payload!(
    CancelTicketResponse,
    "ticketing.ticket.cancel.response",
    saga_id
);

/// The topic on which the timers of this service's sagas are delivered.
pub const SAGA_TIMEOUT: &str = "ticketing.saga.timeout";
/// The field of a [`SagaTimeout`] that is its key.
pub const SAGA_TIMEOUT_KEY: &str = "saga_id";

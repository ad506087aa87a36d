//! Refund: a cancelled payment cancels its ticket. Ticket, allocation, reservation and `domain.ticket` are one Commit.
//! The state of a refund is stored for the buyer to see; a purchase without a refund has no row here.

use contract::{
    EventId, PaymentId, TicketId, Timestamp, domain,
    domain::{DomainMessage, PaymentStatus, Refund},
    ticketing::{CancelTicketRequest, CancelTicketResponse},
};
use messaging::{
    Commit, Decision, Message, Records, Rejection,
    record::{Column, Record, Table},
};
use serde::{Deserialize, Serialize};

use crate::{
    metrics::TicketOutcome,
    model::{Allocation, Ticket},
};

/// The latest state of a purchase's refund, as the payment service published it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurchaseRefund {
    pub ticket_id: TicketId,
    pub payment_id: PaymentId,
    /// The version of the payment that this state is of.
    pub payment_version: i64,
    pub payment_status: PaymentStatus,
    pub refund: Refund,
    pub reason: Option<String>,
    pub updated_at: Timestamp,
    pub version: i64,
}

impl Record for PurchaseRefund {
    const TABLE: &'static Table = &Table {
        name: "purchase_refund",
        columns: &[
            Column::text("ticket_id"),
            Column::text("payment_id"),
            Column::integer("payment_version"),
            Column::text("payment_status"),
            Column::text("refund"),
            Column::text("reason").null(),
            Column::text("updated_at"),
            Column::VERSION,
        ],
        key: "ticket_id",
        constraints: &["CHECK (refund IN ('NONE', 'REQUESTED', 'DONE', 'PARKED'))"],
        indexes: &[],
    };
}

impl PurchaseRefund {
    /// Whether a refund is requested or done; false after the gateway refused a refund that the buyer had requested.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.is_final() || self.refund != Refund::None
    }

    /// Whether no ticket is issued for this payment, whatever state it reaches later.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.payment_status == PaymentStatus::Cancelled
    }
}

/// Whether a payment in this state does not concern the stock: neither paid nor refunded.
#[must_use]
pub fn is_irrelevant(payment: &domain::Payment) -> bool {
    match payment.status {
        PaymentStatus::Succeeded | PaymentStatus::Cancelled => false,
        PaymentStatus::Created
        | PaymentStatus::Confirming
        | PaymentStatus::Failed
        | PaymentStatus::Deleted => payment.refund == Refund::None,
    }
}

/// Stores the state of a payment's refund. An older version is ignored; a state without a refund is stored only over
/// one with a refund.
///
/// # Errors
/// A [`Rejection`] if the stored row cannot be read.
pub fn record_refund(
    message: &DomainMessage<domain::Payment>,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let payment = &message.payload;
    let known: Option<PurchaseRefund> = records.get(payment.ticket_id)?;
    let has_refund = payment.status == PaymentStatus::Cancelled || payment.refund != Refund::None;
    let known_at = known.as_ref().map_or(-1, |known| known.payment_version);
    let mut commit = Commit::new();
    if message.version > known_at && (has_refund || known.is_some()) {
        commit.put(&PurchaseRefund {
            ticket_id: payment.ticket_id,
            payment_id: payment.id,
            payment_version: message.version,
            payment_status: payment.status,
            refund: payment.refund,
            reason: payment.refund_reason.clone(),
            updated_at: now,
            version: known.map_or(0, |known| known.version),
        });
    }
    Ok(commit)
}

/// Handles a cancelled payment: its ticket is cancelled, and on sale again. `released` releases its claim.
///
/// # Errors
/// A [`Rejection`] if the event's allocation is missing.
pub fn apply_cancelled_payment(
    message: &DomainMessage<domain::Payment>,
    released: Commit,
    records: &Records,
    now: Timestamp,
) -> Result<Decision<Option<TicketOutcome>>, Rejection> {
    let payment = &message.payload;
    let Some(ticket) = records.get::<Ticket>(payment.ticket_id)? else {
        return Ok(released.into());
    };
    if message.version <= ticket.payment_version {
        return Ok(Decision::default());
    }
    let ticket = Ticket {
        payment_version: message.version,
        ..ticket
    };
    cancel_ticket(&ticket, payment.event_id, released, records, now)
}

/// Handles `ticketing.ticket.cancel.request`: the payment was refunded, so its ticket is cancelled. A duplicate changes
/// nothing.
///
/// # Errors
/// A [`Rejection`] if the event's allocation is missing.
pub fn apply_cancel_request(
    message: &Message,
    request: &CancelTicketRequest,
    released: Commit,
    records: &Records,
    now: Timestamp,
) -> Result<Decision<Option<TicketOutcome>>, Rejection> {
    let ticket: Option<Ticket> = records.get(request.ticket_id)?;
    let mut decision = match &ticket {
        Some(ticket) => cancel_ticket(ticket, request.event_id, released, records, now)?,
        None => released.into(),
    };
    let response = CancelTicketResponse {
        saga_id: request.saga_id,
        ticket_id: request.ticket_id,
        succeed: ticket.is_some(),
    };
    decision.commit.publish(message.reply(&response, now));
    Ok(decision)
}

fn cancel_ticket(
    ticket: &Ticket,
    event_id: EventId,
    released: Commit,
    records: &Records,
    now: Timestamp,
) -> Result<Decision<Option<TicketOutcome>>, Rejection> {
    let mut commit = released;
    let Some(cancelled) = ticket.cancelled(now) else {
        return Ok(commit.into());
    };
    let allocation: Option<Allocation> = records.get(event_id)?;
    let returned = allocation.and_then(|allocation| allocation.return_one());
    let returned = returned.ok_or_else(|| {
        Rejection::new(format_args!(
            "event {event_id} has no sold ticket to return"
        ))
    })?;
    let message = DomainMessage::publish(cancelled.public(), cancelled.version + 1, now);
    commit.put(&returned).put(&cancelled).publish(message);
    Ok(Decision {
        commit,
        outcome: Some(TicketOutcome::Cancelled),
    })
}

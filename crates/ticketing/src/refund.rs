//! Refund: money that goes back. A payment that is cancelled takes its ticket with it: ticket, allocation,
//! reservation and `domain.ticket` are one Commit. What the payment service says of a refund is remembered, for the
//! buyer to see; an ordinary purchase has none, and no row here.

use contract::{
    EventId, PaymentId, TicketId, Timestamp, domain,
    domain::{DomainMessage, PaymentStatus, Refund},
    ticketing::{CancelTicketRequest, CancelTicketResponse},
};
use messaging::{
    Commit, Message, Records, Rejection,
    record::{Column, Key, Record, Table},
};
use serde::{Deserialize, Serialize};

use crate::model::{Allocation, Ticket};

/// What the payment service last said of a purchase whose money goes, or went, or was to go back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PurchaseRefund {
    pub ticket_id: TicketId,
    pub payment_id: PaymentId,
    /// The version of the payment that said so.
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
            Column::integer("version"),
        ],
        key: "ticket_id",
        constraints: &["CHECK (refund IN ('NONE', 'REQUESTED', 'DONE', 'PARKED'))"],
        indexes: &[],
    };
    fn key(&self) -> Key {
        self.ticket_id.into()
    }
    fn version(&self) -> i64 {
        self.version
    }
}

impl PurchaseRefund {
    /// Whether money goes or went back. It does not where a refund that the buyer asked for was refused since.
    #[must_use]
    pub fn is_told(&self) -> bool {
        self.is_final() || self.refund != Refund::None
    }

    /// Whether no ticket is issued for this payment any more, whatever it becomes later.
    #[must_use]
    pub fn is_final(&self) -> bool {
        self.payment_status == PaymentStatus::Cancelled
    }
}

/// Whether a payment in this state says nothing that the stock must know: neither paid nor given back.
#[must_use]
pub fn is_silent(payment: &domain::Payment) -> bool {
    match payment.status {
        PaymentStatus::Succeeded | PaymentStatus::Cancelled => false,
        PaymentStatus::Created
        | PaymentStatus::Confirming
        | PaymentStatus::Failed
        | PaymentStatus::Deleted => payment.refund == Refund::None,
    }
}

/// Remembers what a payment says of its refund; an older word changes nothing, and one that says nothing of a refund
/// is written only over one that did.
///
/// # Errors
/// A [`Rejection`] where the stored row cannot be read.
pub fn note(
    message: &DomainMessage<domain::Payment>,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let payment = &message.payload;
    let known: Option<PurchaseRefund> = records.get(payment.ticket_id)?;
    let says = payment.status == PaymentStatus::Cancelled || payment.refund != Refund::None;
    let heard_at = known.as_ref().map_or(-1, |known| known.payment_version);
    let mut commit = Commit::new();
    if message.version > heard_at && (says || known.is_some()) {
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

/// What a cancelled payment changes: its ticket is nobody's any more, and on sale again. `released` gives its claim
/// back.
///
/// # Errors
/// A [`Rejection`] where the event's allocation is missing.
pub fn cancel(
    message: &DomainMessage<domain::Payment>,
    released: Commit,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let payment = &message.payload;
    let mut commit = released;
    let Some(ticket) = records.get::<Ticket>(payment.ticket_id)? else {
        return Ok(commit);
    };
    if message.version <= ticket.payment_version {
        return Ok(Commit::new());
    }
    let decided = Ticket {
        payment_version: message.version,
        ..ticket
    };
    commit.merge(take_back(&decided, payment.event_id, records, now)?);
    Ok(commit)
}

/// `ticketing.ticket.cancel.request`: the money has gone back, and the ticket follows. Said again, it changes nothing.
///
/// # Errors
/// A [`Rejection`] where the event's allocation is missing.
pub fn cancel_ticket(
    message: &Message,
    request: &CancelTicketRequest,
    released: Commit,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let CancelTicketRequest {
        saga_id,
        ticket_id,
        event_id,
        ..
    } = *request;
    let mut commit = released;
    let ticket: Option<Ticket> = records.get(ticket_id)?;
    if let Some(ticket) = &ticket {
        commit.merge(take_back(ticket, event_id, records, now)?);
    }
    let response = CancelTicketResponse {
        saga_id,
        ticket_id,
        succeed: ticket.is_some(),
    };
    let id = format!("{}:response", message.id);
    commit.publish(Message::new(id, &response, now));
    Ok(commit)
}

fn take_back(
    ticket: &Ticket,
    event_id: EventId,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let mut commit = Commit::new();
    let Some(cancelled) = ticket.cancelled(now) else {
        return Ok(commit);
    };
    let allocation: Option<Allocation> = records.get(event_id)?;
    let given_back = allocation.and_then(|allocation| allocation.give_back_one());
    let given_back = given_back.ok_or_else(|| {
        Rejection::new(format_args!(
            "event {event_id} has sold no ticket that could be given back"
        ))
    })?;
    let told = DomainMessage::new(cancelled.public(), cancelled.version + 1, now);
    commit
        .put(&given_back)
        .put(&cancelled)
        .publish(Message::new(told.event_id.clone(), &told, now));
    Ok(commit)
}

//! Issue: a paid reservation becomes a ticket. Reservation, allocation, ticket and `domain.ticket` are one Commit. A
//! payment that gets no ticket is refunded.

use contract::{Timestamp, domain, domain::DomainMessage, payment::CancelRequest};
use messaging::{Commit, Decision, Message, Records, Rejection};

use crate::{
    metrics::TicketOutcome,
    model::{Allocation, Purchase, Ticket, TicketStatus},
    refund::PurchaseRefund,
    reservations::{ClaimProof, Completion},
};

/// What to do about a succeeded payment.
enum TicketAction {
    /// It was handled before, or its refund is in progress.
    Ignore,
    Refund(&'static str),
    Issue(ClaimProof),
}

/// Handles a succeeded payment. `completion` is the result of completing its claim.
///
/// # Errors
/// A [`Rejection`] if the event's allocation is missing.
pub fn issue(
    message: &DomainMessage<domain::Payment>,
    completion: Option<&Completion>,
    records: &Records,
    now: Timestamp,
) -> Result<Decision<Option<TicketOutcome>>, Rejection> {
    let proof = match action_for(message, completion, records)? {
        TicketAction::Ignore => return Ok(Decision::default()),
        TicketAction::Refund(reason) => return Ok(request_refund(message, reason, now)),
        TicketAction::Issue(proof) => proof,
    };
    let payment = &message.payload;
    let allocation: Allocation = records.get(payment.event_id)?.ok_or_else(|| {
        Rejection::new(format_args!(
            "there is no allocation for event {}",
            payment.event_id
        ))
    })?;
    let Some(sold) = allocation.sell_one() else {
        // The payment becomes CANCELLED, and that releases the claim.
        let reason = "the event was sold out when the payment succeeded";
        let mut decision = request_refund(message, reason, now);
        proof.discard(&mut decision.commit);
        return Ok(decision);
    };
    let ticket = Ticket::issued(payment, message.version, now);
    let issued = DomainMessage::publish(ticket.public(), ticket.version + 1, now);
    let mut commit = Commit::new();
    let is_retaken = proof.attach_to(&mut commit, records)?;
    commit.put(&sold).put(&ticket).publish(issued);
    Ok(Decision {
        commit,
        outcome: Some(TicketOutcome::Issued { is_retaken }),
    })
}

fn action_for(
    message: &DomainMessage<domain::Payment>,
    completion: Option<&Completion>,
    records: &Records,
) -> Result<TicketAction, Rejection> {
    let ticket_id = message.payload.ticket_id;
    let ticket: Option<Ticket> = records.get(ticket_id)?;
    let refund: Option<PurchaseRefund> = records.get(ticket_id)?;
    // Another payment service may count its versions from 0.
    let ticket_at = ticket.as_ref().map_or(-1, |ticket| ticket.payment_version);
    let refund_at = refund.as_ref().map_or(-1, |refund| refund.payment_version);
    let is_old = message.version <= ticket_at.max(refund_at);
    if is_old || message.payload.refund != domain::Refund::None {
        return Ok(TicketAction::Ignore);
    }
    match ticket.map(|ticket| ticket.status) {
        Some(TicketStatus::Reserved | TicketStatus::Expired) => return Ok(TicketAction::Ignore),
        Some(TicketStatus::Cancelled) => {
            return Ok(TicketAction::Refund(
                "the ticket was cancelled when the payment succeeded",
            ));
        }
        None => {}
    }
    if refund.is_some_and(|refund| refund.is_final()) {
        return Ok(TicketAction::Refund(
            "the payment was cancelled before it succeeded",
        ));
    }
    let purchase: Option<Purchase> = records.get(ticket_id)?;
    if purchase.is_some_and(|purchase| purchase.released_at.is_some()) {
        return Ok(TicketAction::Refund(
            "the buyer had released the reservation when the payment succeeded",
        ));
    }
    Ok(match completion {
        Some(Completion::Completed(proof)) => TicketAction::Issue(proof.clone()),
        Some(Completion::Gone) | None => {
            TicketAction::Refund("the reservation was gone when the payment succeeded")
        }
    })
}

/// Requests the refund; once for each version of the payment.
fn request_refund(
    message: &DomainMessage<domain::Payment>,
    reason: &'static str,
    now: Timestamp,
) -> Decision<Option<TicketOutcome>> {
    let payment = &message.payload;
    tracing::warn!(payment.id = %payment.id, ticket.id = %payment.ticket_id, reason, "requesting the refund of a payment that gets no ticket");
    let request = CancelRequest {
        payment_id: payment.id,
        reason: reason.to_owned(),
        saga_id: None,
    };
    let mut commit = Commit::new();
    commit.publish(Message::new(
        format!("{}:cancel:{}", payment.id, message.version),
        &request,
        now,
    ));
    Decision {
        commit,
        outcome: Some(TicketOutcome::GivenBack),
    }
}

//! Issue: a paid reservation becomes a ticket. Reservation, allocation, ticket and `domain.ticket` are one Commit;
//! money for which there is no ticket goes back.

use contract::{Timestamp, domain, domain::DomainMessage, payment::CancelRequest};
use messaging::{Commit, Message, Records, Rejection};

use crate::{
    model::{Allocation, Purchase, Reservation, Ticket, TicketStatus},
    refund::PurchaseRefund,
    reservations::{Completion, Keeping},
};

/// What a succeeded payment comes to.
enum Verdict {
    /// It was heard before, or its money is on its way back already.
    Nothing,
    GiveBack(&'static str),
    Issue(Keeping),
}

/// What a succeeded payment changes. `completion` is what the reservations said.
///
/// # Errors
/// A [`Rejection`] where the event's allocation is missing.
pub fn issue(
    message: &DomainMessage<domain::Payment>,
    completion: Option<&Completion>,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    let completed = match verdict(message, completion, records)? {
        Verdict::Nothing => return Ok(Commit::new()),
        Verdict::GiveBack(reason) => return Ok(give_back(message, reason, now)),
        Verdict::Issue(completed) => completed,
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
        let mut commit = give_back(
            message,
            "the event was sold out when the payment succeeded",
            now,
        );
        match completed {
            Keeping::Row(_) => commit.remove::<Reservation>(payment.ticket_id),
            Keeping::Fence(fence) => commit.fenced_by(fence),
        };
        return Ok(commit);
    };
    // No row is stored where the ticket was taken again after its claim had lapsed.
    let stored: Option<Reservation> = records.get(payment.ticket_id)?;
    let ticket = Ticket::issued(payment, message.version, now);
    let told = DomainMessage::new(ticket.public(), ticket.version + 1, now);
    let mut commit = Commit::new();
    completed.keep(&mut commit, stored.as_ref());
    commit
        .put(&sold)
        .put(&ticket)
        .publish(Message::new(told.event_id.clone(), &told, now));
    Ok(commit)
}

fn verdict(
    message: &DomainMessage<domain::Payment>,
    completion: Option<&Completion>,
    records: &Records,
) -> Result<Verdict, Rejection> {
    let ticket_id = message.payload.ticket_id;
    let ticket: Option<Ticket> = records.get(ticket_id)?;
    let refund: Option<PurchaseRefund> = records.get(ticket_id)?;
    // A payment service of another make may count its versions from 0.
    let decided_at = ticket.as_ref().map_or(-1, |ticket| ticket.payment_version);
    let heard_at = refund.as_ref().map_or(-1, |refund| refund.payment_version);
    let is_old = message.version <= decided_at.max(heard_at);
    if is_old || message.payload.refund != domain::Refund::None {
        return Ok(Verdict::Nothing);
    }
    match ticket.map(|ticket| ticket.status) {
        Some(TicketStatus::Reserved | TicketStatus::Expired) => return Ok(Verdict::Nothing),
        Some(TicketStatus::Cancelled) => {
            return Ok(Verdict::GiveBack(
                "the ticket was cancelled when the payment succeeded",
            ));
        }
        None => {}
    }
    if refund.is_some_and(|refund| refund.is_final()) {
        return Ok(Verdict::GiveBack(
            "the payment was cancelled before it succeeded",
        ));
    }
    let purchase: Option<Purchase> = records.get(ticket_id)?;
    if purchase.is_some_and(|purchase| purchase.released_at.is_some()) {
        return Ok(Verdict::GiveBack(
            "the buyer had given the reservation back when the payment succeeded",
        ));
    }
    Ok(match completion {
        Some(Completion::Completed(keeping)) => Verdict::Issue(keeping.clone()),
        Some(Completion::Gone) | None => {
            Verdict::GiveBack("the reservation was gone when the payment succeeded")
        }
    })
}

/// Asks for the money back; once for each version of the payment.
fn give_back(
    message: &DomainMessage<domain::Payment>,
    reason: &'static str,
    now: Timestamp,
) -> Commit {
    let payment = &message.payload;
    tracing::warn!(payment.id = %payment.id, ticket.id = %payment.ticket_id, reason, "a payment is given back");
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
    commit
}

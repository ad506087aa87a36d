//! Issue: a paid reservation becomes a ticket. Reservation, allocation, ticket and `domain.ticket` are one Commit;
//! money for which there is no ticket goes back.

use contract::{
    Timestamp, domain, domain::DomainMessage, payment::CancelRequest, ticketing::Release,
};
use messaging::{Commit, Message, Records, Rejection};

use crate::{
    model::{Allocation, Ticket},
    reservations::Completion,
};

/// What a succeeded payment changes. `completion` is what the reservations said.
///
/// # Errors
/// A [`Rejection`] where the event's allocation is missing.
pub fn issue(
    payment: &domain::Payment,
    completion: Option<&Completion>,
    records: &Records,
    now: Timestamp,
) -> Result<Commit, Rejection> {
    if records.get::<Ticket>(payment.ticket_id)?.is_some() {
        return Ok(Commit::new());
    }
    let Some(Completion::Completed { commit }) = completion else {
        return Ok(give_back(
            payment,
            "the reservation was gone when the payment succeeded",
            now,
        ));
    };
    let allocation: Allocation = records.get(payment.event_id)?.ok_or_else(|| {
        Rejection::new(format_args!(
            "there is no allocation for event {}",
            payment.event_id
        ))
    })?;
    let Some(sold) = allocation.sell_one() else {
        let mut commit = give_back(
            payment,
            "the event was sold out when the payment succeeded",
            now,
        );
        let release = Release {
            ticket_id: payment.ticket_id,
            event_id: payment.event_id,
            user_id: payment.user_id,
        };
        commit.publish(Message::new(
            format!("{}:release", payment.ticket_id),
            &release,
            now,
        ));
        return Ok(commit);
    };
    let ticket = Ticket::issued(payment, now);
    let told = DomainMessage::new(ticket.public(), ticket.version + 1, now);
    let mut commit = Commit::clone(commit);
    commit
        .put(&sold)
        .put(&ticket)
        .publish(Message::new(told.event_id.clone(), &told, now));
    Ok(commit)
}

fn give_back(payment: &domain::Payment, reason: &str, now: Timestamp) -> Commit {
    tracing::warn!(payment.id = %payment.id, ticket.id = %payment.ticket_id, reason, "a payment is given back");
    let request = CancelRequest {
        payment_id: payment.id,
        reason: reason.to_owned(),
        saga_id: None,
    };
    let mut commit = Commit::new();
    commit.publish(Message::new(
        format!("{}:cancel", payment.id),
        &request,
        now,
    ));
    commit
}

//! Promise 3, of claims: a ticket and an unpaid purchase have one. Of those that are decided in Redis: what is bought
//! there is a ticket, and every ticket is bought there.

use std::collections::BTreeSet;

use contract::{PaymentId, TicketId, domain::PaymentStatus};
use saga::SagaState;
use ticketing::{
    model::{Purchase, ReservationState},
    reservations::Claims,
};

use super::{Books, Violation, owned, violation};

pub(super) fn are_tickets(books: &Books, found: &mut Vec<Violation>) {
    for (event, Claims { waiting, completed }) in &books.claims {
        let tickets = books.tickets.values().filter(owned);
        let tickets = tickets.filter(|it| it.event_id == *event);
        let owned: BTreeSet<TicketId> = tickets.map(|it| it.ticket_id).collect();
        let mut tell = |ticket: &TicketId, detail: &str| {
            if !books.is_under_way(*ticket) {
                found.push(violation(3, format_args!("claim {ticket}"), detail));
            }
        };
        for ticket in completed.difference(&owned) {
            tell(ticket, "Redis counts it as bought, but there is no ticket");
        }
        for ticket in owned.difference(completed) {
            tell(
                ticket,
                "it is a ticket, but Redis does not count it as bought",
            );
        }
        for ticket in waiting.intersection(&owned) {
            tell(
                ticket,
                "it is a ticket, but in Redis it waits for its payment",
            );
        }
    }
}

/// Every ticket has its completed claim, and what can still be paid has a claim that waits.
pub(super) fn stand(books: &Books, found: &mut Vec<Violation>) {
    if books.claims_are_rows {
        for ticket_id in books.tickets.values().filter(owned).map(|it| it.ticket_id) {
            if !books.reservations.contains_key(&ticket_id) && !books.is_under_way(ticket_id) {
                let detail = "it is valid, but nothing claims it";
                found.push(violation(3, format_args!("ticket {ticket_id}"), detail));
            }
        }
    }
    for purchase in books.purchases.values() {
        let ticket_id = purchase.ticket_id;
        let is_gone = is_waiting(books, purchase) == Some(false);
        if is_payable(books, ticket_id) && (is_gone || purchase.released_at.is_some()) {
            let detail = "it can be paid, but nothing is claimed for it, and nobody takes it back";
            let subject = format_args!("purchase of ticket {ticket_id}");
            found.push(violation(2, subject, detail));
        }
    }
}

/// Whether a purchase waits for its buyer, or for what the gateway says.
fn is_payable(books: &Books, ticket_id: TicketId) -> bool {
    let saga_id = ticket_id.purchase_saga();
    let is_ready = books
        .sagas
        .get(&saga_id)
        .is_some_and(|saga| saga.state == SagaState::Completed);
    let is_open = books
        .payments
        .get(&PaymentId::of_saga(saga_id))
        .is_some_and(|it| matches!(it.status, PaymentStatus::Created | PaymentStatus::Failed));
    let is_taken_back = books.sagas.contains_key(&ticket_id.expire_saga());
    is_ready && is_open && !is_taken_back && !books.is_being_told(ticket_id)
}

/// Whether a claim waits for its payment; `None` where that is not known.
fn is_waiting(books: &Books, purchase: &Purchase) -> Option<bool> {
    let ticket_id = &purchase.ticket_id;
    if let Some(claims) = books.claims.get(&purchase.event_id) {
        return Some(claims.waiting.contains(ticket_id));
    }
    books.claims_are_rows.then(|| {
        let claim = books.reservations.get(ticket_id);
        claim.is_some_and(|it| it.state == ReservationState::Waiting)
    })
}

//! Promise 3 for claims: each ticket and each unpaid purchase has one. If Redis keeps them: its completed claims are exactly
//! the tickets.

use std::collections::BTreeSet;

use contract::TicketId;
use saga::SagaState;
use ticketing::{
    model::{Purchase, ReservationState},
    reservations::ClaimSnapshot,
};

use super::{Books, Findings, is_payable};

pub(super) fn match_tickets(books: &Books, found: &mut Findings) {
    for (event, ClaimSnapshot { waiting, completed }) in &books.claims {
        let tickets = books.owned_tickets().filter(|it| it.event_id == *event);
        let owned: BTreeSet<TicketId> = tickets.map(|it| it.ticket_id).collect();
        let mut report = |ticket: &TicketId, detail: &str| {
            if !books.is_under_way(*ticket) {
                found.add(3, "claim", ticket, detail);
            }
        };
        for ticket in completed.difference(&owned) {
            report(ticket, "it is completed in Redis, but has no ticket");
        }
        for ticket in owned.difference(completed) {
            report(
                ticket,
                "its ticket is RESERVED, but it is not completed in Redis",
            );
        }
        for ticket in waiting.intersection(&owned) {
            report(
                ticket,
                "its ticket is RESERVED, but in Redis it waits for payment",
            );
        }
    }
}

/// Each ticket has a completed claim, and each payable purchase a waiting one.
pub(super) fn exist(books: &Books, found: &mut Findings) {
    if books.claims_are_rows {
        for ticket_id in books.owned_tickets().map(|it| it.ticket_id) {
            if !books.reservations.contains_key(&ticket_id) && !books.is_under_way(ticket_id) {
                let detail = "it is RESERVED, but has no reservation";
                found.add(3, "ticket", ticket_id, detail);
            }
        }
    }
    for purchase in books.purchases.values() {
        let ticket_id = purchase.ticket_id;
        let is_gone = is_waiting(books, purchase) == Some(false);
        if awaits_payment(books, ticket_id) && (is_gone || purchase.released_at.is_some()) {
            let detail = "it can be paid, but has no reservation and no expiry saga";
            found.add(2, "purchase of ticket", ticket_id, detail);
        }
    }
}

/// Whether the purchase waits for its buyer's payment.
fn awaits_payment(books: &Books, ticket_id: TicketId) -> bool {
    let saga = books.sagas.get(&ticket_id.purchase_saga());
    saga.is_some_and(|saga| saga.state == SagaState::Completed)
        && books.payment_of(ticket_id).is_some_and(is_payable)
        && !books.sagas.contains_key(&ticket_id.expire_saga())
        && !books.has_pending_messages(ticket_id)
}

/// Whether the claim waits for payment; `None` if that is unknown.
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

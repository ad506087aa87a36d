//! Promise 3, of claims that are decided in Redis: what is bought there is a ticket, and every ticket is bought there.

use std::collections::BTreeSet;

use contract::TicketId;
use ticketing::reservations::Claims;

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

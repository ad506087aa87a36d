//! Promise 3, between event and allocation: what is on sale is what the organiser said.

use event::model::Event;
use ticketing::model::Allocation;

use super::{Books, Violation, violation};

/// Every event has its allocation, which has followed its last version.
pub(super) fn follow_their_events(books: &Books, found: &mut Vec<Violation>) {
    // An event service of somebody else's has books of its own.
    if books.events.is_empty() || books.allocations.is_empty() {
        return;
    }
    for (id, event) in &books.events {
        let subject = format!("event {id}");
        match books.allocations.get(id) {
            None if books.under_way.contains(&id.to_string()) => {}
            None => found.push(violation(3, subject, "there is no allocation for it")),
            Some(allocation) => {
                let is_under_way = books.under_way.contains(&id.to_string());
                for flaw in flaws(event, allocation, is_under_way) {
                    found.push(violation(3, &subject, flaw));
                }
            }
        }
    }
    for id in books.allocations.keys() {
        if !books.events.contains_key(id) {
            let detail = "there is an allocation for it, but it is not registered";
            found.push(violation(3, format_args!("event {id}"), detail));
        }
    }
}

fn flaws(event: &Event, allocation: &Allocation, is_under_way: bool) -> Vec<String> {
    let mut flaws = Vec::new();
    let wanted = allocation.lowered_to.unwrap_or(allocation.quantity);
    let (here, there) = (event.version, allocation.event_version);
    if there > here || there < here && !is_under_way {
        flaws.push(format!(
            "it has version {here}, but version {there} is on sale"
        ));
    }
    if here == there && wanted != event.ticket_quantity {
        let quantity = event.ticket_quantity;
        flaws.push(format!(
            "it has {quantity} tickets, but {wanted} are on sale"
        ));
    }
    // Lowered below what was sold, the quantity follows down to it as tickets come back.
    if let Some(lowered) = allocation.lowered_to
        && allocation.quantity != lowered.max(allocation.sold)
    {
        flaws.push(format!(
            "{lowered} tickets are wanted and {} are sold, but the quantity is {}",
            allocation.sold, allocation.quantity
        ));
    }
    let terms = (event.price, event.sale_opens_at, event.sale_closes_at);
    let on_sale = (
        allocation.price,
        allocation.sale_opens_at,
        allocation.sale_closes_at,
    );
    if here == there && terms != on_sale {
        flaws.push("its price or its times of sale are not those of its sale".to_owned());
    }
    flaws
}

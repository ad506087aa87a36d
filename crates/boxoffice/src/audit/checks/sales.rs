//! Promise 3 between the event and ticketing services: each allocation agrees with its event.

use event::model::Event;
use ticketing::model::Allocation;

use super::{Books, Findings};

/// Each event has an allocation of its last version.
pub(super) fn match_events(books: &Books, found: &mut Findings) {
    // Another company's event service keeps its own records.
    if books.events.is_empty() || books.allocations.is_empty() {
        return;
    }
    for (id, event) in &books.events {
        let is_under_way = books.is_named(id);
        match books.allocations.get(id) {
            None if is_under_way => {}
            None => found.add(3, "event", id, "it has no allocation"),
            Some(allocation) => {
                for flaw in flaws(event, allocation, is_under_way) {
                    found.add(3, "event", id, flaw);
                }
            }
        }
    }
    for id in books.allocations.keys() {
        if !books.events.contains_key(id) {
            let detail = "it has an allocation, but does not exist";
            found.add(3, "event", id, detail);
        }
    }
}

fn flaws(event: &Event, allocation: &Allocation, is_under_way: bool) -> Vec<String> {
    let mut flaws = Vec::new();
    let wanted = allocation.lowered_to.unwrap_or(allocation.quantity);
    let (here, there) = (event.version, allocation.event_version);
    if there > here || there < here && !is_under_way {
        flaws.push(format!(
            "its version is {here}, but its allocation has version {there}"
        ));
    }
    if here == there && wanted != event.ticket_quantity {
        let quantity = event.ticket_quantity;
        flaws.push(format!(
            "its quantity is {quantity}, but {wanted} tickets are on sale"
        ));
    }
    // If lowered below the number sold, the quantity falls as tickets are cancelled.
    if let Some(lowered) = allocation.lowered_to
        && allocation.quantity != lowered.max(allocation.sold)
    {
        flaws.push(format!(
            "its quantity was lowered to {lowered} and {} are sold, but the allocation's quantity is {}",
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
        flaws.push("its price or sale times differ from its allocation".to_owned());
    }
    flaws
}

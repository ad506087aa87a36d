//! The promises as pure functions from the books to violations. docs/audit.md lists them.

use std::collections::{BTreeMap, HashMap};

use contract::{
    EventId, PaymentId, TicketId, Timestamp,
    domain::{PaymentStatus, TicketStatus},
};
use payment::record::Refund;
use saga::SagaState;
use ticketing::model::{ReservationRecord, ReservationState, Ticket};
use user::points::HoldState;

use super::{Books, Violation};

mod attempts;
mod claims;
mod payments;
mod points;
mod purchases;
mod sagas;
mod sales;

/// All violations, sorted.
#[must_use]
pub fn check(books: &Books, now: Timestamp) -> Vec<Violation> {
    let mut found = promises(books, now);
    equations(books, &mut found);
    found.sort();
    found
}

/// The promises to buyers and organisers.
fn promises(books: &Books, now: Timestamp) -> Vec<Violation> {
    let mut found = Vec::new();
    no_oversell(books, &mut found);
    compensated_purchases_hold_nothing(books, &mut found);
    claims_are_conserved(books, &mut found);
    claims::match_tickets(books, &mut found);
    points_are_conserved(books, &mut found);
    money_is_conserved(books, &mut found);
    attempts::end(books, now, &mut found);
    attempts::refunds_end(books, now, &mut found);
    attempts::buy_one_ticket(books, &mut found);
    every_saga_ends(books, &mut found);
    found.sort();
    found
}

/// The tables of all services must agree with each other.
fn equations(books: &Books, found: &mut Vec<Violation>) {
    claims::exist(books, found);
    sales::match_events(books, found);
    purchases::match_across_services(books, found);
    points::match_ledger_and_purchases(books, found);
    payments::are_consistent(books, found);
    sagas::are_consistent(books, found);
}

fn violation(
    promise: u8,
    subject: impl std::fmt::Display,
    detail: impl std::fmt::Display,
) -> Violation {
    Violation {
        promise,
        subject: subject.to_string(),
        detail: detail.to_string(),
    }
}

fn owned(ticket: &&Ticket) -> bool {
    ticket.status == TicketStatus::Reserved
}

fn count_by_event(events: impl Iterator<Item = EventId>) -> HashMap<EventId, i64> {
    let mut counts = HashMap::new();
    events.for_each(|event| *counts.entry(event).or_default() += 1);
    counts
}

/// Promise 1: tickets RESERVED <= quantity.
fn no_oversell(books: &Books, found: &mut Vec<Violation>) {
    let owned = count_by_event(
        books
            .tickets
            .values()
            .filter(owned)
            .map(|ticket| ticket.event_id),
    );
    for (event, allocation) in &books.allocations {
        let tickets = owned.get(event).copied().unwrap_or(0);
        if tickets > allocation.quantity {
            let detail = format!(
                "{tickets} tickets are RESERVED, but its quantity is {}",
                allocation.quantity
            );
            found.push(violation(1, format_args!("event {event}"), detail));
        }
        if tickets != allocation.sold {
            let detail = format!(
                "{tickets} tickets are RESERVED, but {} are counted as sold",
                allocation.sold
            );
            found.push(violation(1, format_args!("event {event}"), detail));
        }
    }
    for event in owned
        .keys()
        .filter(|event| !books.allocations.contains_key(event))
    {
        found.push(violation(
            1,
            format_args!("event {event}"),
            "tickets are RESERVED, but it has no allocation",
        ));
    }
}

/// Promise 2: a compensated or expired purchase holds nothing, unless its payment arrived late and a ticket was issued.
fn compensated_purchases_hold_nothing(books: &Books, found: &mut Vec<Violation>) {
    for ticket_id in books
        .purchases
        .keys()
        .copied()
        .filter(|ticket_id| !books.is_under_way(*ticket_id))
    {
        let saga_id = ticket_id.purchase_saga();
        let ended_as = |saga_id| books.sagas.get(&saga_id).map(|saga| saga.state);
        let is_compensated = ended_as(saga_id) == Some(SagaState::Compensated);
        let is_taken_back = ended_as(ticket_id.expire_saga()) == Some(SagaState::Completed);
        let is_bought = books.tickets.get(&ticket_id).as_ref().is_some_and(owned);
        if is_bought || !is_compensated && !is_taken_back {
            continue;
        }
        let subject = format!("purchase of ticket {ticket_id}");
        if books.reservations.contains_key(&ticket_id) {
            found.push(violation(
                2,
                &subject,
                "it was compensated, but its reservation still exists",
            ));
        }
        if books
            .holds
            .get(&saga_id)
            .is_some_and(|hold| hold.state == HoldState::Held)
        {
            found.push(violation(
                2,
                &subject,
                "it was compensated, but its points are still held",
            ));
        }
        let payment = books.payments.get(&PaymentId::of_saga(saga_id));
        if payment.is_some_and(|payment| {
            matches!(
                payment.status,
                PaymentStatus::Created | PaymentStatus::Failed
            )
        }) {
            found.push(violation(
                2,
                &subject,
                "it was compensated, but its payment can still be paid",
            ));
        }
    }
}

/// Promise 3: quantity = available + waiting + completed, and each completed claim is a ticket. A claim that an unhandled
/// message names may be about to be released, and another buyer may already hold its ticket.
fn claims_are_conserved(books: &Books, found: &mut Vec<Violation>) {
    let is_staying = |reservation: &&ReservationRecord| {
        let ticket_id = reservation.ticket_id.to_string();
        !books.under_way.contains(&ticket_id)
    };
    let staying = || books.reservations.values().filter(is_staying);
    let claims = count_by_event(staying().map(|reservation| reservation.event_id));
    for (event, allocation) in &books.allocations {
        let claimed = claims.get(event).copied().unwrap_or(0);
        // A lowered quantity may leave more claims than tickets; those expire or are refunded.
        if claimed > allocation.quantity && allocation.event_version == 1 {
            let detail = format!(
                "{claimed} tickets are claimed, but its quantity is {}",
                allocation.quantity
            );
            found.push(violation(3, format_args!("event {event}"), detail));
        }
    }
    for ReservationRecord {
        ticket_id, state, ..
    } in books.reservations.values()
    {
        let has_ticket = books.tickets.get(ticket_id).as_ref().is_some_and(owned);
        if has_ticket != (*state == ReservationState::Completed) {
            let detail = format!(
                "it is {state:?}, but its ticket is {}",
                if has_ticket { "issued" } else { "missing" }
            );
            found.push(violation(
                3,
                format_args!("reservation {ticket_id}"),
                detail,
            ));
        }
    }
    let mut buyers: BTreeMap<_, TicketId> = BTreeMap::new();
    for ReservationRecord {
        ticket_id,
        event_id,
        user_id,
        ..
    } in staying()
    {
        if let Some(other) = buyers.insert((event_id, user_id), *ticket_id) {
            let detail =
                format!("user {user_id} has another reservation {other} for event {event_id}");
            found.push(violation(
                3,
                format_args!("reservation {ticket_id}"),
                detail,
            ));
        }
    }
}

/// Promise 3: a balance is the sum of its ledger entries; points are held only for purchases in progress, and used only
/// for paid ones.
fn points_are_conserved(books: &Books, found: &mut Vec<Violation>) {
    for (user_id, user) in &books.users {
        let sum = books.ledger.sum(*user_id);
        if user.balance.get() != sum {
            let detail = format!(
                "its balance is {}, but its ledger entries sum to {sum}",
                user.balance
            );
            found.push(violation(3, format_args!("user {user_id}"), detail));
        }
    }
    for (saga_id, hold) in &books.holds {
        let payment = books.payments.get(&PaymentId::of_saga(*saga_id));
        let is_settled = payment.is_none_or(|payment| !books.is_under_way(payment.ticket_id));
        let is_kept = payment
            .is_some_and(|it| it.status == PaymentStatus::Succeeded && it.refund == Refund::None);
        let used = hold.state == HoldState::Used;
        if is_settled && is_kept != used && (used || hold.state == HoldState::Held && is_kept) {
            let detail = format!(
                "the points are {:?}, but the payment is {:?}",
                hold.state,
                payment.map(|it| it.status)
            );
            found.push(violation(
                3,
                format_args!("points of saga {saga_id}"),
                detail,
            ));
        }
    }
}

/// Promise 3: each payment that is not refunded has exactly one ticket, and each ticket such a payment.
fn money_is_conserved(books: &Books, found: &mut Vec<Violation>) {
    for (payment_id, payment) in &books.payments {
        if books.is_money_under_way(payment.ticket_id) {
            continue;
        }
        let ticket = books.tickets.get(&payment.ticket_id).filter(owned);
        let is_its_own = ticket.is_some_and(|ticket| ticket.payment_id == *payment_id);
        let is_kept = payment.status == PaymentStatus::Succeeded && payment.refund == Refund::None;
        let is_taken = is_kept || payment.refund == Refund::Parked;
        let subject = format!("payment {payment_id}");
        if is_kept && !is_its_own {
            found.push(violation(
                3,
                &subject,
                "its money is kept, but it has no ticket",
            ));
        }
        // A parked cancellation saga may still have to cancel the ticket.
        if is_its_own && !is_taken && !books.is_under_way(payment.ticket_id) {
            let detail = format!("it is {:?}, but its ticket is RESERVED", payment.status);
            found.push(violation(3, &subject, detail));
        }
    }
    for (ticket_id, ticket) in books.tickets.iter().filter(|(_, ticket)| owned(ticket)) {
        if !books.payments.contains_key(&ticket.payment_id) {
            found.push(violation(
                3,
                format_args!("ticket {ticket_id}"),
                "it has no payment",
            ));
        }
    }
}

/// Promise 7: a saga that has not ended waits for a timer or a message, or is parked.
fn every_saga_ends(books: &Books, found: &mut Vec<Violation>) {
    for (saga_id, saga) in &books.sagas {
        let waits = books.timers.contains(&format!("saga/{saga_id}"))
            || books.under_way.contains(&saga_id.to_string());
        if !saga.state.is_terminal() && saga.parked.is_none() && !waits {
            let detail = format!(
                "it is {:?}, but no timer and no message continues it",
                saga.state
            );
            found.push(violation(7, format_args!("saga {saga_id}"), detail));
        }
    }
    for (ticket_id, purchase) in &books.purchases {
        if !books.sagas.contains_key(&ticket_id.purchase_saga())
            && !books.under_way.contains(&ticket_id.to_string())
        {
            let detail = format!(
                "it was requested at {}, but has no saga",
                purchase.requested_at
            );
            found.push(violation(
                7,
                format_args!("purchase of ticket {ticket_id}"),
                detail,
            ));
        }
    }
}

#[cfg(test)]
mod tests;

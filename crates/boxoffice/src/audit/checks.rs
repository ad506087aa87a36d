//! The promises as pure functions from the books to violations. docs/audit.md lists them.
//!
//! A new table or column needs an equation here, in the module of its subject, and a row in docs/audit.md. Until then the
//! test `scenarios/mutations.rs` fails, unless `undetected.rs` beside it lists the column with a reason.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Display,
};

use contract::{
    EventId, PaymentId, TicketId, Timestamp,
    domain::{PaymentStatus, TicketStatus},
};
use payment::record::{PaymentRecord, Refund};
use saga::SagaState;
use ticketing::model::{Purchase, ReservationRecord, ReservationState, Ticket};
use user::{model::User, points::HoldState};

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
    let mut found = Findings::default();
    promises(books, now, &mut found);
    equations(books, &mut found);
    found.sorted()
}

/// The promises to buyers and organisers.
fn promises(books: &Books, now: Timestamp, found: &mut Findings) {
    no_oversell(books, found);
    compensated_purchases_hold_nothing(books, found);
    claims_are_conserved(books, found);
    claims::match_tickets(books, found);
    points_are_conserved(books, found);
    money_is_conserved(books, found);
    attempts::end(books, now, found);
    attempts::refunds_end(books, now, found);
    attempts::buy_one_ticket(books, found);
    every_saga_ends(books, found);
}

/// The tables of all services must agree with each other.
fn equations(books: &Books, found: &mut Findings) {
    claims::exist(books, found);
    sales::match_events(books, found);
    purchases::match_across_services(books, found);
    points::match_ledger_and_purchases(books, found);
    payments::are_consistent(books, found);
    sagas::are_consistent(books, found);
}

/// The violations found so far.
#[derive(Default)]
struct Findings(Vec<Violation>);

impl Findings {
    /// `kind` and `id` name the record, such as `payment 0192…`.
    fn add(&mut self, promise: u8, kind: &str, id: impl Display, detail: impl Display) {
        self.0.push(Violation {
            promise,
            subject: format!("{kind} {id}"),
            detail: detail.to_string(),
        });
    }

    /// Adds the flaw, if there is one.
    fn check(&mut self, promise: u8, kind: &str, id: impl Display, flaw: Option<impl Display>) {
        if let Some(flaw) = flaw {
            self.add(promise, kind, id, flaw);
        }
    }

    fn sorted(mut self) -> Vec<Violation> {
        self.0.sort();
        self.0
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
fn no_oversell(books: &Books, found: &mut Findings) {
    let owned = count_by_event(books.owned_tickets().map(|ticket| ticket.event_id));
    for (event, allocation) in &books.allocations {
        let tickets = owned.get(event).copied().unwrap_or(0);
        let mut report = |is_broken: bool, but: String| {
            if is_broken {
                let detail = format!("{tickets} tickets are RESERVED, but {but}");
                found.add(1, "event", event, detail);
            }
        };
        let (quantity, sold) = (allocation.quantity, allocation.sold);
        report(tickets > quantity, format!("its quantity is {quantity}"));
        report(tickets != sold, format!("{sold} are counted as sold"));
    }
    for event in owned.keys() {
        if !books.allocations.contains_key(event) {
            let detail = "tickets are RESERVED, but it has no allocation";
            found.add(1, "event", event, detail);
        }
    }
}

/// Promise 2: a compensated or expired purchase holds nothing, unless its payment arrived late and a ticket was issued.
fn compensated_purchases_hold_nothing(books: &Books, found: &mut Findings) {
    let ids = books.purchases.keys().copied();
    for ticket_id in ids.filter(|ticket_id| !books.is_under_way(*ticket_id)) {
        let saga_id = ticket_id.purchase_saga();
        let ended_as = |saga_id| books.sagas.get(&saga_id).map(|saga| saga.state);
        let is_compensated = ended_as(saga_id) == Some(SagaState::Compensated);
        let is_taken_back = ended_as(ticket_id.expire_saga()) == Some(SagaState::Completed);
        if books.has_ticket(ticket_id) || !is_compensated && !is_taken_back {
            continue;
        }
        let mut report = |is_left: bool, what: &str| {
            if is_left {
                let detail = format!("it was compensated, but its {what}");
                found.add(2, "purchase of ticket", ticket_id, detail);
            }
        };
        let is_reserved = books.reservations.contains_key(&ticket_id);
        report(is_reserved, "reservation still exists");
        let hold = books.holds.get(&saga_id);
        let is_held = hold.is_some_and(|hold| hold.state == HoldState::Held);
        report(is_held, "points are still held");
        let is_payable = books.payment_of(ticket_id).is_some_and(is_payable);
        report(is_payable, "payment can still be paid");
    }
}

fn is_payable(payment: &PaymentRecord) -> bool {
    matches!(
        payment.status,
        PaymentStatus::Created | PaymentStatus::Failed
    )
}

/// Promise 3: quantity = available + waiting + completed, and each completed claim is a ticket. A claim that an unhandled
/// message names may be about to be released, and another buyer may already hold its ticket.
fn claims_are_conserved(books: &Books, found: &mut Findings) {
    let is_staying = |it: &&ReservationRecord| !books.is_named(it.ticket_id);
    let staying = || books.reservations.values().filter(is_staying);
    let claims = count_by_event(staying().map(|reservation| reservation.event_id));
    for (event, allocation) in &books.allocations {
        let claimed = claims.get(event).copied().unwrap_or(0);
        let quantity = allocation.quantity;
        // A lowered quantity may leave more claims than tickets; those expire or are refunded.
        if claimed > quantity && allocation.event_version == 1 {
            let detail = format!("{claimed} tickets are claimed, but its quantity is {quantity}");
            found.add(3, "event", event, detail);
        }
    }
    for (ticket_id, ReservationRecord { state, .. }) in &books.reservations {
        let has_ticket = books.has_ticket(*ticket_id);
        if has_ticket != (*state == ReservationState::Completed) {
            let ticket = if has_ticket { "issued" } else { "missing" };
            let detail = format!("it is {state:?}, but its ticket is {ticket}");
            found.add(3, "reservation", ticket_id, detail);
        }
    }
    let mut buyers: BTreeMap<_, TicketId> = BTreeMap::new();
    for it in staying() {
        let (event_id, user_id) = (it.event_id, it.user_id);
        if let Some(other) = buyers.insert((event_id, user_id), it.ticket_id) {
            let detail =
                format!("user {user_id} has another reservation {other} for event {event_id}");
            found.add(3, "reservation", it.ticket_id, detail);
        }
    }
}

/// Promise 3: a balance is the sum of its ledger entries; points are held only for purchases in progress, and used only
/// for paid ones.
fn points_are_conserved(books: &Books, found: &mut Findings) {
    for (user_id, User { balance, .. }) in &books.users {
        let sum = books.ledger.sum(*user_id);
        if balance.get() != sum {
            let detail = format!("its balance is {balance}, but its ledger entries sum to {sum}");
            found.add(3, "user", user_id, detail);
        }
    }
    for (saga_id, hold) in &books.holds {
        let payment = books.payments.get(&PaymentId::of_saga(*saga_id));
        let is_settled = payment.is_none_or(|payment| !books.is_under_way(payment.ticket_id));
        let is_kept = payment.is_some_and(is_kept);
        let used = hold.state == HoldState::Used;
        if is_settled && is_kept != used && (used || hold.state == HoldState::Held && is_kept) {
            let (state, status) = (hold.state, payment.map(|it| it.status));
            let detail = format!("the points are {state:?}, but the payment is {status:?}");
            found.add(3, "points of saga", saga_id, detail);
        }
    }
}

fn is_kept(payment: &PaymentRecord) -> bool {
    payment.status == PaymentStatus::Succeeded && payment.refund == Refund::None
}

/// Promise 3: each payment that is not refunded has exactly one ticket, and each ticket such a payment.
fn money_is_conserved(books: &Books, found: &mut Findings) {
    for (payment_id, payment) in &books.payments {
        if books.is_money_under_way(payment.ticket_id) {
            continue;
        }
        let ticket = books.tickets.get(&payment.ticket_id).filter(owned);
        let is_its_own = ticket.is_some_and(|ticket| ticket.payment_id == *payment_id);
        let is_kept = is_kept(payment);
        let is_taken = is_kept || payment.refund == Refund::Parked;
        if is_kept && !is_its_own {
            let detail = "its money is kept, but it has no ticket";
            found.add(3, "payment", payment_id, detail);
        }
        // A parked cancellation saga may still have to cancel the ticket.
        if is_its_own && !is_taken && !books.is_under_way(payment.ticket_id) {
            let detail = format!("it is {:?}, but its ticket is RESERVED", payment.status);
            found.add(3, "payment", payment_id, detail);
        }
    }
    for ticket in books.owned_tickets() {
        if !books.payments.contains_key(&ticket.payment_id) {
            found.add(3, "ticket", ticket.ticket_id, "it has no payment");
        }
    }
}

/// Promise 7: a saga that has not ended waits for a timer or a message, or is parked.
fn every_saga_ends(books: &Books, found: &mut Findings) {
    for (saga_id, saga) in &books.sagas {
        let waits = books.timers.contains(&format!("saga/{saga_id}")) || books.is_named(saga_id);
        if !saga.state.is_terminal() && saga.parked.is_none() && !waits {
            let state = saga.state;
            let detail = format!("it is {state:?}, but no timer and no message continues it");
            found.add(7, "saga", saga_id, detail);
        }
    }
    for (ticket_id, Purchase { requested_at, .. }) in &books.purchases {
        let has_saga = books.sagas.contains_key(&ticket_id.purchase_saga());
        if !has_saga && !books.is_named(ticket_id) {
            let detail = format!("it was requested at {requested_at}, but has no saga");
            found.add(7, "purchase of ticket", ticket_id, detail);
        }
    }
}

#[cfg(test)]
mod tests;

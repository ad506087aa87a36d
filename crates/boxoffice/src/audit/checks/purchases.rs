//! Promise 3, of what the services say about one purchase: purchase, saga, payment, reservation, ticket and refund are
//! of the same event, user, amount and points, and name each other.

use std::collections::HashMap;

use contract::{
    EventId, Money, PaymentId, Points, SagaId, TicketId, Timestamp, UserId,
    domain::{PaymentStatus, Refund, TicketStatus},
};
use messaging::coordinator::SagaRecord;
use payment::record::PaymentRecord;
use saga::SagaState;
use ticketing::{
    model::{AgreedPrice, Purchase, Reservation, ReservationState},
    sagas::{CANCEL, Cancellation, PURCHASE, Payload},
};

use super::{Books, Violation, owned, violation};

/// What a purchase is about, whoever says it.
#[derive(Debug, PartialEq, Eq)]
struct Deal {
    ticket_id: TicketId,
    event_id: EventId,
    user_id: UserId,
    total_amount: Money,
    point: Points,
    expires_at: Option<Timestamp>,
}

impl From<&Purchase> for Deal {
    fn from(it: &Purchase) -> Self {
        Self {
            ticket_id: it.ticket_id,
            event_id: it.event_id,
            user_id: it.user_id,
            total_amount: it.total_amount,
            point: it.point,
            expires_at: Some(it.expires_at),
        }
    }
}

impl From<&PaymentRecord> for Deal {
    fn from(it: &PaymentRecord) -> Self {
        Self {
            ticket_id: it.ticket_id,
            event_id: it.event_id,
            user_id: it.user_id,
            total_amount: it.total_amount,
            point: it.point_amount,
            expires_at: it.expires_at,
        }
    }
}

impl From<Payload> for Deal {
    fn from(it: Payload) -> Self {
        Self {
            ticket_id: it.ticket_id,
            event_id: it.event_id,
            user_id: it.user_id,
            total_amount: it.total_amount,
            point: it.point,
            expires_at: it.expires_at,
        }
    }
}

/// Everything that belongs to one purchase says the same of it.
pub(super) fn agree(books: &Books, found: &mut Vec<Violation>) {
    for saga in books.sagas.values() {
        if let Some(flaw) = saga_flaw(books, saga) {
            found.push(violation(3, format_args!("saga {}", saga.saga_id), flaw));
        }
    }
    for payment in books.payments.values() {
        if let Some(flaw) = payment_flaw(books, payment) {
            let subject = format_args!("payment {}", payment.payment_id);
            found.push(violation(3, subject, flaw));
        }
    }
    for reservation in books.reservations.values() {
        if let Some(flaw) = reservation_flaw(books, reservation) {
            let subject = format_args!("reservation {}", reservation.ticket_id);
            found.push(violation(3, subject, flaw));
        }
    }
    tickets_agree(books, found);
    refunds_agree(books, found);
}

fn saga_flaw(books: &Books, saga: &SagaRecord) -> Option<String> {
    let Ok(ticket_id) = saga.reference_id.parse::<TicketId>() else {
        return Some(format!(
            "it is about {:?}, which is no ticket",
            saga.reference_id
        ));
    };
    let Some(purchase) = books.purchases.get(&ticket_id) else {
        return Some(format!(
            "nobody asked for the purchase of ticket {ticket_id}"
        ));
    };
    let says_the_same = if saga.saga_type == CANCEL.kind {
        serde_json::from_value(saga.payload.clone()).is_ok_and(|it: Cancellation| {
            it.ticket_id == ticket_id
                && it.event_id == purchase.event_id
                && it.user_id == purchase.user_id
                && it.point == purchase.point
                && books
                    .payments
                    .get(&it.payment_id)
                    .is_none_or(|it| it.ticket_id == ticket_id)
        })
    } else {
        Payload::of(saga).is_ok_and(|it| {
            let named = it.payment_id.and_then(|id| books.payments.get(&id));
            let is_known = it.payment_id.is_none() || books.payments.is_empty();
            let is_its_own = named.map_or(is_known, |payment| payment.ticket_id == ticket_id);
            is_its_own && Deal::from(it) == Deal::from(purchase)
        })
    };
    (!says_the_same)
        .then(|| "it is about another purchase than the one that was asked for".to_owned())
}

fn payment_flaw(books: &Books, payment: &PaymentRecord) -> Option<&'static str> {
    // A ticketing service of somebody else's has books of its own.
    if books.sagas.is_empty() {
        return None;
    }
    let Some(saga) = books.sagas.get(&payment.saga_id) else {
        return Some("no saga has asked for it");
    };
    let is_its_own =
        saga.saga_type == PURCHASE.kind && PaymentId::of_saga(saga.saga_id) == payment.payment_id;
    // One that stood in its way may have been another: then the saga turned back, and it was never paid.
    let came_to_nothing = saga.state == SagaState::Compensated && payment.attempt == 0;
    let says_the_same = Payload::of(saga).is_ok_and(|it| Deal::from(it) == Deal::from(payment));
    (!is_its_own || !says_the_same && !came_to_nothing)
        .then_some("it is not what its saga has asked for")
}

fn reservation_flaw(books: &Books, reservation: &Reservation) -> Option<&'static str> {
    if !books.allocations.contains_key(&reservation.event_id) {
        return Some("its event is not on sale");
    }
    if reservation.lapses_at < reservation.expires_at {
        return Some("it lapses before its deadline");
    }
    let purchase = books.purchases.get(&reservation.ticket_id)?;
    let is_same =
        (purchase.event_id, purchase.user_id) == (reservation.event_id, reservation.user_id);
    let is_waiting = reservation.state == ReservationState::Waiting;
    let is_in_time = !is_waiting || purchase.expires_at == reservation.expires_at;
    let agreed = reservation.agreed_price.and_then(AgreedPrice::price);
    let is_agreed = agreed.is_none_or(|price| price == purchase.total_amount);
    (!is_same || !is_in_time || !is_agreed)
        .then_some("its purchase is of another event, user, deadline or price")
}

fn tickets_agree(books: &Books, found: &mut Vec<Violation>) {
    for (ticket_id, ticket) in &books.tickets {
        let payment = books.payments.get(&ticket.payment_id);
        let paid_for = payment.map(|it| (it.ticket_id, it.event_id, it.user_id));
        let decided_by = books.status_in(ticket.payment_id, ticket.payment_version);
        let purchase = books.purchases.get(ticket_id);
        let flaw = if paid_for != Some((*ticket_id, ticket.event_id, ticket.user_id)) {
            "its payment is for another ticket, event or user, or is not there"
        } else if !decided_by.is_some_and(says_money) {
            "the version of its payment that decided about it said nothing of money"
        } else if ticket.status == TicketStatus::Expired {
            "it has expired, which no ticket does"
        } else if owned(&ticket) && purchase.is_some_and(|it| it.released_at.is_some()) {
            "it is valid, but its buyer had given the reservation back"
        } else {
            continue;
        };
        if !books.payments.is_empty() {
            found.push(violation(3, format_args!("ticket {ticket_id}"), flaw));
        }
    }
}

/// Whether a payment in this status issues or cancels tickets.
pub(super) fn says_money(status: PaymentStatus) -> bool {
    matches!(status, PaymentStatus::Succeeded | PaymentStatus::Cancelled)
}

/// What ticketing remembers of a refund is what the payment says, once it has heard all.
fn refunds_agree(books: &Books, found: &mut Vec<Violation>) {
    for (ticket_id, refund) in &books.purchase_refunds {
        let payment = books.payments.get(&refund.payment_id);
        let is_its_own = payment.is_none_or(|it| it.ticket_id == *ticket_id);
        let is_heard = payment.is_none_or(|it| {
            books.is_being_told(*ticket_id)
                || (it.version, it.told_status(), it.refund, &it.refund_reason)
                    == (
                        refund.payment_version,
                        refund.payment_status,
                        refund.refund,
                        &refund.reason,
                    )
        });
        if payment.is_none() && !books.payments.is_empty() || !is_its_own || !is_heard {
            let detail = "what is known of its refund is not what its payment says";
            found.push(violation(
                3,
                format_args!("purchase of ticket {ticket_id}"),
                detail,
            ));
        }
    }
    let is_told = |it: &&PaymentRecord| {
        it.refund != Refund::None || it.told_status() == PaymentStatus::Cancelled
    };
    for payment in books.payments.values().filter(is_told) {
        let ticket_id = payment.ticket_id;
        let is_known = books.purchase_refunds.contains_key(&ticket_id);
        if !books.sagas.is_empty() && !is_known && !books.is_being_told(ticket_id) {
            let detail = "its money goes or went back, and ticketing does not know of it";
            found.push(violation(
                3,
                format_args!("payment {}", payment.payment_id),
                detail,
            ));
        }
    }
}

/// The purchase that each saga of its kind runs.
pub(super) fn by_saga(books: &Books) -> HashMap<SagaId, &Purchase> {
    let purchases = books.purchases.values();
    purchases
        .map(|it| (it.ticket_id.purchase_saga(), it))
        .collect()
}

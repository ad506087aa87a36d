//! Promise 3 across the services: purchase, saga, payment, reservation, ticket and refund of one ticket have the same event,
//! user, amount and points, and refer to each other.

use std::collections::HashMap;

use contract::{
    PaymentId, SagaId, TicketId,
    domain::{PaymentStatus, Refund, TicketStatus},
};
use messaging::coordinator::SagaRecord;
use payment::record::PaymentRecord;
use saga::SagaState;
use ticketing::{
    model::{AgreedPrice, Purchase, ReservationRecord, ReservationState},
    sagas::{CANCEL, CancellationPayload, PURCHASE, PurchasePayload},
};

use super::{Books, Findings, owned};

/// All records of one purchase agree.
pub(super) fn match_across_services(books: &Books, found: &mut Findings) {
    for (id, saga) in &books.sagas {
        found.check(3, "saga", id, saga_flaw(books, saga));
    }
    for (id, payment) in &books.payments {
        found.check(3, "payment", id, payment_flaw(books, payment));
    }
    for (id, reservation) in &books.reservations {
        let flaw = reservation_flaw(books, reservation);
        found.check(3, "reservation", id, flaw);
    }
    tickets_match_payments(books, found);
    refunds_match_payments(books, found);
}

fn saga_flaw(books: &Books, saga: &SagaRecord) -> Option<String> {
    let Ok(ticket_id) = saga.reference_id.parse::<TicketId>() else {
        return Some(format!(
            "its reference {:?} is not a ticket id",
            saga.reference_id
        ));
    };
    let Some(purchase) = books.purchases.get(&ticket_id) else {
        return Some(format!("ticket {ticket_id} has no purchase"));
    };
    let is_of_ticket = |id| {
        books
            .payments
            .get(&id)
            .is_none_or(|it| it.ticket_id == ticket_id)
    };
    let says_the_same = if saga.saga_type == CANCEL.kind {
        serde_json::from_value(saga.payload.clone()).is_ok_and(|it: CancellationPayload| {
            it.ticket_id == ticket_id
                && it.event_id == purchase.event_id
                && it.user_id == purchase.user_id
                && it.point == purchase.point
                && is_of_ticket(it.payment_id)
        })
    } else {
        PurchasePayload::of(saga).is_ok_and(|it| {
            let named = it.payment_id.and_then(|id| books.payments.get(&id));
            let is_known = it.payment_id.is_none() || books.payments.is_empty();
            let is_its_own = named.map_or(is_known, |payment| payment.ticket_id == ticket_id);
            is_its_own && terms(it) == PurchasePayload::from(purchase.clone())
        })
    };
    (!says_the_same).then(|| "its payload differs from the purchase of its ticket".to_owned())
}

fn payment_flaw(books: &Books, payment: &PaymentRecord) -> Option<&'static str> {
    // Another company's ticketing service keeps its own records.
    if books.sagas.is_empty() {
        return None;
    }
    let Some(saga) = books.sagas.get(&payment.saga_id) else {
        return Some("its saga does not exist");
    };
    let is_its_own =
        saga.saga_type == PURCHASE.kind && PaymentId::of_saga(saga.saga_id) == payment.payment_id;
    // If another payment has its id, the saga compensated, and that payment was never paid.
    let came_to_nothing = saga.state == SagaState::Compensated && payment.attempt == 0;
    let says_the_same = PurchasePayload::of(saga).is_ok_and(|it| terms(it) == terms_of(payment));
    (!is_its_own || !says_the_same && !came_to_nothing)
        .then_some("it differs from its saga's request")
}

/// The terms of a purchase, without the payment's id.
fn terms(payload: PurchasePayload) -> PurchasePayload {
    PurchasePayload {
        payment_id: None,
        ..payload
    }
}

fn terms_of(payment: &PaymentRecord) -> PurchasePayload {
    PurchasePayload {
        ticket_id: payment.ticket_id,
        event_id: payment.event_id,
        user_id: payment.user_id,
        total_amount: payment.total_amount,
        point: payment.point_amount,
        expires_at: payment.expires_at,
        payment_id: None,
    }
}

fn reservation_flaw(books: &Books, reservation: &ReservationRecord) -> Option<&'static str> {
    if !books.allocations.contains_key(&reservation.event_id) {
        return Some("its event has no allocation");
    }
    if reservation.lapses_at < reservation.expires_at {
        return Some("its lapses_at is before its expires_at");
    }
    let purchase = books.purchases.get(&reservation.ticket_id)?;
    let is_same =
        (purchase.event_id, purchase.user_id) == (reservation.event_id, reservation.user_id);
    let is_waiting = reservation.state == ReservationState::Waiting;
    let is_in_time = !is_waiting || purchase.expires_at == reservation.expires_at;
    let agreed = reservation.agreed_price.and_then(AgreedPrice::price);
    let is_agreed = agreed.is_none_or(|price| price == purchase.total_amount);
    (!is_same || !is_in_time || !is_agreed)
        .then_some("its event, user, deadline or price differs from its purchase")
}

fn tickets_match_payments(books: &Books, found: &mut Findings) {
    for (ticket_id, ticket) in &books.tickets {
        let payment = books.payments.get(&ticket.payment_id);
        let paid_for = payment.map(|it| (it.ticket_id, it.event_id, it.user_id));
        let decided_by = books.status_in(ticket.payment_id, ticket.payment_version);
        let purchase = books.purchases.get(ticket_id);
        let flaw = if paid_for != Some((*ticket_id, ticket.event_id, ticket.user_id)) {
            "its payment does not exist, or is for another ticket, event or user"
        } else if !decided_by.is_some_and(says_money) {
            "in its payment_version, its payment was neither SUCCEEDED nor CANCELLED"
        } else if ticket.status == TicketStatus::Expired {
            "it is EXPIRED, which is not a valid state"
        } else if owned(&ticket) && purchase.is_some_and(|it| it.released_at.is_some()) {
            "it is RESERVED, but its buyer had released the reservation"
        } else {
            continue;
        };
        if !books.payments.is_empty() {
            found.add(3, "ticket", ticket_id, flaw);
        }
    }
}

/// Whether a payment with this status issues or cancels tickets.
pub(super) fn says_money(status: PaymentStatus) -> bool {
    matches!(status, PaymentStatus::Succeeded | PaymentStatus::Cancelled)
}

/// Once ticketing has handled all messages, its record of a refund equals the payment's.
fn refunds_match_payments(books: &Books, found: &mut Findings) {
    for (ticket_id, refund) in &books.purchase_refunds {
        let payment = books.payments.get(&refund.payment_id);
        let is_its_own = payment.is_none_or(|it| it.ticket_id == *ticket_id);
        let is_handled = payment.is_none_or(|it| {
            books.has_pending_messages(*ticket_id)
                || (
                    it.version,
                    it.published_status(),
                    it.refund,
                    &it.refund_reason,
                ) == (
                    refund.payment_version,
                    refund.payment_status,
                    refund.refund,
                    &refund.reason,
                )
        });
        if payment.is_none() && !books.payments.is_empty() || !is_its_own || !is_handled {
            let detail = "its record of the refund differs from its payment";
            found.add(3, "purchase of ticket", ticket_id, detail);
        }
    }
    let is_published = |it: &&PaymentRecord| {
        it.refund != Refund::None || it.published_status() == PaymentStatus::Cancelled
    };
    for payment in books.payments.values().filter(is_published) {
        let ticket_id = payment.ticket_id;
        let is_known = books.purchase_refunds.contains_key(&ticket_id);
        if !books.sagas.is_empty() && !is_known && !books.has_pending_messages(ticket_id) {
            let detail = "it is refunded or being refunded, but ticketing has no record of it";
            found.add(3, "payment", payment.payment_id, detail);
        }
    }
}

/// Purchases by purchase saga.
pub(super) fn by_saga(books: &Books) -> HashMap<SagaId, &Purchase> {
    let purchases = books.purchases.values();
    purchases
        .map(|it| (it.ticket_id.purchase_saga(), it))
        .collect()
}

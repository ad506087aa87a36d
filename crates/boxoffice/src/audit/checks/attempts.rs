//! Promise 3 for payments: each attempt and each refund ends, and a payment has at most one ticket.

use std::collections::HashMap;

use contract::{PaymentId, TicketId, Timestamp, domain::PaymentStatus};

use payment::{record::Refund, refund::is_overdue};

use super::{Books, Findings};

/// An attempt must have an outcome within this time after its start or after the payment's deadline, whichever is later: a
/// virtual account waits for a deposit until the deadline.
pub const CONFIRMING_SECS_MAX: i64 = 3_600;

/// No payment is `CONFIRMING` for longer than the limit.
pub(super) fn end(books: &Books, now: Timestamp, found: &mut Findings) {
    for (payment_id, payment) in &books.payments {
        if payment.status != PaymentStatus::Confirming {
            continue;
        }
        let Some(since) = payment.attempt_started_at.max(payment.expires_at) else {
            continue;
        };
        if now > since.plus_secs(CONFIRMING_SECS_MAX) {
            let began = payment.attempt_started_at.unwrap_or(since);
            let detail = format!("it is CONFIRMING since {began}, which is longer than an hour");
            found.add(3, "payment", payment_id, detail);
        }
    }
}

/// No refund is requested for longer than a bank is closed overnight without being parked.
pub(super) fn refunds_end(books: &Books, now: Timestamp, found: &mut Findings) {
    let overdue = |refund, since, code: &Option<String>| {
        let answer = code.as_deref().unwrap_or("none");
        let detail =
            || format!("its refund is requested since {since}; the gateway's last code: {answer}");
        (refund == Refund::Requested && is_overdue(since, now)).then(detail)
    };
    for (id, it) in &books.payments {
        let flaw = overdue(it.refund, it.refund_requested_since(), &it.refund_code);
        found.check(3, "payment", id, flaw);
    }
    for (charge, it) in &books.orphan_charges {
        let flaw = overdue(it.refund, it.refund_requested_since(), &it.refund_code);
        found.check(3, "orphan charge", charge, flaw);
    }
}

/// No payment has two tickets.
pub(super) fn buy_one_ticket(books: &Books, found: &mut Findings) {
    let mut tickets: HashMap<PaymentId, TicketId> = HashMap::new();
    for ticket in books.owned_tickets() {
        let ticket_id = ticket.ticket_id;
        if let Some(other) = tickets.insert(ticket.payment_id, ticket_id) {
            let detail = format!("it has two tickets: {other} and {ticket_id}");
            found.add(3, "payment", ticket.payment_id, detail);
        }
    }
}

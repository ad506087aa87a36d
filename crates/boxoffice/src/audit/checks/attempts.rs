//! Promise 3 for payments: each attempt and each refund ends, and a payment has at most one ticket.

use std::collections::HashMap;

use contract::{PaymentId, TicketId, Timestamp, domain::PaymentStatus};

use payment::{record::Refund, refund::is_overdue};

use super::{Books, Violation, owned, violation};

/// An attempt must have an outcome within this time after its start or after the payment's deadline, whichever is later: a
/// virtual account waits for a deposit until the deadline.
pub const CONFIRMING_SECS_MAX: i64 = 3_600;

/// No payment is `CONFIRMING` for longer than the limit.
pub(super) fn end(books: &Books, now: Timestamp, found: &mut Vec<Violation>) {
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
            found.push(violation(3, format_args!("payment {payment_id}"), detail));
        }
    }
}

/// No refund is requested for longer than a bank is closed overnight without being parked.
pub(super) fn refunds_end(books: &Books, now: Timestamp, found: &mut Vec<Violation>) {
    let overdue = |since, code: &Option<String>| {
        let answer = code.as_deref().unwrap_or("none");
        let detail =
            || format!("its refund is requested since {since}; the gateway's last code: {answer}");
        is_overdue(since, now).then(detail)
    };
    for (payment_id, payment) in &books.payments {
        if payment.refund == Refund::Requested
            && let Some(detail) = overdue(payment.refund_requested_since(), &payment.refund_code)
        {
            found.push(violation(3, format_args!("payment {payment_id}"), detail));
        }
    }
    for (charge, orphan) in &books.orphan_charges {
        if orphan.refund == Refund::Requested
            && let Some(detail) = overdue(orphan.refund_requested_since(), &orphan.refund_code)
        {
            found.push(violation(3, format_args!("orphan charge {charge}"), detail));
        }
    }
}

/// No payment has two tickets.
pub(super) fn buy_one_ticket(books: &Books, found: &mut Vec<Violation>) {
    let mut tickets: HashMap<PaymentId, TicketId> = HashMap::new();
    for (ticket_id, ticket) in books.tickets.iter().filter(|(_, ticket)| owned(ticket)) {
        if let Some(other) = tickets.insert(ticket.payment_id, *ticket_id) {
            let detail = format!("it has two tickets: {other} and {ticket_id}");
            let subject = format_args!("payment {}", ticket.payment_id);
            found.push(violation(3, subject, detail));
        }
    }
}

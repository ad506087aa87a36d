//! Promise 3, of the payment itself: an attempt to pay comes to an end, and pays for one ticket.

use std::collections::HashMap;

use contract::{PaymentId, TicketId, Timestamp, domain::PaymentStatus};

use super::{Books, Violation, owned, violation};

/// An attempt has an outcome within this time after it began, or after the payment's deadline where that is later: a
/// virtual account is waited for until then. Beyond it, nobody is settling it.
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
            let detail =
                format!("it is being confirmed since {began}, and nobody knows its outcome");
            found.push(violation(3, format_args!("payment {payment_id}"), detail));
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

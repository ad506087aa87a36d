//! Invariants once nothing is pending: the answers to buyers, the service's books and the gateway's books agree.

use std::collections::{BTreeMap, BTreeSet};

use boxoffice::audit::{Books, audit};
use contract::{
    PaymentId, TicketId, UserId,
    domain::{PaymentStatus, TicketStatus},
};
use payment::record::{PaymentRecord, Refund};

use crate::{gateway::Charge, idle::AllBooks, operator, service::RestartableService};

/// The sources that are compared.
struct Comparison<'a> {
    service: &'a RestartableService,
    books: &'a Books,
    charges: BTreeMap<String, Charge>,
}

pub async fn hold(service: &RestartableService, all: &AllBooks) {
    let comparison = Comparison {
        service,
        books: &all.books,
        charges: service.gateway.charges(),
    };
    operator::nothing_else_is_parked(all);
    assert_eq!(all.webhooks_ignored, 0, "the gateway's own webhooks");
    comparison.the_books_are_equal();
    comparison.every_payment_is_where_its_charge_is();
    comparison.every_charge_is_where_its_payment_is();
    comparison.nobody_was_charged_twice(all);
    comparison.no_attempt_had_two_keys();
    comparison.every_ticket_has_its_money();
    comparison.declined_payments_were_not_charged();
    comparison
        .confirmed_payments_have_a_ticket_or_show_their_refund()
        .await;
    comparison.released_reservations_are_gone();
    comparison.cancelled_tickets_are_refunded().await;
    comparison.points_are_where_they_belong();
    let report = audit(service.path()).unwrap();
    assert_eq!(report.violations, []);
}

impl Comparison<'_> {
    /// Charges minus refunds, succeeded payments, and payments of valid tickets are equal, to the won.
    fn the_books_are_equal(&self) {
        let gateway = self.service.gateway.books();
        assert_eq!(gateway.charged - gateway.refunded, gateway.held);
        let payments = self.books.payments.values();
        let succeeded = payments.filter(|it| it.status == PaymentStatus::Succeeded);
        let succeeded: i64 = succeeded.map(|it| it.final_amount.get()).sum();
        let tickets = self.books.tickets.values();
        let valid = tickets.filter(|it| it.status == TicketStatus::Reserved);
        let valid: i64 = valid
            .map(|it| self.books.payments[&it.payment_id].final_amount.get())
            .sum();
        assert_eq!(
            (gateway.held, gateway.held),
            (succeeded, valid),
            "held at the gateway, against succeeded payments and payments of valid tickets"
        );
        assert!(valid > 0, "no ticket was bought");
    }

    fn every_payment_is_where_its_charge_is(&self) {
        for payment in self.books.payments.values() {
            let charge = self.charge_of(payment);
            let found = charge.map(|it| (it.status.as_str(), it.balance));
            let amount = payment.final_amount.get();
            let is_right = match payment.status {
                PaymentStatus::Succeeded if amount > 0 => found == Some(("DONE", amount)),
                PaymentStatus::Cancelled if amount > 0 => found == Some(("CANCELED", 0)),
                PaymentStatus::Succeeded | PaymentStatus::Cancelled => found.is_none(),
                PaymentStatus::Created | PaymentStatus::Failed | PaymentStatus::Deleted => {
                    charge.is_none_or(|it| it.charged == it.refunded)
                }
                PaymentStatus::Confirming => false,
            };
            assert!(is_right, "{payment:?}\nis not what {charge:?} says");
            let is_refunded = payment.status == PaymentStatus::Cancelled;
            let refund = if is_refunded {
                Refund::Done
            } else {
                Refund::None
            };
            assert_eq!(payment.refund, refund, "{payment:?}");
        }
    }

    /// No charge without a ticket, and no virtual account that still waits for an unwanted deposit.
    fn every_charge_is_where_its_payment_is(&self) {
        for charge in self.charges.values() {
            let payment = &self.books.payments[&charge.order.parse::<PaymentId>().unwrap()];
            assert_eq!(charge.total, payment.final_amount.get(), "{charge:?}");
            let held = charge.charged - charge.refunded;
            match charge.status.as_str() {
                "DONE" => {
                    assert_eq!(held, charge.total, "{charge:?}");
                    let is_its = payment.pg_payment_id.as_ref() == Some(&charge.key);
                    assert!(
                        is_its && self.owns(payment.ticket_id),
                        "money without a ticket: {charge:?}\n{payment:?}"
                    );
                }
                "CANCELED" | "READY" | "IN_PROGRESS" => assert_eq!(held, 0, "{charge:?}"),
                _ => panic!("{charge:?} was left at the gateway for {payment:?}"),
            }
        }
    }

    fn nobody_was_charged_twice(&self, all: &AllBooks) {
        for order in self.service.gateway.books().orders_charged_twice {
            let of_order = self.charges.values().filter(|it| it.order == order);
            let charged: Vec<&Charge> = of_order.filter(|it| it.charged > 0).collect();
            let kept = charged.iter().filter(|it| it.balance > 0).count();
            let gone = charged.iter().filter(|it| all.strays.contains_key(&it.key));
            assert!(
                kept <= 1 && gone.count() >= charged.len() - 1,
                "charged twice: {charged:?}"
            );
        }
        let held = self.charges.values().filter(|it| it.status == "DONE");
        let mut orders = BTreeSet::new();
        for charge in held {
            assert!(orders.insert(&charge.order), "charged twice: {charge:?}");
        }
    }

    /// An attempt with an unknown outcome is repeated with its key; a new key is a new attempt.
    fn no_attempt_had_two_keys(&self) {
        for (order, keys) in self.service.gateway.confirm_keys() {
            let payment = &self.books.payments[&order.parse::<PaymentId>().unwrap()];
            let attempts = i64::from(payment.attempt);
            assert!(keys <= attempts, "{keys} keys of {payment:?}");
        }
    }

    fn every_ticket_has_its_money(&self) {
        for ticket in self.books.tickets.values() {
            let payment = &self.books.payments[&ticket.payment_id];
            let is_paid = payment.status == PaymentStatus::Succeeded;
            assert_eq!(
                self.owns(ticket.ticket_id),
                is_paid,
                "{ticket:?} {payment:?}"
            );
        }
        let paid = self.books.payments.values();
        for payment in paid.filter(|it| it.status == PaymentStatus::Succeeded) {
            assert!(self.owns(payment.ticket_id), "no ticket for {payment:?}");
        }
    }

    fn declined_payments_were_not_charged(&self) {
        for (request, answer) in self.service.calls.answered("/payment/confirmed", 200) {
            let key = answer.text_of("pgPaymentId").unwrap();
            let charge = self.charges.get(key);
            let is_charged = charge.is_some_and(|charge| charge.charged > 0);
            let is_declined = answer.body["succeeded"] == false;
            assert!(
                !(is_declined && is_charged),
                "{request:?} was answered {answer:?}, and was charged: {charge:?}"
            );
        }
    }

    /// The buyer has a ticket, or the purchase shows the refund and its reason.
    async fn confirmed_payments_have_a_ticket_or_show_their_refund(&self) {
        for (request, answer) in self.service.calls.answered("/payment/confirmed", 200) {
            if answer.body["succeeded"] == false {
                continue;
            }
            let id: PaymentId = request.body["paymentId"].as_str().unwrap().parse().unwrap();
            let payment = &self.books.payments[&id];
            if self.owns(payment.ticket_id) {
                continue;
            }
            let path = format!("/ticketing/process/{}", payment.ticket_id);
            let progress = self.service.get(&path).await;
            let said = (
                progress.text_of("failure"),
                progress.text_of("paymentStatus"),
                progress.text_of("refund"),
            );
            let refunded = (Some("PAYMENT_REFUNDED"), Some("CANCELLED"), Some("DONE"));
            assert_eq!(said, refunded, "{payment:?} shows as {progress:?}");
            let reason = progress.text_of("failureDetail").unwrap_or_default();
            assert!(!reason.is_empty(), "no reason: {progress:?}");
        }
    }

    fn released_reservations_are_gone(&self) {
        for (ticket, is_done) in self.service.calls.releases() {
            if !is_done {
                continue;
            }
            let id: TicketId = ticket.parse().unwrap();
            let is_there = self.owns(id) || self.books.reservations.contains_key(&id);
            assert!(!is_there, "{ticket} was released");
        }
    }

    /// Only the refund of a virtual account without a refund account may be refused; then the ticket stays valid.
    async fn cancelled_tickets_are_refunded(&self) {
        let given_back = self.books.tickets.values().filter(|it| it.cancellation > 0);
        for ticket in given_back {
            let payment = &self.books.payments[&ticket.payment_id];
            let path = format!("/ticket/{}/cancel", ticket.ticket_id);
            let answer = self.service.get(&path).await;
            let is_account = self.charge_of(payment).is_some_and(|it| it.is_account);
            let is_refused = answer.text_of("sagaState") == Some("COMPENSATED")
                && is_account
                && payment.refund_account.is_none();
            let is_done =
                answer.text_of("sagaState") == Some("COMPLETED") && !self.owns(ticket.ticket_id);
            assert!(is_refused || is_done, "{answer:?}\n{ticket:?}\n{payment:?}");
        }
    }

    /// A balance equals the registered points minus the points that paid for tickets.
    fn points_are_where_they_belong(&self) {
        let mut used: BTreeMap<i64, i64> = BTreeMap::new();
        for ticket in self.books.tickets.keys().filter(|it| self.owns(**it)) {
            let purchase = &self.books.purchases[ticket];
            *used.entry(purchase.user_id.0).or_default() += purchase.point.get();
        }
        for (request, answer) in self.service.calls.answered("/user", 201) {
            let id = answer.body["id"].as_i64().unwrap();
            let registered = request.body["points"].as_i64().unwrap();
            let balance = self.books.users[&UserId(id)].balance.get();
            let expected = registered - used.get(&id).unwrap_or(&0);
            assert_eq!(balance, expected, "points of user {id}");
        }
    }

    fn charge_of(&self, payment: &PaymentRecord) -> Option<&Charge> {
        let key = payment.pg_payment_id.as_ref()?;
        let order = payment.payment_id.to_string();
        self.charges.get(key).filter(|charge| charge.order == order)
    }

    fn owns(&self, ticket: TicketId) -> bool {
        let ticket = self.books.tickets.get(&ticket);
        ticket.is_some_and(|ticket| ticket.status == TicketStatus::Reserved)
    }
}

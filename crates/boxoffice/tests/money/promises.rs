//! What must hold when nothing moves any more: what the buyers were told, our books, and the gateway's agree.

use std::collections::{BTreeMap, BTreeSet};

use boxoffice::audit::{Books, audit};
use contract::{
    PaymentId, TicketId, UserId,
    domain::{PaymentStatus, TicketStatus},
};
use payment::record::{PaymentRecord, Refund};

use crate::{gateway::Charge, house::House, operator, rest::AllBooks};

/// Everything that is compared.
struct Compared<'a> {
    house: &'a House,
    books: &'a Books,
    charges: BTreeMap<String, Charge>,
}

pub async fn hold(house: &House, all: &AllBooks) {
    let compared = Compared {
        house,
        books: &all.books,
        charges: house.gateway.charges(),
    };
    operator::nothing_else_is_parked(all);
    assert_eq!(all.webhooks_ignored, 0, "the gateway's own webhooks");
    compared.the_books_are_equal();
    compared.every_payment_is_where_its_charge_is();
    compared.every_charge_is_where_its_payment_is();
    compared.nobody_was_charged_twice(all);
    compared.no_attempt_had_two_keys();
    compared.every_ticket_has_its_money();
    compared.who_was_told_of_a_decline_was_not_charged();
    compared
        .who_was_told_of_success_knows_what_became_of_it()
        .await;
    compared.what_was_released_is_gone();
    compared.who_gave_a_ticket_back_has_the_money().await;
    compared.points_are_where_they_belong();
    let report = audit(house.path()).unwrap();
    assert_eq!(report.violations, []);
}

impl Compared<'_> {
    /// Charged minus refunded, what succeeded, and what tickets were paid with: the same, to the won.
    fn the_books_are_equal(&self) {
        let gateway = self.house.gateway.books();
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
            "held at the gateway, against what succeeded here and what tickets were paid with"
        );
        assert!(valid > 0, "nobody bought anything");
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

    /// No charge without a ticket, and no account that still waits for money which nobody wants.
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
        for order in self.house.gateway.books().orders_charged_twice {
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

    /// What is not clear is asked again with the same key: a new one stands for a new attempt.
    fn no_attempt_had_two_keys(&self) {
        for (order, keys) in self.house.gateway.confirm_keys() {
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

    fn who_was_told_of_a_decline_was_not_charged(&self) {
        for (ask, told) in self.house.ledger.told("/payment/confirmed", 200) {
            let key = told.text("pgPaymentId").unwrap();
            let charge = self.charges.get(key);
            let is_charged = charge.is_some_and(|charge| charge.charged > 0);
            let is_declined = told.body["succeeded"] == false;
            assert!(
                !(is_declined && is_charged),
                "{ask:?} was told {told:?}, and was charged: {charge:?}"
            );
        }
    }

    /// A ticket; or the purchase says that the money has gone back, and why.
    async fn who_was_told_of_success_knows_what_became_of_it(&self) {
        for (ask, told) in self.house.ledger.told("/payment/confirmed", 200) {
            if told.body["succeeded"] == false {
                continue;
            }
            let id: PaymentId = ask.body["paymentId"].as_str().unwrap().parse().unwrap();
            let payment = &self.books.payments[&id];
            if self.owns(payment.ticket_id) {
                continue;
            }
            let path = format!("/ticketing/process/{}", payment.ticket_id);
            let progress = self.house.get(&path).await;
            let said = (
                progress.text("failure"),
                progress.text("paymentStatus"),
                progress.text("refund"),
            );
            let refunded = (Some("PAYMENT_REFUNDED"), Some("CANCELLED"), Some("DONE"));
            assert_eq!(said, refunded, "{payment:?} shows as {progress:?}");
            let reason = progress.text("failureDetail").unwrap_or_default();
            assert!(!reason.is_empty(), "no reason: {progress:?}");
        }
    }

    fn what_was_released_is_gone(&self) {
        for ticket in self.house.ledger.released() {
            let id: TicketId = ticket.parse().unwrap();
            let is_there = self.owns(id) || self.books.reservations.contains_key(&id);
            assert!(!is_there, "{ticket} was released");
        }
    }

    /// Only the money of a virtual account may be refused, where nobody said where to: then the ticket stays.
    async fn who_gave_a_ticket_back_has_the_money(&self) {
        let given_back = self.books.tickets.values().filter(|it| it.cancellation > 0);
        for ticket in given_back {
            let payment = &self.books.payments[&ticket.payment_id];
            let path = format!("/ticket/{}/cancel", ticket.ticket_id);
            let told = self.house.get(&path).await;
            let is_account = self.charge_of(payment).is_some_and(|it| it.is_account);
            let is_refused = told.text("sagaState") == Some("COMPENSATED")
                && is_account
                && payment.refund_account.is_none();
            let is_done =
                told.text("sagaState") == Some("COMPLETED") && !self.owns(ticket.ticket_id);
            assert!(is_refused || is_done, "{told:?}\n{ticket:?}\n{payment:?}");
        }
    }

    /// A balance is what its user was registered with, less the points that tickets were paid with.
    fn points_are_where_they_belong(&self) {
        let mut used: BTreeMap<i64, i64> = BTreeMap::new();
        for ticket in self.books.tickets.keys().filter(|it| self.owns(**it)) {
            let purchase = &self.books.purchases[ticket];
            *used.entry(purchase.user_id.0).or_default() += purchase.point.get();
        }
        for (ask, told) in self.house.ledger.told("/user", 201) {
            let id = told.body["id"].as_i64().unwrap();
            let registered = ask.body["points"].as_i64().unwrap();
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

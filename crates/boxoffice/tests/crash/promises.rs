//! Invariants: the answers to clients, the books of the services and the books of the gateway agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use boxoffice::audit::Books;
use contract::{
    PaymentId, TicketId, Timestamp, UserId,
    domain::{PaymentStatus, TicketStatus},
};
use messaging::Snapshot;
use payment::record::Refund;
use reqwest::Method;
use saga::SagaState;
use serde_json::Value;
use test_support::{Polling, api::ApiRequest, calls::CallLog, eventually};
use web::idempotency::{AnswerRecord, record_key};

use crate::server::{HOLD_GRACE_SECS, TIMEOUT};

/// How often the folder of a running server is polled.
const AUDIT_INTERVAL: Duration = Duration::from_millis(100);

pub fn read(folder: &Path) -> Books {
    Books::read(&Snapshot::open(boxoffice::backends::data_folder(folder)).unwrap()).unwrap()
}

/// Waits until no saga is open, no message or payment is pending and no reservation waits.
pub async fn wait_until_idle(folder: &Path) {
    let polling = Polling {
        interval: AUDIT_INTERVAL,
        timeout: TIMEOUT,
    };
    let counts = eventually(polling, "nothing is pending", async || {
        let books = read(folder);
        let counts = books.counts();
        let at_gateway = books.payments.values().filter(|payment| {
            payment.status == PaymentStatus::Confirming || payment.refund == Refund::Requested
        });
        let open = [
            ("sagas", counts.open_sagas),
            ("messages", counts.messages_under_way),
            ("dead letters", counts.open_dead_letters),
            ("reservations", counts.waiting_reservations),
            ("payments at the gateway", at_gateway.count()),
        ];
        let is_idle = open.iter().all(|(_, count)| *count == 0);
        if is_idle {
            Ok(counts)
        } else {
            Err(format!("{open:?}"))
        }
    })
    .await;
    assert_eq!((counts.parked_sagas, counts.parked_refunds), (0, 0));
}

/// Everything that was answered is in the books, at any moment.
pub fn answers_stand(calls: &CallLog, books: &Books, now: Timestamp) {
    let releases = calls.releases();
    for (request, answer) in calls.answered("/ticketing/reserve", 200) {
        let ticket = ticket(&answer.body);
        let expires_at: Timestamp = text(&answer.body, "expiresAt").parse().unwrap();
        let may_be_gone = now >= expires_at.plus_secs(HOLD_GRACE_SECS)
            || releases.contains_key(&ticket.to_string())
            || saga_state(books, ticket) == Some(SagaState::Compensated);
        let is_there =
            books.reservations.contains_key(&ticket) || books.tickets.contains_key(&ticket);
        assert!(
            is_there || may_be_gone,
            "{request:?} was answered {answer:?}, and it is lost"
        );
    }
    for (request, _) in calls.answered("/ticketing/process", 202) {
        let is_there = books.purchases.contains_key(&ticket(&request.body));
        assert!(is_there, "{request:?} was accepted, and it is lost");
    }
}

/// Invariants that hold once nothing is pending.
pub fn hold(calls: &CallLog, folder: &Path) {
    let books = read(folder);
    let charges = charges(folder);
    purchases_have_ended(calls, &books);
    payments_are_as_told(calls, &books, &charges);
    what_was_released_is_gone(calls, &books);
    what_was_to_be_cancelled_is_cancelled(calls, &books);
    money_is_where_it_belongs(&books, &charges);
    points_are_where_they_belong(calls, &books);
}

fn purchases_have_ended(calls: &CallLog, books: &Books) {
    for (request, _) in calls.answered("/ticketing/process", 202) {
        let state = saga_state(books, ticket(&request.body));
        assert!(
            state.is_some_and(SagaState::is_terminal),
            "{request:?} is {state:?}"
        );
    }
}

/// A buyer whose payment was answered as succeeded has the ticket, or has released or cancelled it and has the money
/// back. A buyer whose payment was answered as declined was not charged.
fn payments_are_as_told(calls: &CallLog, books: &Books, charges: &BTreeMap<String, Charge>) {
    let (releases, cancellations) = (calls.releases(), calls.cancellations());
    for (request, answer) in calls.answered("/payment/confirmed", 200) {
        let id: PaymentId = text(&request.body, "paymentId").parse().unwrap();
        let payment = &books.payments[&id];
        if answer.body["succeeded"] == true {
            let is_kept =
                payment.status == PaymentStatus::Succeeded && owns(books, payment.ticket_id);
            let ticket = payment.ticket_id.to_string();
            let is_given_back = payment.status == PaymentStatus::Cancelled
                && (releases.contains_key(&ticket) || cancellations.contains_key(&ticket));
            assert!(
                is_kept || is_given_back,
                "{request:?} was answered {answer:?}: {payment:?}"
            );
        } else {
            let key = text(&request.body, "pgPaymentId");
            let is_charged = charges.values().any(|charge| charge.payment_key == key);
            assert!(
                !is_charged,
                "{request:?} was answered {answer:?}, and was charged"
            );
        }
    }
}

fn what_was_released_is_gone(calls: &CallLog, books: &Books) {
    for (ticket, is_done) in calls.releases() {
        let id: TicketId = ticket.parse().unwrap();
        let is_there = books.reservations.contains_key(&id) || owns(books, id);
        assert!(!(is_done && is_there), "{ticket} was released");
    }
}

/// The gateway refuses no refund here: after an accepted cancellation the money is refunded and the ticket cancelled.
fn what_was_to_be_cancelled_is_cancelled(calls: &CallLog, books: &Books) {
    for (ticket, is_accepted) in calls.cancellations() {
        let id: TicketId = ticket.parse().unwrap();
        let (ticket, payment) = (
            &books.tickets[&id],
            &books.payments[&PaymentId::of_saga(id.purchase_saga())],
        );
        let is_cancelled =
            (ticket.status, payment.status) == (TicketStatus::Cancelled, PaymentStatus::Cancelled);
        assert!(is_cancelled || !is_accepted, "{ticket:?} {payment:?}");
    }
}

/// No charge without a ticket or a refund, and no ticket without its charge.
fn money_is_where_it_belongs(books: &Books, charges: &BTreeMap<String, Charge>) {
    for (order, charge) in charges {
        let payment = &books.payments[&order.parse::<PaymentId>().unwrap()];
        assert_eq!(
            charge.total_amount,
            payment.final_amount.get(),
            "{payment:?}"
        );
        let expected = match payment.status {
            PaymentStatus::Succeeded => ("DONE", charge.total_amount, true),
            PaymentStatus::Cancelled => ("CANCELED", 0, false),
            _ => panic!("{charge:?} was charged for {payment:?}"),
        };
        let has_ticket = owns(books, payment.ticket_id);
        let found = (charge.status.as_str(), charge.balance_amount, has_ticket);
        assert_eq!(found, expected, "{payment:?}");
    }
    for payment in books.payments.values() {
        let is_taken = payment.status == PaymentStatus::Succeeded && payment.final_amount.get() > 0;
        let is_charged = charges.contains_key(&payment.payment_id.to_string());
        assert!(is_charged || !is_taken, "no charge for {payment:?}");
    }
}

/// A balance equals the granted points minus the points that paid for tickets.
fn points_are_where_they_belong(calls: &CallLog, books: &Books) {
    let mut used: BTreeMap<i64, i64> = BTreeMap::new();
    for ticket in books.tickets.keys().filter(|ticket| owns(books, **ticket)) {
        let purchase = &books.purchases[ticket];
        *used.entry(purchase.user_id.0).or_default() += purchase.point.get();
    }
    let mut granted: BTreeMap<String, i64> = BTreeMap::new();
    for (request, answer) in calls.final_answers() {
        if answer.status == 200 && request.path.ends_with("/points") {
            *granted.entry(request.path).or_default() += request.body["amount"].as_i64().unwrap();
        }
    }
    let unanswered: BTreeSet<String> = calls
        .unanswered()
        .into_iter()
        .map(|request| request.path)
        .collect();
    for (request, answer) in calls.answered("/user", 201) {
        let id = answer.body["id"].as_i64().unwrap();
        let grants = format!("/user/{id}/points");
        let registered = request.body["points"].as_i64().unwrap();
        let expected =
            registered + granted.get(&grants).unwrap_or(&0) - used.get(&id).unwrap_or(&0);
        let balance = books.users[&UserId(id)].balance.get();
        // An unanswered grant may or may not have been made.
        assert!(
            balance == expected || unanswered.contains(&grants),
            "user {id}: {balance} is not {expected}"
        );
    }
}

/// A server that stopped on SIGTERM has answered every request that took effect.
pub fn nothing_was_done_unanswered(calls: &CallLog, folder: &Path) {
    let mut answered = Vec::new();
    let snapshot = Snapshot::open(boxoffice::backends::data_folder(folder)).unwrap();
    snapshot
        .each(|it: AnswerRecord| answered.push(it.key))
        .unwrap();
    assert!(!answered.is_empty());
    for request in calls.unanswered() {
        assert!(
            !answered.contains(&saved_key(&request)),
            "{request:?} was done and not answered"
        );
    }
}

/// The key under which the server saves the answer to this request.
fn saved_key(request: &ApiRequest) -> String {
    let caller = request.body["userId"].as_i64().map(UserId);
    record_key(&Method::POST, &request.path, caller, &request.key)
}

/// A charge in the books of the gateway.
#[derive(Debug)]
struct Charge {
    payment_key: String,
    status: String,
    total_amount: i64,
    balance_amount: i64,
}

/// Charges by order.
fn charges(folder: &Path) -> BTreeMap<String, Charge> {
    let connection = rusqlite::Connection::open(folder.join("gateway.db")).unwrap();
    let text = "SELECT order_id, payment_key, status, total_amount, balance_amount FROM charge";
    let mut statement = connection.prepare(text).unwrap();
    let rows = statement.query_map((), |row| {
        let charge = Charge {
            payment_key: row.get(1)?,
            status: row.get(2)?,
            total_amount: row.get(3)?,
            balance_amount: row.get(4)?,
        };
        Ok((row.get(0)?, charge))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

fn owns(books: &Books, ticket: TicketId) -> bool {
    let ticket = books.tickets.get(&ticket);
    ticket.is_some_and(|ticket| ticket.status == TicketStatus::Reserved)
}

fn saga_state(books: &Books, ticket: TicketId) -> Option<SagaState> {
    let saga = books.sagas.get(&ticket.purchase_saga());
    saga.map(|saga| saga.state)
}

fn ticket(value: &Value) -> TicketId {
    text(value, "ticketId").parse().unwrap()
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field]
        .as_str()
        .unwrap_or_else(|| panic!("no {field} in {value}"))
}

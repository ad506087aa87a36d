//! Payments whose money goes back, whoever wanted it: their tickets go with them, and their buyers are told.

use contract::{
    UserId, domain,
    domain::{DomainMessage, PaymentStatus, Refund, TicketStatus},
};
use messaging::{Commit, Find, Record};
use ticketing::refund::PurchaseRefund;

use crate::house::{EVENT, House, cancelled, paid, payment};

#[tokio::test]
async fn a_payment_that_is_cancelled_at_the_gateway_takes_its_ticket_with_it() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.bought(1).await;

    for version in [4, 5] {
        house.hear(&cancelled(ticket, 1, version)).await;
        assert_eq!(
            house.ticket_status(ticket).await,
            Some(TicketStatus::Cancelled)
        );
        assert_eq!(house.check_books().await, 0);
        assert_eq!(house.stats().await.available, 1);
    }
    let told: Vec<DomainMessage<domain::Ticket>> = house.published();
    let told: Vec<_> = told.iter().map(|it| it.payload.status).collect();
    assert_eq!(told, [TicketStatus::Reserved, TicketStatus::Cancelled]);
    house.restart().await;
    assert_eq!(house.check_books().await, 0);
    house.bought(1).await;
}

#[tokio::test]
async fn an_older_word_that_the_payment_succeeded_issues_no_ticket_again() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.bought(1).await;
    house.hear(&cancelled(ticket, 1, 5)).await;

    house.hear(&paid(ticket, 1, 4)).await;

    assert_eq!(
        house.ticket_status(ticket).await,
        Some(TicketStatus::Cancelled)
    );
    assert_eq!(house.stats().await.available, 1, "nothing was taken again");
    assert_eq!(house.check_books().await, 0);
}

#[tokio::test]
async fn a_payment_that_succeeds_and_is_cancelled_within_one_batch_leaves_nothing() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.purchase(1).await;
    house.say(&paid(ticket, 1, 3)).await;
    house.hear(&cancelled(ticket, 1, 4)).await;
    assert_eq!(
        house.ticket_status(ticket).await,
        Some(TicketStatus::Cancelled)
    );
    assert_eq!(house.check_books().await, 0);
    assert_eq!(house.stats().await.available, 1);
}

#[tokio::test]
async fn a_payment_that_is_cancelled_before_it_was_kept_frees_its_reservation() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.purchase(1).await;
    house.hear(&cancelled(ticket, 1, 3)).await;
    assert_eq!(house.ticket_status(ticket).await, None);
    assert_eq!(house.stats().await.available, 1);
    house.hear(&paid(ticket, 1, 2)).await;
    assert_eq!(house.ticket_status(ticket).await, None);
    assert_eq!(house.check_books().await, 0);
}

#[tokio::test]
async fn a_ticket_given_back_is_not_sold_again_beyond_what_is_offered_by_now() {
    let mut house = House::with_quantity(3).await;
    let tickets = [
        house.bought(1).await,
        house.bought(2).await,
        house.bought(3).await,
    ];
    house.event(1, 2).await;
    for (given_back, expected) in [(0, 2), (1, 1), (2, 1)] {
        let user = i64::try_from(given_back).unwrap() + 1;
        house.hear(&cancelled(tickets[given_back], user, 4)).await;
        house.check_books().await;
        assert_eq!(house.stats().await.quantity, expected);
    }
    assert_eq!(house.stats().await.available, 1);
    house.restart().await;
    assert_eq!(house.stats().await.available, 1);
}

#[tokio::test]
async fn the_buyer_is_told_what_becomes_of_the_money() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.purchase(1).await;
    for (version, refund, failure) in [
        (3, Refund::Requested, "PAYMENT_REFUND_REQUESTED"),
        (4, Refund::Parked, "PAYMENT_REFUND_PARKED"),
        (5, Refund::Done, "PAYMENT_REFUNDED"),
    ] {
        let told = payment(ticket, 1, version, (PaymentStatus::Cancelled, refund));
        house.hear(&told).await;
        let process = house.process(ticket).await;
        assert_eq!(process["failure"], failure);
        assert_eq!(process["failureDetail"], "a reason");
        assert_eq!(process["paymentStatus"], "CANCELLED");
        assert_eq!(
            process["refund"],
            failure_word(refund),
            "in the payment's own words"
        );
        assert_eq!(process["sagaState"], "COMPLETED");
        assert_eq!(process.get("finalAmount"), None, "it cannot be paid");
        assert_eq!(process.get("ticketStatus"), None);
    }
    let older = payment(ticket, 1, 4, (PaymentStatus::Cancelled, Refund::Parked));
    house.hear(&older).await;
    assert_eq!(house.process(ticket).await["failure"], "PAYMENT_REFUNDED");
}

fn failure_word(refund: Refund) -> serde_json::Value {
    serde_json::to_value(refund).unwrap()
}

#[tokio::test]
async fn an_ordinary_purchase_leaves_no_word_of_a_refund() {
    let mut house = House::with_quantity(1).await;
    let ticket = house.bought(1).await;
    let rows: Vec<PurchaseRefund> = house
        .store
        .find(Find::all(PurchaseRefund::TABLE, 10))
        .await
        .unwrap();
    assert_eq!(rows, []);
    let process = house.process(ticket).await;
    assert_eq!(process["ticketStatus"], "RESERVED");
    assert_eq!(process["finalAmount"], 70);
    for absent in ["paymentStatus", "refund", "failure", "failureDetail"] {
        assert_eq!(process.get(absent), None, "{absent}");
    }
    let reserving = house.service.reserving(EVENT, UserId(1));
    let refused = house.service.reserve(reserving, Commit::new()).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "this user has a ticket already"
    );
}

//! Refunded payments: their tickets are cancelled, and their buyers can follow the refund.

use contract::{
    domain,
    domain::{DomainMessage, PaymentStatus, Refund, TicketStatus},
};
use messaging::{Find, Record};
use ticketing::refund::PurchaseRefund;

use crate::test_app::{TestApp, cancelled, paid, payment};

#[tokio::test]
async fn a_payment_that_is_cancelled_at_the_gateway_cancels_its_ticket() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.buy(1).await;

    for version in [4, 5] {
        app.deliver(&cancelled(ticket, 1, version)).await;
        assert_eq!(
            app.ticket_status(ticket).await,
            Some(TicketStatus::Cancelled)
        );
        assert_eq!(app.check_consistency().await, 0);
        assert_eq!(app.stats().await.available, 1);
    }
    let published: Vec<DomainMessage<domain::Ticket>> = app.published();
    let statuses: Vec<_> = published.iter().map(|it| it.payload.status).collect();
    assert_eq!(statuses, [TicketStatus::Reserved, TicketStatus::Cancelled]);
    app.restart().await;
    assert_eq!(app.check_consistency().await, 0);
    app.buy(1).await;
}

#[tokio::test]
async fn an_older_success_of_a_cancelled_payment_issues_no_ticket() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.buy(1).await;
    app.deliver(&cancelled(ticket, 1, 5)).await;

    app.deliver(&paid(ticket, 1, 4)).await;

    assert_eq!(
        app.ticket_status(ticket).await,
        Some(TicketStatus::Cancelled)
    );
    assert_eq!(app.stats().await.available, 1, "nothing was retaken");
    assert_eq!(app.check_consistency().await, 0);
}

#[tokio::test]
async fn a_payment_that_succeeds_and_is_cancelled_within_one_batch_leaves_no_claim() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase(1).await;
    app.publish(&paid(ticket, 1, 3)).await;
    app.deliver(&cancelled(ticket, 1, 4)).await;
    assert_eq!(
        app.ticket_status(ticket).await,
        Some(TicketStatus::Cancelled)
    );
    assert_eq!(app.check_consistency().await, 0);
    assert_eq!(app.stats().await.available, 1);
}

#[tokio::test]
async fn a_payment_that_is_cancelled_before_its_success_arrives_releases_its_reservation() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase(1).await;
    app.deliver(&cancelled(ticket, 1, 3)).await;
    assert_eq!(app.ticket_status(ticket).await, None);
    assert_eq!(app.stats().await.available, 1);
    app.deliver(&paid(ticket, 1, 2)).await;
    assert_eq!(app.ticket_status(ticket).await, None);
    assert_eq!(app.check_consistency().await, 0);
}

#[tokio::test]
async fn a_returned_ticket_is_not_sold_again_beyond_the_lowered_quantity() {
    let mut app = TestApp::with_quantity(3).await;
    let tickets = [app.buy(1).await, app.buy(2).await, app.buy(3).await];
    app.event(1, 2).await;
    for (returned, expected) in [(0, 2), (1, 1), (2, 1)] {
        let user = i64::try_from(returned).unwrap() + 1;
        app.deliver(&cancelled(tickets[returned], user, 4)).await;
        app.check_consistency().await;
        assert_eq!(app.stats().await.quantity, expected);
    }
    assert_eq!(app.stats().await.available, 1);
    app.restart().await;
    assert_eq!(app.stats().await.available, 1);
}

#[tokio::test]
async fn the_buyer_can_follow_the_refund() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase(1).await;
    for (version, refund, failure) in [
        (3, Refund::Requested, "PAYMENT_REFUND_REQUESTED"),
        (4, Refund::Parked, "PAYMENT_REFUND_PARKED"),
        (5, Refund::Done, "PAYMENT_REFUNDED"),
    ] {
        let message = payment(ticket, 1, version, (PaymentStatus::Cancelled, refund));
        app.deliver(&message).await;
        let progress = app.progress(ticket).await;
        assert_eq!(progress["failure"], failure);
        assert_eq!(progress["failureDetail"], "a reason");
        assert_eq!(progress["paymentStatus"], "CANCELLED");
        assert_eq!(
            progress["refund"],
            failure_word(refund),
            "the same word as in the payment"
        );
        assert_eq!(progress["sagaState"], "COMPLETED");
        assert_eq!(progress.get("finalAmount"), None, "it cannot be paid");
        assert_eq!(progress.get("ticketStatus"), None);
    }
    let older = payment(ticket, 1, 4, (PaymentStatus::Cancelled, Refund::Parked));
    app.deliver(&older).await;
    assert_eq!(app.progress(ticket).await["failure"], "PAYMENT_REFUNDED");
}

fn failure_word(refund: Refund) -> serde_json::Value {
    serde_json::to_value(refund).unwrap()
}

#[tokio::test]
async fn a_purchase_without_a_refund_stores_none() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.buy(1).await;
    let rows: Vec<PurchaseRefund> = app
        .store
        .find(Find::all(PurchaseRefund::TABLE, 10))
        .await
        .unwrap();
    assert_eq!(rows, []);
    let progress = app.progress(ticket).await;
    assert_eq!(progress["ticketStatus"], "RESERVED");
    assert_eq!(progress["finalAmount"], 70);
    for absent in ["paymentStatus", "refund", "failure", "failureDetail"] {
        assert_eq!(progress.get(absent), None, "{absent}");
    }
    let refused = app.reserve(1).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "this user has a ticket already"
    );
}

//! Redis loses its data in the middle of purchases.

use contract::{Money, Points, UserId, payment::CancelRequest};
use messaging::Commit;
use ticketing::{model::Purchase, process::ProcessInput};

use crate::test_app::{EVENT, TestApp, cancelled, paid, process_body, reserve_body};

impl TestApp {
    async fn lose(&self) {
        crate::backend::lose(&self.settings).await;
    }
}

#[tokio::test]
async fn completed_claims_and_open_purchases_survive_a_loss() {
    let mut app = TestApp::with_quantity(4).await;
    let bought = app.buy(1).await;
    let waits = app.purchase(2).await;
    let cancelled_ticket = app.buy(3).await;
    app.deliver(&cancelled(cancelled_ticket, 3, 4)).await;
    let released = app.purchase(4).await;
    app.service.release(released, None).await.unwrap();
    app.run_workers().await;
    let before = app.stats().await;

    app.lose().await;

    assert_eq!(app.stats().await, before);
    let find = |user| app.service.reservations().find(EVENT, UserId(user));
    assert_eq!(find(1).await.unwrap().unwrap().ticket_id, bought);
    assert_eq!(find(2).await.unwrap().unwrap().ticket_id, waits);
    assert_eq!(find(3).await.unwrap(), None);
    assert_eq!(find(4).await.unwrap(), None);

    app.deliver(&paid(waits, 2, 3)).await;
    assert_eq!(app.check_consistency().await, 2);
}

#[tokio::test]
async fn a_payment_that_succeeds_while_redis_is_empty_gets_its_ticket() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase(1).await;

    app.lose().await;
    app.deliver(&paid(ticket, 1, 3)).await;

    app.check_issued(ticket).await;
    assert_eq!(app.check_consistency().await, 1);
}

#[tokio::test]
async fn a_reservation_without_a_purchase_is_lost_and_its_buyer_reserves_again() {
    let app = TestApp::with_quantity(1).await;
    let ticket_id = app.reserve(1).await.unwrap();

    app.lose().await;
    assert_eq!(app.stats().await.available, 1);

    let body = process_body(ticket_id, 1);
    app.post_refused("/ticketing/process", body, 404, "RESERVATION_NOT_FOUND")
        .await;
    app.reserve(1).await.unwrap();
}

#[tokio::test]
async fn requests_are_refused_with_a_code_while_an_event_is_rebuilt() {
    let app = TestApp::with_quantity(1).await;
    app.lose().await;

    let (path, body) = ("/ticketing/reserve", reserve_body(1, 1));
    app.post_refused(path, body.clone(), 503, "RESERVATIONS_REBUILDING")
        .await;
    app.stats().await;
    assert_eq!(app.post(path, body.to_string()).await.0, 200);

    app.post_refused(path, reserve_body(2, 1), 404, "EVENT_NOT_FOUND")
        .await;
}

#[tokio::test]
async fn a_lost_claim_that_nobody_requests_expires_and_its_points_are_restored() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase(1).await;
    app.lose().await;

    // The first round finds the loss; the claim stays for a grace period from then.
    app.advance_past_expiry();
    app.service.expire_due().await.unwrap();
    assert_eq!(app.stats().await.waiting, 1);
    app.expire(ticket, 1).await;

    assert_eq!(app.stats().await.available, 1);
    assert_eq!(app.progress(ticket).await["failure"], "RESERVATION_EXPIRED");
}

#[tokio::test]
async fn a_purchase_stored_after_its_expiry_and_rebuilt_is_undone_at_its_second_expiry() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket_id = app.reserve(1).await.unwrap();
    // The buyer's request is checked in time, and stored after the claim is gone.
    let input = ProcessInput {
        ticket_id,
        event_id: EVENT,
        user_id: UserId(1),
        total_amount: Money::new(100).unwrap(),
        point: Points::new(30).unwrap(),
    };
    let keep_back = |commit: &mut Commit, _: &Purchase| std::mem::take(commit);
    let start = app.service.process(input, keep_back).await.unwrap();
    app.expire_claims().await;
    app.store.commit(start).await.unwrap();

    // Redis is rebuilt from what is stored, so the claim waits again and the purchase goes on.
    app.lose().await;
    assert_eq!(app.stats().await.waiting, 1);
    app.run_workers().await;
    app.approve_checks(ticket_id, UserId(1)).await;
    app.create_payment(ticket_id, 1).await;
    assert_eq!(app.progress(ticket_id).await["sagaState"], "COMPLETED");

    app.expire(ticket_id, 1).await;

    let answer = app.progress(ticket_id).await;
    assert_eq!(answer["failure"], "RESERVATION_EXPIRED", "{answer}");
    assert_eq!(answer["paymentId"], serde_json::Value::Null);
    assert_eq!(app.stats().await.available, 1);
}

#[tokio::test]
async fn a_ticket_that_is_kept_for_an_open_attempt_survives_a_loss() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase(1).await;
    app.expire_claims().await;

    app.lose().await;
    assert_eq!(app.stats().await.waiting, 1);
    app.clock.advance_millis(600_000);
    app.service.expire_due().await.unwrap();
    app.run_workers().await;
    assert_eq!(app.stats().await.waiting, 1);

    app.deliver(&paid(ticket, 1, 3)).await;
    assert_eq!(app.check_consistency().await, 1);
}

#[tokio::test]
async fn no_ticket_is_sold_twice_after_redis_lost_the_paid_claims() {
    let mut app = TestApp::with_quantity(1).await;
    let ticket = app.purchase(1).await;
    app.expire(ticket, 1).await;
    let next = app.purchase(2).await;
    app.publish(&paid(next, 2, 3)).await;
    app.lose().await;
    app.publish(&paid(ticket, 1, 3)).await;
    app.run_workers().await;

    app.check_issued(next).await;
    assert_eq!(app.ticket_status(ticket).await, None);
    assert_eq!(app.published::<CancelRequest>().len(), 1);
    assert_eq!(app.check_consistency().await, 1);
}

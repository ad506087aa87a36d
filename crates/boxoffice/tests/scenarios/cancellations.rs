//! Cancellation of a ticket: it is done completely or not at all.

use serde_json::{Value, json};

use crate::{
    actions::{Purchase, entries, stock},
    gateway::GatewayMode,
    test_app::{TestApp, on_every_deployment},
};

/// Buys a ticket for 700 won and 300 points.
async fn bought(app: &TestApp, event: i64, user: i64, card: &str) -> Purchase {
    let purchase = app.purchase(event, user, 300).await;
    app.paid(&purchase, card).await;
    app.wait_until_idle().await;
    purchase
}

fn refusing(code: &str) -> Value {
    json!([{ "on": "cancel", "times": 1, "fault": { "refuse": { "code": code } } }])
}

#[tokio::test]
async fn a_cancelled_ticket_returns_money_points_and_stock_and_can_be_bought_again() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let first = bought(app, event, user, "card-1").await;
        let begun = app.cancel(&first).await.ok(202);
        assert_eq!(begun["cancellation"], 1);
        let done = app.cancellation_becomes(&first, "COMPLETED").await;
        assert_eq!(done["sagaId"], begun["sagaId"]);

        app.is_refunded(&first, "card-1").await;
        app.ticket_becomes(&first, "CANCELLED").await;
        assert_eq!(app.stock(event).await, stock(1, 0, 0, 1));
        let ledger = app.ledger(user).await;
        assert_eq!(ledger.last(), entries(&[("RESTORED", 300, 300)]).last());
        let path = format!("/ticketing/process/{}", first.ticket);
        let answer = app.get(&path).await.ok(200);
        assert_eq!(
            (&answer["ticketStatus"], &answer["failure"]),
            (&json!("CANCELLED"), &json!("PAYMENT_REFUNDED"))
        );

        // The same buyer may buy again, and then another one.
        let again = bought(app, event, user, "card-2").await;
        assert_ne!(again.ticket, first.ticket);
        app.cancel(&again).await.ok(202);
        app.cancellation_becomes(&again, "COMPLETED").await;
        let next = app.user(300).await;
        bought(app, event, next, "card-3").await;
        app.reserve(event, user).await.refused(409, "SOLD_OUT");
        assert_eq!(app.stock(event).await, stock(1, 0, 1, 0));
    })
    .await;
}

#[tokio::test]
async fn a_ticket_is_cancelled_once_however_often_it_is_requested() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = bought(app, event, user, "card-1").await;
        let path = format!("/ticket/{}/cancel", purchase.ticket);
        let ask = async |key: &str| app.post_with_key(&path, key, &json!({})).await;
        app.gateway.set_mode(GatewayMode::Unreachable);
        let first = ask("one").await;
        assert_eq!(first.status, 202);
        app.wait_until_idle().await;
        ask("two").await.refused(409, "CANCELLATION_IN_PROGRESS");
        let again = ask("one").await;
        assert!(again.is_replayed());
        assert_eq!(again.body, first.body);

        app.gateway.set_mode(GatewayMode::Normal);
        app.cancellation_becomes(&purchase, "COMPLETED").await;
        app.ticket_becomes(&purchase, "CANCELLED").await;
        ask("three").await.refused(409, "TICKET_CANCELLED");
        assert_eq!(ask("one").await.body, first.body);
        app.is_refunded(&purchase, "card-1").await;
        assert_eq!(app.stock(event).await, stock(1, 0, 0, 1));
        let ledger = app.ledger(user).await;
        let restored = ledger.iter().filter(|it| it.0 == "RESTORED");
        assert_eq!(restored.count(), 1);
    })
    .await;
}

#[tokio::test]
async fn if_the_gateway_refuses_the_refund_the_ticket_stays_valid_and_may_be_cancelled_later() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = bought(app, event, user, "card-1").await;
        app.gateway.script(refusing("NOT_CANCELABLE_PAYMENT"));
        app.cancel(&purchase).await.ok(202);
        let refused = app.cancellation_becomes(&purchase, "COMPENSATED").await;
        let failure = refused["failure"].as_str().unwrap();
        assert!(failure.contains("NOT_CANCELABLE_PAYMENT"), "{failure}");

        app.is_bought(&purchase, "card-1").await;
        assert_eq!(app.stock(event).await, stock(1, 0, 1, 0));
        assert_eq!(app.points(user).await, 0);
        let path = format!("/ticketing/process/{}", purchase.ticket);
        let answer = app.get(&path).await.ok(200);
        assert_eq!(answer.get("failure"), None, "{answer}");

        let again = app.cancel(&purchase).await.ok(202);
        assert_eq!(again["cancellation"], 2);
        app.cancellation_becomes(&purchase, "COMPLETED").await;
        app.is_refunded(&purchase, "card-1").await;
        app.points_become(user, 300).await;
    })
    .await;
}

#[tokio::test]
async fn an_unanswered_refund_is_parked_visibly_and_a_late_answer_completes_it() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = bought(app, event, user, "card-1").await;
        app.gateway.set_mode(GatewayMode::Unreachable);
        let begun = app.cancel(&purchase).await.ok(202);
        let path = format!("/saga/{}", begun["sagaId"].as_str().unwrap());
        app.advance_until(&path, |it| it["parked"].is_string())
            .await;
        let listed = app.get("/saga?state=PARKED").await.ok(200);
        assert_eq!(listed["items"][0]["sagaId"], begun["sagaId"]);
        let progress = app
            .get(&format!("/ticket/{}/cancel", purchase.ticket))
            .await
            .ok(200);
        assert!(progress["failure"].is_string(), "{progress}");
        app.ticket_becomes(&purchase, "RESERVED").await;
        let again = app.cancel(&purchase).await;
        again.refused(409, "CANCELLATION_IN_PROGRESS");

        app.gateway.set_mode(GatewayMode::Normal);
        app.cancellation_becomes(&purchase, "COMPLETED").await;
        app.is_refunded(&purchase, "card-1").await;
        app.points_become(user, 300).await;
        app.stock_becomes(event, stock(1, 0, 0, 1)).await;
    })
    .await;
}

#[tokio::test]
async fn a_ticket_paid_with_points_is_refunded_without_the_gateway() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(1000).await);
        let purchase = app.purchase(event, user, 1000).await;
        app.paid(&purchase, "points").await;
        app.gateway.set_mode(GatewayMode::Unreachable);
        app.cancel(&purchase).await.ok(202);
        app.cancellation_becomes(&purchase, "COMPLETED").await;
        app.ticket_becomes(&purchase, "CANCELLED").await;
        app.points_become(user, 1000).await;
        assert_eq!(app.stock(event).await, stock(1, 0, 0, 1));
    })
    .await;
}

#[tokio::test]
async fn only_the_owner_of_an_existing_ticket_cancels_it() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = bought(app, event, user, "card-1").await;
        let path = format!("/ticket/{}/cancel", purchase.ticket);
        app.get(&path).await.refused(404, "CANCELLATION_NOT_FOUND");
        let stranger = json!({ "userId": app.user(0).await });
        let asked = app.post(&path, stranger).await;
        asked.refused(403, "TICKET_OWNER_MISMATCH");
        let unknown = "/ticket/01a203c8-3eac-7e91-bc6d-5345692e01ca/cancel";
        let asked = app.post(unknown, json!({})).await;
        asked.refused(404, "TICKET_NOT_FOUND");
        let asked = app.post(&path, json!({ "reason": "" })).await;
        assert_eq!(asked.refused(400, "INVALID_REQUEST")["field"], "reason");
        app.is_bought(&purchase, "card-1").await;

        let owner = json!({ "userId": user, "reason": "I am ill" });
        app.post(&path, owner).await.ok(202);
        app.cancellation_becomes(&purchase, "COMPLETED").await;
        app.is_refunded(&purchase, "card-1").await;
    })
    .await;
}

#[tokio::test]
async fn a_ticket_cancelled_at_the_same_time_at_the_gateways_console_is_refunded_once() {
    on_every_deployment(async |app: &mut TestApp| {
        app.receive_webhooks();
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = bought(app, event, user, "card-1").await;
        app.gateway.wait_for_all_webhooks().await;
        app.webhooks_are_applied().await;
        let console = app
            .gateway
            .client
            .try_perform("card-1", "cancel-by-merchant");
        let (asked, _) = tokio::join!(app.cancel(&purchase), console);
        app.gateway.wait_for_all_webhooks().await;
        app.webhooks_are_applied().await;
        // If the console was faster than the buyer's request, the ticket was cancelled already.
        if asked.status == 202 {
            app.cancellation_becomes(&purchase, "COMPLETED").await;
        } else {
            asked.refused(409, "TICKET_CANCELLED");
        }
        app.is_refunded(&purchase, "card-1").await;
        app.ticket_becomes(&purchase, "CANCELLED").await;
        app.points_become(user, 300).await;
        app.stock_becomes(event, stock(1, 0, 0, 1)).await;
    })
    .await;
}

//! Webhooks: stored before they are answered, applied only as far as the gateway confirms them, in any order.

use payment::record::WebhookState;
use serde_json::{Value, json};

use crate::{
    actions::{Purchase, stock},
    gateway::GatewayMode,
    test_app::{TestApp, on_every_deployment},
};

const PATH: &str = "/payment/webhook/toss";

/// A purchase that was charged without an answer to the app.
async fn charged(app: &TestApp, event: i64, card: &str) -> Purchase {
    let purchase = app.purchase(event, app.user(0).await, 0).await;
    app.gateway.set_mode(GatewayMode::LosesAnswers);
    app.pay(&purchase, card).await.ok(202);
    purchase
}

fn data(purchase: &Purchase, card: &str, status: &str) -> Value {
    json!({ "paymentKey": card, "orderId": purchase.payment, "status": status })
}

fn states(app: &TestApp) -> Vec<WebhookState> {
    app.webhooks().into_iter().map(|it| it.state).collect()
}

#[tokio::test]
async fn webhooks_done_and_aborted_in_either_order_end_in_the_gateways_state() {
    on_every_deployment(async |app: &mut TestApp| {
        let event = app.event(2).await;
        for (card, order) in [("a", ["DONE", "ABORTED"]), ("b", ["ABORTED", "DONE"])] {
            let purchase = charged(app, event, card).await;
            for status in order {
                let name = format!("{card}-{status}");
                let answer = app
                    .deliver_webhook(&name, &data(&purchase, card, status))
                    .await;
                answer.ok(200);
            }
            app.gateway.set_mode(GatewayMode::Normal);
            app.webhooks_are_applied().await;
            app.is_bought(&purchase, card).await;
            let history = app.payment_history(&purchase).await;
            assert_eq!(history, ["CREATED", "CONFIRMING", "SUCCEEDED"]);
        }
        app.stock_becomes(event, stock(2, 0, 2, 0)).await;
    })
    .await;
}

#[tokio::test]
async fn duplicate_and_repeated_webhooks_change_nothing_twice() {
    on_every_deployment(async |app: &mut TestApp| {
        app.receive_webhooks();
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = app.purchase(event, user, 300).await;
        app.gateway.script(json!([
            { "on": "webhook", "skip": 1, "fault": { "repeat": { "times": 2 } } },
            { "on": "webhook", "fault": { "duplicate": { "times": 3 } } },
        ]));
        app.paid(&purchase, "card-1").await;
        app.gateway.wait_for_all_webhooks().await;
        app.gateway.perform("card-1", "cancel-by-merchant").await;
        while app.gateway.wait_for_webhooks(1).await > 0 {
            app.advance(60).await;
        }
        app.webhooks_are_applied().await;
        app.is_refunded(&purchase, "card-1").await;
        assert_eq!(app.webhooks().len(), 2, "each is kept once");
        let history = app.payment_history(&purchase).await;
        assert_eq!(history, ["CREATED", "CONFIRMING", "SUCCEEDED", "CANCELLED"]);
        app.points_become(user, 300).await;
        app.stock_becomes(event, stock(1, 0, 0, 1)).await;
    })
    .await;
}

#[tokio::test]
async fn a_webhook_overtaken_by_a_later_one_reverts_nothing() {
    on_every_deployment(async |app: &mut TestApp| {
        app.receive_webhooks();
        app.gateway
            .script(json!([{ "on": "webhook", "times": 1, "fault": "reorder" }]));
        let (event, user) = (app.event(1).await, app.user(300).await);
        let purchase = app.purchase(event, user, 300).await;
        app.paid(&purchase, "card-1").await;
        app.gateway.perform("card-1", "cancel-by-merchant").await;
        app.gateway.wait_for_webhooks(1).await;
        app.webhooks_are_applied().await;
        app.is_refunded(&purchase, "card-1").await;
        while app.gateway.wait_for_webhooks(1).await > 0 {
            app.advance(1).await;
        }
        app.webhooks_are_applied().await;
        let answer: Vec<_> = app
            .webhooks()
            .into_iter()
            .map(|it| it.told_status)
            .collect();
        assert_eq!(answer.len(), 2, "{answer:?}");
        app.is_refunded(&purchase, "card-1").await;
        app.ticket_becomes(&purchase, "CANCELLED").await;
        app.stock_becomes(event, stock(1, 0, 0, 1)).await;
    })
    .await;
}

#[tokio::test]
async fn a_forged_webhook_gives_no_ticket_and_takes_none() {
    on_every_deployment(async |app: &mut TestApp| {
        let event = app.event(2).await;
        let unpaid = app.purchase(event, app.user(0).await, 0).await;
        let paid = app.purchase(event, app.user(0).await, 0).await;
        app.paid(&paid, "card-1").await;
        let claims = [
            ("f1", data(&unpaid, "card-2", "DONE")),
            // Another buyer's charge with this buyer's order.
            ("f2", data(&unpaid, "card-1", "DONE")),
            ("f3", data(&paid, "card-1", "CANCELED")),
            ("f4", data(&paid, "card-9", "CANCELED")),
            ("f5", data(&paid, "../../v1/payments/card-1", "EXPIRED")),
        ];
        for (name, claim) in &claims {
            app.deliver_webhook(name, claim).await.ok(200);
        }
        app.webhooks_are_applied().await;
        assert_eq!(states(app).len(), claims.len());
        assert_eq!(app.payment(&unpaid).await["status"], "CREATED");
        app.has_no_ticket(&unpaid.ticket).await;
        app.is_bought(&paid, "card-1").await;
        assert_eq!(app.stock(event).await, stock(2, 1, 1, 0));
    })
    .await;
}

#[tokio::test]
async fn foreign_webhooks_are_ignored_and_malformed_ones_refused_with_their_field() {
    on_every_deployment(async |app: &mut TestApp| {
        let purchase = {
            let event = app.event(1).await;
            app.purchase(event, app.user(0).await, 0).await
        };
        for body in [
            json!({ "eventType": "PAYOUT_STATUS_CHANGED", "data": {} }),
            json!({ "eventType": "PAYMENT_STATUS_CHANGED",
                "data": { "orderId": "of-another-shop", "status": "DONE" } }),
            json!({ "orderId": "01a203c8-3eac-7e91-bc6d-5345692e01ca", "status": "DONE", "secret": "s" }),
        ] {
            app.post(PATH, body).await.ok(200);
        }
        for (body, field) in [
            (json!({ "eventType": "PAYMENT_STATUS_CHANGED" }), "data.orderId"),
            (json!({ "eventType": 1 }), "eventType"),
            (json!({ "orderId": purchase.payment, "status": "DONE" }), "secret"),
            (json!({ "status": "DONE", "secret": "s" }), "orderId"),
        ] {
            let refused = app.post(PATH, body).await;
            assert_eq!(refused.refused(400, "INVALID_REQUEST")["field"], field);
        }
        let refused = app.post_text(PATH, "{ not json").await;
        refused.refused(400, "INVALID_REQUEST");
        assert_eq!(states(app), []);
    })
    .await;
}

#[tokio::test]
async fn an_answered_webhook_is_applied_after_a_restart() {
    on_every_deployment(async |app: &mut TestApp| {
        app.receive_webhooks();
        let event = app.event(1).await;
        let purchase = charged(app, event, "card-1").await;
        app.gateway.wait_for_all_webhooks().await;
        assert_eq!(states(app), [WebhookState::Received]);
        app.stop().await;
        app.gateway.set_mode(GatewayMode::Normal);
        app.start().await;
        app.webhooks_are_applied().await;
        app.is_bought(&purchase, "card-1").await;
        assert_eq!(states(app), [WebhookState::Handled]);
    })
    .await;
}

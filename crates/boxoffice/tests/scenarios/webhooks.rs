//! What the gateway tells unasked, over HTTP: kept before it is answered, believed only as far as the gateway
//! confirms it, and in no need of any order.

use payment::record::WebhookState;
use serde_json::{Value, json};

use crate::{
    desk::{Purchase, stock},
    gateway::Mood,
    house::{House, play},
};

const PATH: &str = "/payment/webhook/toss";

/// A purchase that was charged, of which the house does not know.
async fn charged(house: &House, event: i64, card: &str) -> Purchase {
    let purchase = house.purchase(event, house.user(0).await, 0).await;
    house.gateway.turn(Mood::Dumb);
    house.pay(&purchase, card).await.ok(202);
    purchase
}

fn data(purchase: &Purchase, card: &str, status: &str) -> Value {
    json!({ "paymentKey": card, "orderId": purchase.payment, "status": status })
}

fn states(house: &House) -> Vec<WebhookState> {
    house.webhooks().into_iter().map(|it| it.state).collect()
}

#[tokio::test]
async fn in_either_order_done_and_aborted_end_in_what_the_gateway_shows() {
    play(async |house: &mut House| {
        let event = house.event(2).await;
        for (card, order) in [("a", ["DONE", "ABORTED"]), ("b", ["ABORTED", "DONE"])] {
            let purchase = charged(house, event, card).await;
            for status in order {
                let name = format!("{card}-{status}");
                let told = house.tell(&name, &data(&purchase, card, status)).await;
                told.ok(200);
            }
            house.gateway.turn(Mood::Well);
            house.webhooks_are_heeded().await;
            house.is_bought(&purchase, card).await;
            let history = house.payment_history(&purchase).await;
            assert_eq!(history, ["CREATED", "CONFIRMING", "SUCCEEDED"]);
        }
        house.stock_becomes(event, stock(2, 0, 2, 0)).await;
    })
    .await;
}

#[tokio::test]
async fn duplicates_and_repetitions_change_nothing_twice() {
    play(async |house: &mut House| {
        house.hear_webhooks();
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = house.purchase(event, user, 300).await;
        house.gateway.script(json!([
            { "on": "webhook", "skip": 1, "fault": { "repeat": { "times": 2 } } },
            { "on": "webhook", "fault": { "duplicate": { "times": 3 } } },
        ]));
        house.paid(&purchase, "card-1").await;
        house.gateway.told_all().await;
        house.gateway.act("card-1", "cancel-by-merchant").await;
        while house.gateway.told(1).await > 0 {
            house.pass(60).await;
        }
        house.webhooks_are_heeded().await;
        house.is_refunded(&purchase, "card-1").await;
        assert_eq!(house.webhooks().len(), 2, "each is kept once");
        let history = house.payment_history(&purchase).await;
        assert_eq!(history, ["CREATED", "CONFIRMING", "SUCCEEDED", "CANCELLED"]);
        house.points_become(user, 300).await;
        house.stock_becomes(event, stock(1, 0, 0, 1)).await;
    })
    .await;
}

#[tokio::test]
async fn a_webhook_that_was_overtaken_by_a_later_one_brings_nothing_back() {
    play(async |house: &mut House| {
        house.hear_webhooks();
        house
            .gateway
            .script(json!([{ "on": "webhook", "times": 1, "fault": "reorder" }]));
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = house.purchase(event, user, 300).await;
        house.paid(&purchase, "card-1").await;
        house.gateway.act("card-1", "cancel-by-merchant").await;
        house.gateway.told(1).await;
        house.webhooks_are_heeded().await;
        house.is_refunded(&purchase, "card-1").await;
        while house.gateway.told(1).await > 0 {
            house.pass(1).await;
        }
        house.webhooks_are_heeded().await;
        let told: Vec<_> = house
            .webhooks()
            .into_iter()
            .map(|it| it.told_status)
            .collect();
        assert_eq!(told.len(), 2, "{told:?}");
        house.is_refunded(&purchase, "card-1").await;
        house.ticket_becomes(&purchase, "CANCELLED").await;
        house.stock_becomes(event, stock(1, 0, 0, 1)).await;
    })
    .await;
}

#[tokio::test]
async fn a_forged_webhook_gives_no_ticket_and_takes_none() {
    play(async |house: &mut House| {
        let event = house.event(2).await;
        let unpaid = house.purchase(event, house.user(0).await, 0).await;
        let paid = house.purchase(event, house.user(0).await, 0).await;
        house.paid(&paid, "card-1").await;
        let claims = [
            ("f1", data(&unpaid, "card-2", "DONE")),
            // Another buyer's charge, in this one's name.
            ("f2", data(&unpaid, "card-1", "DONE")),
            ("f3", data(&paid, "card-1", "CANCELED")),
            ("f4", data(&paid, "card-9", "CANCELED")),
            ("f5", data(&paid, "../../v1/payments/card-1", "EXPIRED")),
        ];
        for (name, claim) in &claims {
            house.tell(name, claim).await.ok(200);
        }
        house.webhooks_are_heeded().await;
        assert_eq!(states(house).len(), claims.len());
        assert_eq!(house.payment(&unpaid).await["status"], "CREATED");
        house.has_no_ticket(&unpaid.ticket).await;
        house.is_bought(&paid, "card-1").await;
        assert_eq!(house.stock(event).await, stock(2, 1, 1, 0));
    })
    .await;
}

#[tokio::test]
async fn what_is_not_ours_is_passed_over_and_what_is_no_webhook_is_refused_by_its_field() {
    play(async |house: &mut House| {
        let purchase = {
            let event = house.event(1).await;
            house.purchase(event, house.user(0).await, 0).await
        };
        for body in [
            json!({ "eventType": "PAYOUT_STATUS_CHANGED", "data": {} }),
            json!({ "eventType": "PAYMENT_STATUS_CHANGED",
                "data": { "orderId": "of-another-shop", "status": "DONE" } }),
            json!({ "orderId": "01a203c8-3eac-7e91-bc6d-5345692e01ca", "status": "DONE", "secret": "s" }),
        ] {
            house.post(PATH, body).await.ok(200);
        }
        for (body, field) in [
            (json!({ "eventType": "PAYMENT_STATUS_CHANGED" }), "data.orderId"),
            (json!({ "eventType": 1 }), "eventType"),
            (json!({ "orderId": purchase.payment, "status": "DONE" }), "secret"),
            (json!({ "status": "DONE", "secret": "s" }), "orderId"),
        ] {
            let refused = house.post(PATH, body).await;
            assert_eq!(refused.refused(400, "INVALID_REQUEST")["field"], field);
        }
        let refused = house.post_text(PATH, "{ not json").await;
        refused.refused(400, "INVALID_REQUEST");
        assert_eq!(states(house), []);
    })
    .await;
}

#[tokio::test]
async fn a_webhook_that_was_answered_serves_after_a_restart() {
    play(async |house: &mut House| {
        house.hear_webhooks();
        let event = house.event(1).await;
        let purchase = charged(house, event, "card-1").await;
        house.gateway.told_all().await;
        assert_eq!(states(house), [WebhookState::Received]);
        house.stop().await;
        house.gateway.turn(Mood::Well);
        house.start().await;
        house.webhooks_are_heeded().await;
        house.is_bought(&purchase, "card-1").await;
        assert_eq!(states(house), [WebhookState::Handled]);
    })
    .await;
}

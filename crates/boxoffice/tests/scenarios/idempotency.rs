//! Idempotency keys: the same request sent twice happens once.

use serde_json::{Value, json};

use crate::{
    actions::{PRICE, confirmation, entries, stock},
    test_app::{TestApp, on_every_deployment},
};

/// Sends a request twice under one key, then another under the same key; returns the first answer.
async fn once(app: &TestApp, path: &str, status: u16, body: Value, other: Value) -> Value {
    let key = "the-same-key";
    let first = app.post_with_key(path, key, &body).await;
    assert!(!first.is_replayed(), "{path}");
    let first = first.ok(status);
    let again = app.post_with_key(path, key, &body).await;
    assert!(again.is_replayed(), "{path}");
    assert_eq!(again.ok(status), first, "{path}");
    let reused = app.post_with_key(path, key, &other).await;
    reused.refused(422, "IDEMPOTENCY_KEY_REUSED");
    first
}

#[tokio::test]
async fn every_request_of_a_purchase_sent_twice_with_one_key_has_one_effect() {
    on_every_deployment(async |app: &mut TestApp| {
        let event = json!({ "name": "Show", "ticketQuantity": 5, "price": PRICE });
        let event = once(app, "/event", 201, event, json!({})).await["id"].as_i64().unwrap();
        app.stock_becomes(event, stock(5, 0, 0, 5)).await;
        let user = json!({ "name": "Buyer", "points": 100 });
        let user = once(app, "/user", 201, user, json!({})).await["id"].as_i64().unwrap();
        let path = format!("/user/{user}/points");
        once(app, &path, 200, json!({ "amount": 200 }), json!({ "amount": 201 })).await;
        assert_eq!(
            app.ledger(user).await,
            entries(&[("GRANTED", 100, 100), ("GRANTED", 200, 300)])
        );
        let listed = app.get("/event").await.ok(200)["items"].as_array().unwrap().len();
        assert_eq!(listed, 1);

        let claim = json!({ "eventId": event, "userId": user });
        let reserved = once(app, "/ticketing/reserve", 200, claim, json!({ "userId": user })).await;
        assert_eq!(app.stock(event).await, stock(5, 1, 0, 4));
        let ticket = reserved["ticketId"].as_str().unwrap();
        let start = json!({
            "ticketId": ticket, "eventId": event, "userId": user, "totalAmount": PRICE, "point": 300,
        });
        once(app, "/ticketing/process", 202, start, json!({ "userId": user })).await;
        let progress = app.progress_becomes(ticket, "COMPLETED").await;
        assert_eq!(app.points(user).await, 0);

        let body = json!({
            "paymentId": progress["paymentId"], "pgPaymentId": "card-1", "amount": 700,
        });
        once(app, "/payment/confirmed", 200, body, json!({})).await;
        app.stock_becomes(event, stock(5, 0, 1, 4)).await;
    })
    .await;
}

#[tokio::test]
async fn a_refusal_and_a_released_reservation_are_decided_again_with_the_same_key() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(1).await, app.user(0).await);
        let held = app.reserved(event, app.user(0).await).await;
        let claim = json!({ "eventId": event, "userId": user });
        let refused = app.post_with_key("/ticketing/reserve", "one", &claim).await;
        refused.refused(409, "SOLD_OUT");
        app.release(&held).await.ok(204);
        let reserve = async || app.post_with_key("/ticketing/reserve", "one", &claim).await;
        let granted = reserve().await;
        assert!(!granted.is_replayed());
        let granted = granted.ok(200);
        let again = reserve().await;
        assert!(again.is_replayed());
        assert_eq!(again.ok(200), granted);

        // The ticket of the saved answer is gone, and so is the answer.
        let ticket = granted["ticketId"].as_str().unwrap();
        app.release(ticket).await.ok(204);
        let anew = reserve().await;
        assert!(!anew.is_replayed());
        assert_ne!(anew.ok(200)["ticketId"], granted["ticketId"]);
    })
    .await;
}

#[tokio::test]
async fn saved_answers_survive_a_restart() {
    on_every_deployment(async |app: &mut TestApp| {
        let (event, user) = (app.event(5).await, app.user(0).await);
        let key = "before-and-after";
        let claim = json!({ "eventId": event, "userId": user });
        let first = app
            .post_with_key("/ticketing/reserve", key, &claim)
            .await
            .ok(200);
        let ticket = first["ticketId"].as_str().unwrap();
        let purchase = app.processed(ticket, event, user, 0).await;
        let body = confirmation(&purchase, "card-1").body;
        let paid = app
            .post_with_key("/payment/confirm", key, &body)
            .await
            .ok(200);

        app.restart().await;
        let again = app.post_with_key("/ticketing/reserve", key, &claim).await;
        assert!(again.is_replayed());
        assert_eq!(again.ok(200), first);
        assert_eq!(
            app.post_with_key("/payment/confirm", key, &body)
                .await
                .ok(200),
            paid
        );
        app.stock_becomes(event, stock(5, 0, 1, 4)).await;
    })
    .await;
}

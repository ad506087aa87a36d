//! Idempotency keys: the same request sent twice happens once.

use serde_json::{Value, json};

use crate::{
    desk::{PRICE, confirmation, entries, stock},
    house::{House, play},
};

/// Sends a request twice under one key, then another under the same key; returns the first answer.
async fn once(house: &House, path: &str, status: u16, body: Value, other: Value) -> Value {
    let key = ("Idempotency-Key", "the-same-key");
    let first = house.post_with(path, key, &body).await;
    assert!(!first.is_replayed(), "{path}");
    let first = first.ok(status);
    let again = house.post_with(path, key, &body).await;
    assert!(again.is_replayed(), "{path}");
    assert_eq!(again.ok(status), first, "{path}");
    let reused = house.post_with(path, key, &other).await;
    reused.refused(422, "IDEMPOTENCY_KEY_REUSED");
    first
}

#[tokio::test]
async fn every_request_of_a_purchase_sent_twice_under_its_key_happens_once() {
    play(async |house: &mut House| {
        let event = json!({ "name": "Show", "ticketQuantity": 5, "price": PRICE });
        let event = once(house, "/event", 201, event, json!({})).await["id"].as_i64().unwrap();
        house.stock_becomes(event, stock(5, 0, 0, 5)).await;
        let user = json!({ "name": "Buyer", "points": 100 });
        let user = once(house, "/user", 201, user, json!({})).await["id"].as_i64().unwrap();
        let path = format!("/user/{user}/points");
        once(house, &path, 200, json!({ "amount": 200 }), json!({ "amount": 201 })).await;
        assert_eq!(
            house.ledger(user).await,
            entries(&[("GRANTED", 100, 100), ("GRANTED", 200, 300)])
        );
        let listed = house.get("/event").await.ok(200)["items"].as_array().unwrap().len();
        assert_eq!(listed, 1);

        let claim = json!({ "eventId": event, "userId": user });
        let reserved = once(house, "/ticketing/reserve", 200, claim, json!({ "userId": user })).await;
        assert_eq!(house.stock(event).await, stock(5, 1, 0, 4));
        let ticket = reserved["ticketId"].as_str().unwrap();
        let start = json!({
            "ticketId": ticket, "eventId": event, "userId": user, "totalAmount": PRICE, "point": 300,
        });
        once(house, "/ticketing/process", 202, start, json!({ "userId": user })).await;
        let progress = house.progress_becomes(ticket, "COMPLETED").await;
        assert_eq!(house.points(user).await, 0);

        let body = json!({
            "paymentId": progress["paymentId"], "pgPaymentId": "card-1", "amount": 700,
        });
        once(house, "/payment/confirmed", 200, body, json!({})).await;
        house.stock_becomes(event, stock(5, 0, 1, 4)).await;
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_decided_again_under_its_key_and_so_is_what_was_given_back() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(0).await);
        let held = house.reserved(event, house.user(0).await).await;
        let claim = json!({ "eventId": event, "userId": user });
        let key = |key: &'static str| ("Idempotency-Key", key);
        let refused = house
            .post_with("/ticketing/reserve", key("one"), &claim)
            .await;
        refused.refused(409, "SOLD_OUT");
        house.release(&held).await.ok(204);
        let reserve = async || {
            house
                .post_with("/ticketing/reserve", key("one"), &claim)
                .await
        };
        let granted = reserve().await;
        assert!(!granted.is_replayed());
        let granted = granted.ok(200);
        let again = reserve().await;
        assert!(again.is_replayed());
        assert_eq!(again.ok(200), granted);

        // The ticket that the key was told of is gone: so is its answer.
        let ticket = granted["ticketId"].as_str().unwrap();
        house.release(ticket).await.ok(204);
        let anew = reserve().await;
        assert!(!anew.is_replayed());
        assert_ne!(anew.ok(200)["ticketId"], granted["ticketId"]);
    })
    .await;
}

#[tokio::test]
async fn a_key_is_known_after_a_restart() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(5).await, house.user(0).await);
        let key = ("Idempotency-Key", "before-and-after");
        let claim = json!({ "eventId": event, "userId": user });
        let first = house
            .post_with("/ticketing/reserve", key, &claim)
            .await
            .ok(200);
        let ticket = first["ticketId"].as_str().unwrap();
        let purchase = house.processed(ticket, event, user, 0).await;
        let body = confirmation(&purchase, "card-1");
        let paid = house
            .post_with("/payment/confirm", key, &body)
            .await
            .ok(200);

        house.restart().await;
        let again = house.post_with("/ticketing/reserve", key, &claim).await;
        assert!(again.is_replayed());
        assert_eq!(again.ok(200), first);
        assert_eq!(
            house
                .post_with("/payment/confirm", key, &body)
                .await
                .ok(200),
            paid
        );
        house.stock_becomes(event, stock(5, 0, 1, 4)).await;
    })
    .await;
}

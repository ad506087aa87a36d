//! A buyer gives a ticket back: everything, or nothing, and never half of it.

use serde_json::{Value, json};

use crate::{
    desk::{Purchase, entries, stock},
    gateway::Mood,
    house::{House, play},
};

/// A ticket for 700 won and 300 points.
async fn bought(house: &House, event: i64, user: i64, card: &str) -> Purchase {
    let purchase = house.purchase(event, user, 300).await;
    house.paid(&purchase, card).await;
    house.rest().await;
    purchase
}

fn refusing(code: &str) -> Value {
    json!([{ "on": "cancel", "times": 1, "fault": { "refuse": { "code": code } } }])
}

#[tokio::test]
async fn a_ticket_that_is_given_back_gives_back_money_points_and_stock_and_can_be_bought_again() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let first = bought(house, event, user, "card-1").await;
        let begun = house.cancel(&first).await.ok(202);
        assert_eq!(begun["cancellation"], 1);
        let done = house.cancellation_becomes(&first, "COMPLETED").await;
        assert_eq!(done["sagaId"], begun["sagaId"]);

        house.is_refunded(&first, "card-1").await;
        house.ticket_becomes(&first, "CANCELLED").await;
        assert_eq!(house.stock(event).await, stock(1, 0, 0, 1));
        let ledger = house.ledger(user).await;
        assert_eq!(ledger.last(), entries(&[("RESTORED", 300, 300)]).last());
        let path = format!("/ticketing/process/{}", first.ticket);
        let told = house.get(&path).await.ok(200);
        assert_eq!(
            (&told["ticketStatus"], &told["failure"]),
            (&json!("CANCELLED"), &json!("PAYMENT_REFUNDED"))
        );

        // The buyer may have it again, and the next buyer too.
        let again = bought(house, event, user, "card-2").await;
        assert_ne!(again.ticket, first.ticket);
        house.cancel(&again).await.ok(202);
        house.cancellation_becomes(&again, "COMPLETED").await;
        let next = house.user(300).await;
        bought(house, event, next, "card-3").await;
        house.reserve(event, user).await.refused(409, "SOLD_OUT");
        assert_eq!(house.stock(event).await, stock(1, 0, 1, 0));
    })
    .await;
}

#[tokio::test]
async fn a_ticket_is_given_back_once_however_often_it_is_asked() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = bought(house, event, user, "card-1").await;
        let path = format!("/ticket/{}/cancel", purchase.ticket);
        let ask = async |key: &str| {
            let header = ("Idempotency-Key", key);
            house.post_with(&path, header, &json!({})).await
        };
        house.gateway.turn(Mood::Away);
        let first = ask("one").await;
        assert_eq!(first.status, 202);
        house.rest().await;
        ask("two").await.refused(409, "CANCELLATION_IN_PROGRESS");
        let again = ask("one").await;
        assert!(again.is_replayed());
        assert_eq!(again.body, first.body);

        house.gateway.turn(Mood::Well);
        house.cancellation_becomes(&purchase, "COMPLETED").await;
        house.ticket_becomes(&purchase, "CANCELLED").await;
        ask("three").await.refused(409, "TICKET_CANCELLED");
        assert_eq!(ask("one").await.body, first.body);
        house.is_refunded(&purchase, "card-1").await;
        assert_eq!(house.stock(event).await, stock(1, 0, 0, 1));
        let ledger = house.ledger(user).await;
        let restored = ledger.iter().filter(|it| it.0 == "RESTORED");
        assert_eq!(restored.count(), 1);
    })
    .await;
}

#[tokio::test]
async fn where_the_gateway_refuses_the_ticket_stands_and_may_be_given_back_later() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = bought(house, event, user, "card-1").await;
        house.gateway.script(refusing("NOT_CANCELABLE_PAYMENT"));
        house.cancel(&purchase).await.ok(202);
        let refused = house.cancellation_becomes(&purchase, "COMPENSATED").await;
        let failure = refused["failure"].as_str().unwrap();
        assert!(failure.contains("NOT_CANCELABLE_PAYMENT"), "{failure}");

        house.is_bought(&purchase, "card-1").await;
        assert_eq!(house.stock(event).await, stock(1, 0, 1, 0));
        assert_eq!(house.points(user).await, 0);
        let path = format!("/ticketing/process/{}", purchase.ticket);
        let told = house.get(&path).await.ok(200);
        assert_eq!(told.get("failure"), None, "{told}");

        let again = house.cancel(&purchase).await.ok(202);
        assert_eq!(again["cancellation"], 2);
        house.cancellation_becomes(&purchase, "COMPLETED").await;
        house.is_refunded(&purchase, "card-1").await;
        house.points_become(user, 300).await;
    })
    .await;
}

#[tokio::test]
async fn where_the_gateway_says_nothing_it_is_parked_in_sight_and_a_late_answer_ends_it() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = bought(house, event, user, "card-1").await;
        house.gateway.turn(Mood::Away);
        let begun = house.cancel(&purchase).await.ok(202);
        let path = format!("/saga/{}", begun["sagaId"].as_str().unwrap());
        house.pass_until(&path, |it| it["parked"].is_string()).await;
        let listed = house.get("/saga?state=PARKED").await.ok(200);
        assert_eq!(listed["items"][0]["sagaId"], begun["sagaId"]);
        let progress = house
            .get(&format!("/ticket/{}/cancel", purchase.ticket))
            .await
            .ok(200);
        assert!(progress["failure"].is_string(), "{progress}");
        house.ticket_becomes(&purchase, "RESERVED").await;
        let again = house.cancel(&purchase).await;
        again.refused(409, "CANCELLATION_IN_PROGRESS");

        house.gateway.turn(Mood::Well);
        house.cancellation_becomes(&purchase, "COMPLETED").await;
        house.is_refunded(&purchase, "card-1").await;
        house.points_become(user, 300).await;
        house.stock_becomes(event, stock(1, 0, 0, 1)).await;
    })
    .await;
}

#[tokio::test]
async fn a_ticket_that_was_paid_in_points_gives_them_back_without_the_gateway() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(1000).await);
        let purchase = house.purchase(event, user, 1000).await;
        house.paid(&purchase, "points").await;
        house.gateway.turn(Mood::Away);
        house.cancel(&purchase).await.ok(202);
        house.cancellation_becomes(&purchase, "COMPLETED").await;
        house.ticket_becomes(&purchase, "CANCELLED").await;
        house.points_become(user, 1000).await;
        assert_eq!(house.stock(event).await, stock(1, 0, 0, 1));
    })
    .await;
}

#[tokio::test]
async fn only_the_owner_of_a_ticket_that_there_is_gives_it_back() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = bought(house, event, user, "card-1").await;
        let path = format!("/ticket/{}/cancel", purchase.ticket);
        house
            .get(&path)
            .await
            .refused(404, "CANCELLATION_NOT_FOUND");
        let stranger = json!({ "userId": house.user(0).await });
        let asked = house.post(&path, stranger).await;
        asked.refused(403, "TICKET_OWNER_MISMATCH");
        let unknown = "/ticket/01a203c8-3eac-7e91-bc6d-5345692e01ca/cancel";
        let asked = house.post(unknown, json!({})).await;
        asked.refused(404, "TICKET_NOT_FOUND");
        let asked = house.post(&path, json!({ "reason": "" })).await;
        assert_eq!(asked.refused(400, "INVALID_REQUEST")["field"], "reason");
        house.is_bought(&purchase, "card-1").await;

        let owner = json!({ "userId": user, "reason": "I am ill" });
        house.post(&path, owner).await.ok(202);
        house.cancellation_becomes(&purchase, "COMPLETED").await;
        house.is_refunded(&purchase, "card-1").await;
    })
    .await;
}

#[tokio::test]
async fn a_ticket_that_is_cancelled_at_the_gateways_console_at_the_same_moment_goes_back_once() {
    play(async |house: &mut House| {
        house.hear_webhooks();
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = bought(house, event, user, "card-1").await;
        house.gateway.told_all().await;
        house.webhooks_are_heeded().await;
        let console = house.gateway.try_to("card-1", "cancel-by-merchant");
        let (asked, _) = tokio::join!(house.cancel(&purchase), console);
        house.gateway.told_all().await;
        house.webhooks_are_heeded().await;
        // Where the console was faster than the buyer's request, there was no ticket left to give back.
        if asked.status == 202 {
            house.cancellation_becomes(&purchase, "COMPLETED").await;
        } else {
            asked.refused(409, "TICKET_CANCELLED");
        }
        house.is_refunded(&purchase, "card-1").await;
        house.ticket_becomes(&purchase, "CANCELLED").await;
        house.points_become(user, 300).await;
        house.stock_becomes(event, stock(1, 0, 0, 1)).await;
    })
    .await;
}

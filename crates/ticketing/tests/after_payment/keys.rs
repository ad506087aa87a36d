//! A reservation whose answer was lost is granted again to its key, and to nobody and nothing else.

use axum::{body::Body, http::Request};
use contract::TicketId;
use messaging::Commit;
use serde_json::{Value, json};
use ticketing::model::Purchase;
use web::idempotency::AnswerRecord;

use crate::house::{House, call, paid};

pub fn reserve(user: i64, key: &str) -> Request<Body> {
    let body = json!({"eventId": 1, "userId": user}).to_string();
    let request = Request::post("/ticketing/reserve").header("Idempotency-Key", key);
    request.body(Body::from(body)).unwrap()
}

fn ticket(answer: &Value) -> TicketId {
    answer["ticketId"].as_str().unwrap().parse().unwrap()
}

/// The answer was never stored, as where the process died before.
async fn lose_answer(house: &House, key: &str) {
    let key = format!("/ticketing/reserve {key}");
    let mut commit = Commit::new();
    commit.remove::<AnswerRecord>(key.as_str());
    assert!(
        house
            .store
            .load::<AnswerRecord>(key.as_str())
            .await
            .unwrap()
            .is_some()
    );
    house.store.commit(commit).await.unwrap();
}

async fn ask(house: &House, user: i64, key: &str) -> (u16, Value) {
    // Whoever is asked again is another process.
    call(house.another_door(99).await, reserve(user, key)).await
}

#[tokio::test]
async fn a_lost_answer_is_given_again_with_the_first_deadline() {
    let house = House::with_quantity(2).await;
    let first = house.reserve_by_key(1, "one").await;
    assert_eq!(first.0, 200, "{}", first.1);
    lose_answer(&house, "one").await;
    house.clock.advance_millis(5_000);

    let mut house = house;
    house.restart().await;
    assert_eq!(house.reserve_by_key(1, "one").await, first);
    assert_eq!(house.stats().await.waiting, 1);

    // What is stored now is the same, whoever is asked.
    assert_eq!(ask(&house, 1, "one").await, first);
    let (status, refusal) = house.reserve_by_key(1, "two").await;
    assert_eq!(
        (status, &refusal["code"]),
        (409, &"ALREADY_RESERVED".into()),
        "another request is another wish"
    );
    let (status, refusal) = house.reserve_by_key(2, "one").await;
    assert_eq!(
        (status, &refusal["code"]),
        (422, &"IDEMPOTENCY_KEY_REUSED".into())
    );
    assert_eq!(house.stats().await.available, 1);
}

#[tokio::test]
async fn a_key_that_is_asked_with_another_body_after_a_lost_answer_gets_nobody_elses_ticket() {
    let house = House::with_quantity(2).await;
    let (_, first) = house.reserve_by_key(1, "one").await;
    lose_answer(&house, "one").await;

    let (status, other) = house.reserve_by_key(2, "one").await;

    assert_eq!(status, 200);
    assert_ne!(ticket(&first), ticket(&other));
    assert_eq!(house.stats().await.waiting, 2);
    let (status, refusal) = house.reserve_by_key(1, "one").await;
    assert_eq!(
        (status, &refusal["code"]),
        (422, &"IDEMPOTENCY_KEY_REUSED".into()),
        "a key has one answer"
    );
}

#[tokio::test]
async fn a_key_whose_reservation_was_released_gets_another_ticket_and_another_purchase() {
    let mut house = House::with_quantity(1).await;
    let (_, first) = house.reserve_by_key(1, "one").await;
    let first = ticket(&first);
    house.begin(first, 1).await;
    house.service.release(first, None).await.unwrap();
    house.work().await;
    lose_answer(&house, "one").await;

    let (status, again) = house.reserve_by_key(1, "one").await;

    assert_eq!(status, 200, "{again}");
    let again = ticket(&again);
    assert_ne!(again.purchase_saga(), first.purchase_saga());
    house.begin(again, 1).await;
    let purchase: Option<Purchase> = house.store.load(again).await.unwrap();
    assert_eq!(purchase.unwrap().released_at, None);
    assert_eq!(house.process(again).await["sagaState"], "STARTED");
    assert_eq!(house.process(first).await["sagaState"], "COMPENSATED");
}

#[tokio::test]
async fn a_key_whose_reservation_lapsed_gets_another_ticket() {
    let house = House::with_quantity(1).await;
    let (_, first) = house.reserve_by_key(1, "one").await;
    lose_answer(&house, "one").await;
    house.lapse_clock();
    house.service.expire_due().await.unwrap();

    let (status, again) = house.reserve_by_key(1, "one").await;

    assert_eq!(status, 200, "{again}");
    assert_ne!(ticket(&first), ticket(&again));
    assert!(again["expiresAt"].as_str() > first["expiresAt"].as_str());
    assert_eq!(house.stats().await.waiting, 1);
}

#[tokio::test]
async fn a_key_whose_ticket_was_bought_is_told_so() {
    let mut house = House::with_quantity(1).await;
    let (_, first) = house.reserve_by_key(1, "one").await;
    let first = ticket(&first);
    house.begin(first, 1).await;
    house.hear(&paid(first, 1, 3)).await;
    assert_eq!(house.check_books().await, 1);
    lose_answer(&house, "one").await;

    let (status, refusal) = house.reserve_by_key(1, "one").await;

    assert_eq!(
        (status, &refusal["code"]),
        (409, &"ALREADY_PURCHASED".into())
    );
    assert_eq!(house.check_books().await, 1);
}

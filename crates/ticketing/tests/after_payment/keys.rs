//! A reservation whose answer was lost is granted again to its key, and to nobody and nothing else.

use axum::{
    body::Body,
    http::{Method, Request},
};
use contract::{TicketId, UserId, domain, domain::DomainMessage};
use messaging::Commit;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use ticketing::model::Purchase;
use web::idempotency::{AnswerRecord, record_key};

use crate::house::{House, START, call, paid};

pub fn reserve(user: i64, key: &str) -> Request<Body> {
    let body = json!({"eventId": 1, "userId": user}).to_string();
    let request = Request::post("/ticketing/reserve").header("Idempotency-Key", key);
    request.body(Body::from(body)).unwrap()
}

fn ticket(answer: &Value) -> TicketId {
    answer["ticketId"].as_str().unwrap().parse().unwrap()
}

/// The answer was never stored, as where the process died before.
async fn lose_answer(house: &House, user: i64, key: &str) {
    let key = record_key(&Method::POST, "/ticketing/reserve", Some(UserId(user)), key);
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
    lose_answer(&house, 1, "one").await;
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
    // The key of another buyer is another key.
    let (status, other) = house.reserve_by_key(2, "one").await;
    assert_eq!(status, 200, "{other}");
    assert_ne!(ticket(&first.1), ticket(&other));
    assert_eq!(house.stats().await.available, 0);
}

#[tokio::test]
async fn a_key_that_is_asked_with_another_body_gets_nothing_else() {
    let mut house = House::with_quantity(2).await;
    house.hear(&event(2)).await;
    let (_, first) = house.reserve_by_key(1, "one").await;
    let other = |of: i64| {
        let body = json!({"eventId": of, "userId": 1}).to_string();
        let request = Request::post("/ticketing/reserve").header("Idempotency-Key", "one");
        request.body(Body::from(body)).unwrap()
    };
    let (status, refusal) = call(house.another_door(98).await, other(2)).await;
    assert_eq!(
        (status, &refusal["code"]),
        (422, &"IDEMPOTENCY_KEY_REUSED".into())
    );
    lose_answer(&house, 1, "one").await;

    let (status, second) = call(house.another_door(99).await, other(2)).await;

    assert_eq!(status, 200, "{second}");
    assert_ne!(ticket(&first), ticket(&second));
    let (status, refusal) = house.reserve_by_key(1, "one").await;
    assert_eq!(
        (status, &refusal["code"]),
        (422, &"IDEMPOTENCY_KEY_REUSED".into()),
        "a key has one answer"
    );
}

fn event(id: i64) -> DomainMessage<domain::Event> {
    let event = domain::Event {
        id: contract::EventId(id),
        name: "another show".to_owned(),
        ticket_quantity: 1,
        price: None,
        sale_opens_at: None,
        sale_closes_at: None,
        created_at: START,
        updated_at: START,
    };
    DomainMessage::new(event, 1, START)
}

#[tokio::test]
async fn a_key_replays_as_long_as_its_reservation_stands_and_then_reserves_anew() {
    let mut house = House::with_quantity(1).await;
    let first = house.reserve_by_key(1, "event-1-user-1").await;
    assert_eq!(house.reserve_by_key(1, "event-1-user-1").await, first);

    house.service.release(ticket(&first.1), None).await.unwrap();
    let second = house.reserve_by_key(1, "event-1-user-1").await;
    assert_eq!(second.0, 200, "{}", second.1);
    assert_ne!(ticket(&first.1), ticket(&second.1));
    assert_eq!(house.reserve_by_key(1, "event-1-user-1").await, second);
    assert_eq!(house.stats().await.waiting, 1);

    // While another has the ticket, the key is refused, and the refusal is not kept.
    house
        .service
        .release(ticket(&second.1), None)
        .await
        .unwrap();
    let (_, other) = house.reserve_by_key(2, "mine").await;
    let (status, refusal) = house.reserve_by_key(1, "event-1-user-1").await;
    assert_eq!((status, &refusal["code"]), (409, &"SOLD_OUT".into()));
    house.service.release(ticket(&other), None).await.unwrap();
    house.work().await;
    let third = house.reserve_by_key(1, "event-1-user-1").await;
    assert_eq!(third.0, 200, "{}", third.1);
    assert_eq!(
        house
            .service
            .reservations()
            .find(contract::EventId(1), UserId(1))
            .await
            .unwrap()
            .unwrap()
            .ticket_id,
        ticket(&third.1)
    );
    // What is bought stands.
    house.begin(ticket(&third.1), 1).await;
    house.hear(&paid(ticket(&third.1), 1, 3)).await;
    assert_eq!(house.reserve_by_key(1, "event-1-user-1").await, third);
}

#[tokio::test]
async fn a_refusal_that_may_pass_is_decided_again_under_its_key() {
    let mut house = House::with_quantity(1).await;
    let reserve = || {
        let body = json!({"eventId": 7, "userId": 1}).to_string();
        let request = Request::post("/ticketing/reserve").header("Idempotency-Key", "early");
        request.body(Body::from(body)).unwrap()
    };
    let door = house.another_door(98).await;
    let (status, refusal) = call(door, reserve()).await;
    assert_eq!((status, &refusal["code"]), (404, &"EVENT_NOT_FOUND".into()));

    house.hear(&event(7)).await;
    let answer = call(house.another_door(99).await, reserve()).await;
    assert_eq!(answer.0, 200, "{}", answer.1);
}

/// SHA-256 of the bytes.
fn older_fingerprint(body: &str) -> String {
    let digest = Sha256::digest(body.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn an_answer_that_an_earlier_program_stored_is_given_again() {
    let house = House::with_quantity(1).await;
    // As it was sent: with a space, and its fields in this order.
    let body = r#"{"userId": 1, "eventId": 1}"#;
    let stored = AnswerRecord {
        key: "/ticketing/reserve before".to_owned(),
        fingerprint: String::new(),
        status: 200,
        content_type: "application/json".to_owned(),
        body: r#"{"ticketId":"before"}"#.to_owned(),
        created_at: START,
        revisable: 0,
        version: 0,
    };
    let mut commit = Commit::new();
    commit.put(&AnswerRecord {
        fingerprint: older_fingerprint(body),
        ..stored
    });
    house.store.commit(commit).await.unwrap();
    let ask = |body: &str| {
        let request = Request::post("/ticketing/reserve").header("Idempotency-Key", "before");
        request.body(Body::from(body.to_owned())).unwrap()
    };

    let door = house.another_door(99).await;
    let again = call(door.clone(), ask(body)).await;
    assert_eq!(again, (200, json!({"ticketId": "before"})));
    let (status, _) = call(door, ask(r#"{"userId": 1, "eventId": 2}"#)).await;
    assert_eq!(status, 422);
    assert_eq!(house.stats().await.waiting, 0);
}

#[tokio::test]
async fn a_key_whose_reservation_was_released_gets_another_ticket_and_another_purchase() {
    let mut house = House::with_quantity(1).await;
    let (_, first) = house.reserve_by_key(1, "one").await;
    let first = ticket(&first);
    house.begin(first, 1).await;
    house.service.release(first, None).await.unwrap();
    house.work().await;
    lose_answer(&house, 1, "one").await;

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
    lose_answer(&house, 1, "one").await;
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
    lose_answer(&house, 1, "one").await;

    let (status, refusal) = house.reserve_by_key(1, "one").await;

    assert_eq!(
        (status, &refusal["code"]),
        (409, &"ALREADY_PURCHASED".into())
    );
    assert_eq!(house.check_books().await, 1);
}

//! A reservation whose answer was lost is granted again to the same idempotency key and body, and to no other.

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

use crate::test_app::{START, TestApp, call, paid};

pub fn reserve(user: i64, key: &str) -> Request<Body> {
    let body = json!({"eventId": 1, "userId": user}).to_string();
    let request = Request::post("/ticketing/reserve").header("Idempotency-Key", key);
    request.body(Body::from(body)).unwrap()
}

pub fn ticket(answer: &Value) -> TicketId {
    answer["ticketId"].as_str().unwrap().parse().unwrap()
}

/// Removes the stored answer, as if the process had died before it was stored.
async fn lose_answer(app: &TestApp, user: i64, key: &str) {
    let key = record_key(&Method::POST, "/ticketing/reserve", Some(UserId(user)), key);
    let mut commit = Commit::new();
    commit.remove::<AnswerRecord>(key.as_str());
    assert!(
        app.store
            .load::<AnswerRecord>(key.as_str())
            .await
            .unwrap()
            .is_some()
    );
    app.store.commit(commit).await.unwrap();
}

async fn repeat(app: &TestApp, user: i64, key: &str) -> (u16, Value) {
    // By another process.
    call(app.another_process(99).await, reserve(user, key)).await
}

#[tokio::test]
async fn a_lost_answer_is_repeated_with_the_first_deadline() {
    let app = TestApp::with_quantity(2).await;
    let first = app.reserve_by_key(1, "one").await;
    assert_eq!(first.0, 200, "{}", first.1);
    lose_answer(&app, 1, "one").await;
    app.clock.advance_millis(5_000);

    let mut app = app;
    app.restart().await;
    assert_eq!(app.reserve_by_key(1, "one").await, first);
    assert_eq!(app.stats().await.waiting, 1);

    // The stored answer is the same in every process.
    assert_eq!(repeat(&app, 1, "one").await, first);
    let (status, refusal) = app.reserve_by_key(1, "two").await;
    assert_eq!(
        (status, &refusal["code"]),
        (409, &"ALREADY_RESERVED".into()),
        "another request is another request"
    );
    // The same key of another buyer is another key.
    let (status, other) = app.reserve_by_key(2, "one").await;
    assert_eq!(status, 200, "{other}");
    assert_ne!(ticket(&first.1), ticket(&other));
    assert_eq!(app.stats().await.available, 0);
}

#[tokio::test]
async fn a_key_with_another_body_is_refused_and_reserves_nothing_else() {
    let mut app = TestApp::with_quantity(2).await;
    app.deliver(&event(2)).await;
    let (_, first) = app.reserve_by_key(1, "one").await;
    let other = |of: i64| {
        let body = json!({"eventId": of, "userId": 1}).to_string();
        let request = Request::post("/ticketing/reserve").header("Idempotency-Key", "one");
        request.body(Body::from(body)).unwrap()
    };
    let (status, refusal) = call(app.another_process(98).await, other(2)).await;
    assert_eq!(
        (status, &refusal["code"]),
        (422, &"IDEMPOTENCY_KEY_REUSED".into())
    );
    lose_answer(&app, 1, "one").await;

    let (status, second) = call(app.another_process(99).await, other(2)).await;

    assert_eq!(status, 200, "{second}");
    assert_ne!(ticket(&first), ticket(&second));
    let (status, refusal) = app.reserve_by_key(1, "one").await;
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
async fn a_key_replays_while_its_reservation_stands_and_then_reserves_again() {
    let mut app = TestApp::with_quantity(1).await;
    let first = app.reserve_by_key(1, "event-1-user-1").await;
    assert_eq!(app.reserve_by_key(1, "event-1-user-1").await, first);

    app.service.release(ticket(&first.1), None).await.unwrap();
    let second = app.reserve_by_key(1, "event-1-user-1").await;
    assert_eq!(second.0, 200, "{}", second.1);
    assert_ne!(ticket(&first.1), ticket(&second.1));
    assert_eq!(app.reserve_by_key(1, "event-1-user-1").await, second);
    assert_eq!(app.stats().await.waiting, 1);

    // While another buyer has the ticket, the key is refused, and the refusal is not stored.
    app.service.release(ticket(&second.1), None).await.unwrap();
    let (_, other) = app.reserve_by_key(2, "mine").await;
    let (status, refusal) = app.reserve_by_key(1, "event-1-user-1").await;
    assert_eq!((status, &refusal["code"]), (409, &"SOLD_OUT".into()));
    app.service.release(ticket(&other), None).await.unwrap();
    app.run_workers().await;
    let third = app.reserve_by_key(1, "event-1-user-1").await;
    assert_eq!(third.0, 200, "{}", third.1);
    assert_eq!(
        app.service
            .reservations()
            .find(contract::EventId(1), UserId(1))
            .await
            .unwrap()
            .unwrap()
            .ticket_id,
        ticket(&third.1)
    );
    // A purchased reservation stands.
    app.start_purchase(ticket(&third.1), 1).await;
    app.deliver(&paid(ticket(&third.1), 1, 3)).await;
    assert_eq!(app.reserve_by_key(1, "event-1-user-1").await, third);
}

#[tokio::test]
async fn a_refusal_that_may_pass_is_not_stored_under_its_key() {
    let mut app = TestApp::with_quantity(1).await;
    let reserve = || {
        let body = json!({"eventId": 7, "userId": 1}).to_string();
        let request = Request::post("/ticketing/reserve").header("Idempotency-Key", "early");
        request.body(Body::from(body)).unwrap()
    };
    let router = app.another_process(98).await;
    let (status, refusal) = call(router, reserve()).await;
    assert_eq!((status, &refusal["code"]), (404, &"EVENT_NOT_FOUND".into()));

    app.deliver(&event(7)).await;
    let answer = call(app.another_process(99).await, reserve()).await;
    assert_eq!(answer.0, 200, "{}", answer.1);
}

/// SHA-256 of the bytes.
fn older_fingerprint(body: &str) -> String {
    let digest = Sha256::digest(body.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn an_answer_that_an_earlier_program_stored_is_replayed() {
    let app = TestApp::with_quantity(1).await;
    // The body as it was sent: with spaces, and its fields in this order.
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
    app.store.commit(commit).await.unwrap();
    let request = |body: &str| {
        let request = Request::post("/ticketing/reserve").header("Idempotency-Key", "before");
        request.body(Body::from(body.to_owned())).unwrap()
    };

    let router = app.another_process(99).await;
    let again = call(router.clone(), request(body)).await;
    assert_eq!(again, (200, json!({"ticketId": "before"})));
    let (status, _) = call(router, request(r#"{"userId": 1, "eventId": 2}"#)).await;
    assert_eq!(status, 422);
    assert_eq!(app.stats().await.waiting, 0);
}

#[tokio::test]
async fn a_key_whose_reservation_was_released_gets_another_ticket_and_another_purchase() {
    let mut app = TestApp::with_quantity(1).await;
    let (_, first) = app.reserve_by_key(1, "one").await;
    let first = ticket(&first);
    app.start_purchase(first, 1).await;
    app.service.release(first, None).await.unwrap();
    app.run_workers().await;
    lose_answer(&app, 1, "one").await;

    let (status, again) = app.reserve_by_key(1, "one").await;

    assert_eq!(status, 200, "{again}");
    let again = ticket(&again);
    assert_ne!(again.purchase_saga(), first.purchase_saga());
    app.start_purchase(again, 1).await;
    let purchase: Option<Purchase> = app.store.load(again).await.unwrap();
    assert_eq!(purchase.unwrap().released_at, None);
    assert_eq!(app.progress(again).await["sagaState"], "STARTED");
    assert_eq!(app.progress(first).await["sagaState"], "COMPENSATED");
}

#[tokio::test]
async fn a_key_whose_reservation_expired_gets_another_ticket() {
    let app = TestApp::with_quantity(1).await;
    let (_, first) = app.reserve_by_key(1, "one").await;
    lose_answer(&app, 1, "one").await;
    app.advance_past_expiry();
    app.service.expire_due().await.unwrap();

    let (status, again) = app.reserve_by_key(1, "one").await;

    assert_eq!(status, 200, "{again}");
    assert_ne!(ticket(&first), ticket(&again));
    assert!(again["expiresAt"].as_str() > first["expiresAt"].as_str());
    assert_eq!(app.stats().await.waiting, 1);
}

#[tokio::test]
async fn a_key_whose_ticket_was_bought_is_refused_as_already_purchased() {
    let mut app = TestApp::with_quantity(1).await;
    let (_, first) = app.reserve_by_key(1, "one").await;
    let first = ticket(&first);
    app.start_purchase(first, 1).await;
    app.deliver(&paid(first, 1, 3)).await;
    assert_eq!(app.check_consistency().await, 1);
    lose_answer(&app, 1, "one").await;

    let (status, refusal) = app.reserve_by_key(1, "one").await;

    assert_eq!(
        (status, &refusal["code"]),
        (409, &"ALREADY_PURCHASED".into())
    );
    assert_eq!(app.check_consistency().await, 1);
}

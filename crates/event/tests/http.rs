//! The event service over HTTP: its answers, its refusals, and the messages that it publishes.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
    middleware::from_fn_with_state,
};
use contract::{
    Payload, Timestamp,
    domain::{self, Change, DomainMessage},
};
use futures::FutureExt;
use messaging::{Bus, Clock, Metrics, Record, Store, Table};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;
use web::idempotency::{AnswerRecord, Idempotency, idempotent};

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const NOW: &str = "2027-01-15T08:00:00.000Z";

struct TestApp {
    router: Router,
    store: Store,
    clock: Clock,
    folder: TempDir,
}

impl TestApp {
    fn open() -> Self {
        Self::open_in(tempfile::tempdir().unwrap())
    }

    fn open_in(folder: TempDir) -> Self {
        let tables: Vec<&'static Table> =
            [messaging::TABLES, event::TABLES, &[AnswerRecord::TABLE]].concat();
        let store = Store::open_embedded(folder.path(), &tables, Metrics::unregistered()).unwrap();
        let clock = Clock::manual(START);
        let idempotency = Idempotency::new(store.clone(), clock.clone());
        let service = event::Service::new(store.clone(), clock.clone());
        let router = event::http::router(service).split_for_parts().0;
        let router = router.layer(from_fn_with_state(idempotency, idempotent));
        Self {
            router,
            store,
            clock,
            folder,
        }
    }

    /// Restarts over the same folder.
    fn reopen(self) -> Self {
        let Self {
            router,
            store,
            folder,
            ..
        } = self;
        drop((router, store));
        Self::open_in(folder)
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        )
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.send(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    async fn post(&self, body: &Value) -> (StatusCode, Value) {
        self.send(
            Request::post("/event")
                .body(body.to_string().into())
                .unwrap(),
        )
        .await
    }

    async fn post_once(&self, key: &str, body: &Value) -> (StatusCode, Value) {
        let request = Request::post("/event").header("Idempotency-Key", key);
        self.send(request.body(body.to_string().into()).unwrap())
            .await
    }

    async fn put(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Request::put(path).body(body.to_string().into()).unwrap())
            .await
    }

    /// All published messages with their ids.
    fn published(&self) -> Vec<(String, DomainMessage<domain::Event>)> {
        const TOPICS: &[&str] = &[DomainMessage::<domain::Event>::TOPIC];
        let mut subscription = Bus::Local(self.store.clone())
            .subscribe("test", TOPICS)
            .unwrap();
        let batch = subscription.try_next(100).now_or_never().unwrap().unwrap();
        let messages = batch.into_iter().flat_map(|batch| batch.messages);
        messages
            .map(|message| (message.id.clone(), message.parse().unwrap()))
            .collect()
    }
}

fn show() -> Value {
    json!({"name": "An evening of tests", "ticketQuantity": 100})
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

#[tokio::test]
async fn a_registered_event_can_be_read_and_is_published() {
    let app = TestApp::open();
    let body = json!({"name": "An evening of tests", "ticketQuantity": 100, "price": 50_000,
        "saleOpensAt": "2027-02-01T09:00:00+09:00", "saleClosesAt": "2027-03-01T00:00:00Z"});

    let (status, answer) = app.post(&body).await;

    let expected = json!({"id": 1, "name": "An evening of tests", "ticketQuantity": 100, "price": 50_000,
        "buyerNamesPrice": false, "saleOpensAt": "2027-02-01T00:00:00.000Z", "saleClosesAt": "2027-03-01T00:00:00.000Z",
        "version": 1, "createdAt": NOW, "updatedAt": NOW});
    assert_eq!((status, &answer), (StatusCode::CREATED, &expected));
    assert_eq!(app.get("/event/1").await, (StatusCode::OK, expected));
    let messages = app.published();
    assert_eq!(messages.len(), 1);
    let (message_id, envelope) = &messages[0];
    assert_eq!(message_id, "event:1:1");
    assert_eq!((envelope.version, envelope.event_type), (1, Change::Create));
    assert_eq!(envelope.payload.ticket_quantity, 100);
    assert_eq!(envelope.payload.price.map(i64::from), Some(50_000));
    assert_eq!(
        envelope.payload.sale_opens_at.unwrap().to_string(),
        "2027-02-01T00:00:00.000Z"
    );
}

#[tokio::test]
async fn a_change_keeps_omitted_fields_and_is_published() {
    let app = TestApp::open();
    let opens = "2027-02-01T00:00:00.000Z";
    let closes = "2027-03-01T00:00:00.000Z";
    let sale = with(
        with(show(), "saleOpensAt", json!(opens)),
        "saleClosesAt",
        json!(closes),
    );
    app.post(&with(sale, "price", json!(50_000))).await;
    app.clock.advance_millis(1500);

    let change =
        json!({"name": "A longer evening", "ticketQuantity": 0, "saleOpensAt": null, "version": 1});
    let (status, answer) = app.put("/event/1", &change).await;

    let expected = json!({"id": 1, "name": "A longer evening", "ticketQuantity": 0, "price": 50_000,
        "buyerNamesPrice": false, "saleOpensAt": null, "saleClosesAt": closes, "version": 2,
        "createdAt": NOW, "updatedAt": "2027-01-15T08:00:01.500Z"});
    assert_eq!((status, &answer), (StatusCode::OK, &expected));
    assert_eq!(app.get("/event/1").await.1, expected);
    let messages = app.published();
    let (message_id, envelope) = messages.last().unwrap();
    assert_eq!(message_id, "event:1:2");
    assert_eq!((envelope.version, envelope.event_type), (2, Change::Update));
    let payload = &envelope.payload;
    assert_eq!(
        (payload.ticket_quantity, payload.price.map(i64::from)),
        (0, Some(50_000))
    );
}

#[tokio::test]
async fn a_price_is_removed_only_by_buyer_names_price() {
    let app = TestApp::open();
    app.post(&with(show(), "price", json!(50_000))).await;
    let change = with(show(), "version", json!(1));

    let (status, problem) = app
        .put("/event/1", &with(change.clone(), "price", json!(null)))
        .await;
    assert_eq!(
        (status, &problem["code"], &problem["field"]),
        (
            StatusCode::BAD_REQUEST,
            &json!("INVALID_REQUEST"),
            &json!("price")
        )
    );
    let both = with(change.clone(), "buyerNamesPrice", json!(true));
    let (status, problem) = app
        .put("/event/1", &with(both.clone(), "price", json!(1)))
        .await;
    assert_eq!(
        (status, &problem["field"]),
        (StatusCode::BAD_REQUEST, &json!("buyerNamesPrice"))
    );

    let (status, answer) = app.put("/event/1", &both).await;
    assert_eq!(
        (status, &answer["price"], &answer["buyerNamesPrice"]),
        (StatusCode::OK, &json!(null), &json!(true))
    );
    let none = with(show(), "buyerNamesPrice", json!(false));
    assert_eq!(app.post(&none).await.1["field"], "price");
}

#[tokio::test]
async fn a_change_of_an_old_version_is_refused() {
    let app = TestApp::open();
    app.post(&show()).await;
    let change = with(show(), "version", json!(1));
    assert_eq!(app.put("/event/1", &change).await.0, StatusCode::OK);
    let before = app.get("/event/1").await;

    for version in [1, 3, -1] {
        let late = with(
            with(show(), "name", json!("Too late")),
            "version",
            json!(version),
        );
        let (status, problem) = app.put("/event/1", &late).await;
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::CONFLICT, &json!("VERSION_CONFLICT"))
        );
    }

    assert_eq!(app.get("/event/1").await, before);
    assert_eq!(app.published().len(), 2);
}

#[tokio::test]
async fn one_of_two_concurrent_changes_wins() {
    let app = TestApp::open();
    app.post(&show()).await;
    let change = with(show(), "version", json!(1));

    let (one, other) = tokio::join!(app.put("/event/1", &change), app.put("/event/1", &change));

    let mut statuses = [one.0, other.0];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::CONFLICT]);
    assert_eq!(app.published().len(), 2);
}

#[tokio::test]
async fn an_unknown_event_is_not_found() {
    let app = TestApp::open();
    let change = with(show(), "version", json!(1));
    for (status, problem) in [
        app.get("/event/7").await,
        app.put("/event/7", &change).await,
    ] {
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::NOT_FOUND, &json!("EVENT_NOT_FOUND"))
        );
    }
}

#[tokio::test]
async fn an_invalid_request_names_its_field_and_stores_nothing() {
    let app = TestApp::open();
    let table = [
        ("name", with(show(), "name", json!("  "))),
        ("name", with(show(), "name", json!("x".repeat(201)))),
        ("name", with(show(), "name", json!(7))),
        ("name", json!({"ticketQuantity": 1})),
        ("ticketQuantity", json!({"name": "An evening"})),
        ("ticketQuantity", with(show(), "ticketQuantity", json!(0))),
        ("ticketQuantity", with(show(), "ticketQuantity", json!(-5))),
        ("ticketQuantity", with(show(), "ticketQuantity", json!(1.5))),
        (
            "ticketQuantity",
            with(show(), "ticketQuantity", json!(10_000_001)),
        ),
        ("price", with(show(), "price", json!(-1))),
        ("price", with(show(), "price", json!("dear"))),
        (
            "saleOpensAt",
            with(show(), "saleOpensAt", json!("tomorrow")),
        ),
        (
            "saleClosesAt",
            with(
                with(show(), "saleOpensAt", json!(NOW)),
                "saleClosesAt",
                json!(NOW),
            ),
        ),
        ("colour", with(show(), "colour", json!("red"))),
        ("body", json!([])),
    ];
    for (field, body) in table {
        let (status, problem) = app.post(&body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(
            (&problem["code"], &problem["field"]),
            (&json!("INVALID_REQUEST"), &json!(field)),
            "{body}"
        );
    }
    assert_eq!(app.get("/event").await.1, json!({"items": []}));
    assert!(app.published().is_empty());
    assert_eq!(app.post(&show()).await.1["id"], 1, "a refusal took an id");
}

#[tokio::test]
async fn a_malformed_or_oversized_request_is_refused() {
    let app = TestApp::open();
    let big = with(show(), "name", json!("x".repeat(64 * 1024)));
    let table = [
        (
            StatusCode::BAD_REQUEST,
            "body",
            app.send(Request::post("/event").body("{".into()).unwrap())
                .await,
        ),
        (
            StatusCode::BAD_REQUEST,
            "body",
            app.send(Request::post("/event").body("{} {}".into()).unwrap())
                .await,
        ),
        (StatusCode::PAYLOAD_TOO_LARGE, "body", app.post(&big).await),
        (StatusCode::BAD_REQUEST, "id", app.get("/event/first").await),
        (
            StatusCode::BAD_REQUEST,
            "id",
            app.get("/event/99999999999999999999").await,
        ),
        (
            StatusCode::BAD_REQUEST,
            "limit",
            app.get("/event?limit=0").await,
        ),
        (
            StatusCode::BAD_REQUEST,
            "limit",
            app.get("/event?limit=501").await,
        ),
        (
            StatusCode::BAD_REQUEST,
            "after",
            app.get("/event?after=x").await,
        ),
        (StatusCode::BAD_REQUEST, "version", {
            app.put("/event/1", &show()).await
        }),
    ];
    for (number, (expected, field, (status, problem))) in table.into_iter().enumerate() {
        assert_eq!(status, expected, "{number}: {problem}");
        // For a truncated body the parser adds a position to the field's name.
        if field != "body" {
            assert_eq!(problem["field"], field, "{number}: {problem}");
        }
    }
}

#[tokio::test]
async fn the_list_is_paged_to_its_end() {
    let app = TestApp::open();
    for number in 1..=5 {
        app.post(&with(show(), "name", json!(format!("Evening {number}"))))
            .await;
    }
    let mut names = Vec::new();
    let mut path = "/event?limit=2".to_owned();
    loop {
        let (status, page) = app.get(&path).await;
        assert_eq!(status, StatusCode::OK);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        names.extend(
            items
                .iter()
                .map(|item| item["name"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/event?limit=2&after={next}");
    }
    assert_eq!(
        names,
        [
            "Evening 1",
            "Evening 2",
            "Evening 3",
            "Evening 4",
            "Evening 5"
        ]
    );
}

#[tokio::test]
async fn a_repeated_key_registers_one_event() {
    let app = TestApp::open();
    let first = app.post_once("k", &show()).await;
    assert_eq!(first.0, StatusCode::CREATED);

    assert_eq!(app.post_once("k", &show()).await, first);
    let app = app.reopen();
    assert_eq!(app.post_once("k", &show()).await, first);

    let (status, problem) = app
        .post_once("k", &with(show(), "name", json!("Another")))
        .await;
    assert_eq!(
        (status, &problem["code"]),
        (
            StatusCode::UNPROCESSABLE_ENTITY,
            &json!("IDEMPOTENCY_KEY_REUSED")
        )
    );
    assert_eq!(
        app.get("/event").await.1["items"].as_array().unwrap().len(),
        1
    );
    assert_eq!(app.published().len(), 1);
}

#[tokio::test]
async fn a_repeated_key_modifies_an_event_once() {
    let app = TestApp::open();
    app.post(&show()).await;
    let change = with(
        with(show(), "ticketQuantity", json!(120)),
        "version",
        json!(1),
    );
    let put = |path: &str, body: &Value| {
        let request = Request::put(path).header("Idempotency-Key", "k");
        request.body(body.to_string().into()).unwrap()
    };
    let first = app.send(put("/event/1", &change)).await;
    assert_eq!(first.0, StatusCode::OK, "{}", first.1);

    assert_eq!(app.send(put("/event/1", &change)).await, first);
    // A refused request is decided again: the event exists by then.
    let missing = app.send(put("/event/2", &change)).await;
    assert_eq!(missing.1["code"], "EVENT_NOT_FOUND");
    app.post(&show()).await;
    let found = app.send(put("/event/2", &change)).await;
    assert_eq!(found.0, StatusCode::OK, "{}", found.1);
    // A POST with the key is another request.
    assert_eq!(app.post_once("k", &show()).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn a_restart_keeps_events_and_reuses_no_id() {
    let app = TestApp::open();
    app.post(&show()).await;
    app.post(&show()).await;
    let app = app.reopen();
    assert_eq!(app.post(&show()).await.1["id"], 3);
    assert_eq!(
        app.get("/event").await.1["items"].as_array().unwrap().len(),
        3
    );
}

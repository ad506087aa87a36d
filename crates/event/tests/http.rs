//! The event service through its door: what it answers, what it refuses, and what it tells the others.
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
use web::idempotency::{AnswerRecord, Idempotency, once};

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const NOW: &str = "2027-01-15T08:00:00.000Z";

struct House {
    router: Router,
    store: Store,
    clock: Clock,
    folder: TempDir,
}

impl House {
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
        let router = router.layer(from_fn_with_state(idempotency, once));
        Self {
            router,
            store,
            clock,
            folder,
        }
    }

    /// What a crash and a start leave.
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

    /// Everything that the others were told.
    fn told(&self) -> Vec<(String, DomainMessage<domain::Event>)> {
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
async fn a_registered_event_can_be_read_and_everybody_is_told() {
    let house = House::open();
    let body = json!({"name": "An evening of tests", "ticketQuantity": 100, "price": 50_000,
        "saleOpensAt": "2027-02-01T09:00:00+09:00", "saleClosesAt": "2027-03-01T00:00:00Z"});

    let (status, answer) = house.post(&body).await;

    let expected = json!({"id": 1, "name": "An evening of tests", "ticketQuantity": 100, "price": 50_000,
        "buyerNamesPrice": false, "saleOpensAt": "2027-02-01T00:00:00.000Z", "saleClosesAt": "2027-03-01T00:00:00.000Z",
        "version": 1, "createdAt": NOW, "updatedAt": NOW});
    assert_eq!((status, &answer), (StatusCode::CREATED, &expected));
    assert_eq!(house.get("/event/1").await, (StatusCode::OK, expected));
    let told = house.told();
    assert_eq!(told.len(), 1);
    let (message_id, envelope) = &told[0];
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
async fn what_a_change_leaves_out_stays_as_it_is_and_everybody_is_told() {
    let house = House::open();
    let opens = "2027-02-01T00:00:00.000Z";
    let closes = "2027-03-01T00:00:00.000Z";
    let sale = with(
        with(show(), "saleOpensAt", json!(opens)),
        "saleClosesAt",
        json!(closes),
    );
    house.post(&with(sale, "price", json!(50_000))).await;
    house.clock.advance_millis(1500);

    let change =
        json!({"name": "A longer evening", "ticketQuantity": 0, "saleOpensAt": null, "version": 1});
    let (status, answer) = house.put("/event/1", &change).await;

    let expected = json!({"id": 1, "name": "A longer evening", "ticketQuantity": 0, "price": 50_000,
        "buyerNamesPrice": false, "saleOpensAt": null, "saleClosesAt": closes, "version": 2,
        "createdAt": NOW, "updatedAt": "2027-01-15T08:00:01.500Z"});
    assert_eq!((status, &answer), (StatusCode::OK, &expected));
    assert_eq!(house.get("/event/1").await.1, expected);
    let told = house.told();
    let (message_id, envelope) = told.last().unwrap();
    assert_eq!(message_id, "event:1:2");
    assert_eq!((envelope.version, envelope.event_type), (2, Change::Update));
    let payload = &envelope.payload;
    assert_eq!(
        (payload.ticket_quantity, payload.price.map(i64::from)),
        (0, Some(50_000))
    );
}

#[tokio::test]
async fn a_price_is_taken_away_only_by_saying_that_the_buyer_names_it() {
    let house = House::open();
    house.post(&with(show(), "price", json!(50_000))).await;
    let change = with(show(), "version", json!(1));

    let (status, problem) = house
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
    let (status, problem) = house
        .put("/event/1", &with(both.clone(), "price", json!(1)))
        .await;
    assert_eq!(
        (status, &problem["field"]),
        (StatusCode::BAD_REQUEST, &json!("buyerNamesPrice"))
    );

    let (status, answer) = house.put("/event/1", &both).await;
    assert_eq!(
        (status, &answer["price"], &answer["buyerNamesPrice"]),
        (StatusCode::OK, &json!(null), &json!(true))
    );
    let none = with(show(), "buyerNamesPrice", json!(false));
    assert_eq!(house.post(&none).await.1["field"], "price");
}

#[tokio::test]
async fn a_change_to_a_version_that_is_gone_changes_nothing() {
    let house = House::open();
    house.post(&show()).await;
    let change = with(show(), "version", json!(1));
    assert_eq!(house.put("/event/1", &change).await.0, StatusCode::OK);
    let before = house.get("/event/1").await;

    for version in [1, 3, -1] {
        let late = with(
            with(show(), "name", json!("Too late")),
            "version",
            json!(version),
        );
        let (status, problem) = house.put("/event/1", &late).await;
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::CONFLICT, &json!("VERSION_CONFLICT"))
        );
    }

    assert_eq!(house.get("/event/1").await, before);
    assert_eq!(house.told().len(), 2);
}

#[tokio::test]
async fn of_two_changes_at_once_one_wins() {
    let house = House::open();
    house.post(&show()).await;
    let change = with(show(), "version", json!(1));

    let (one, other) = tokio::join!(
        house.put("/event/1", &change),
        house.put("/event/1", &change)
    );

    let mut statuses = [one.0, other.0];
    statuses.sort();
    assert_eq!(statuses, [StatusCode::OK, StatusCode::CONFLICT]);
    assert_eq!(house.told().len(), 2);
}

#[tokio::test]
async fn an_unknown_event_is_not_found() {
    let house = House::open();
    let change = with(show(), "version", json!(1));
    for (status, problem) in [
        house.get("/event/7").await,
        house.put("/event/7", &change).await,
    ] {
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::NOT_FOUND, &json!("EVENT_NOT_FOUND"))
        );
    }
}

#[tokio::test]
async fn whatever_is_wrong_the_field_is_named_and_nothing_is_kept() {
    let house = House::open();
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
        let (status, problem) = house.post(&body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(
            (&problem["code"], &problem["field"]),
            (&json!("INVALID_REQUEST"), &json!(field)),
            "{body}"
        );
    }
    assert_eq!(house.get("/event").await.1, json!({"items": []}));
    assert!(house.told().is_empty());
    assert_eq!(house.post(&show()).await.1["id"], 1, "a refusal took an id");
}

#[tokio::test]
async fn a_malformed_or_oversized_request_is_refused() {
    let house = House::open();
    let big = with(show(), "name", json!("x".repeat(64 * 1024)));
    let table = [
        (
            StatusCode::BAD_REQUEST,
            "body",
            house
                .send(Request::post("/event").body("{".into()).unwrap())
                .await,
        ),
        (
            StatusCode::BAD_REQUEST,
            "body",
            house
                .send(Request::post("/event").body("{} {}".into()).unwrap())
                .await,
        ),
        (
            StatusCode::PAYLOAD_TOO_LARGE,
            "body",
            house.post(&big).await,
        ),
        (
            StatusCode::BAD_REQUEST,
            "id",
            house.get("/event/first").await,
        ),
        (
            StatusCode::BAD_REQUEST,
            "id",
            house.get("/event/99999999999999999999").await,
        ),
        (
            StatusCode::BAD_REQUEST,
            "limit",
            house.get("/event?limit=0").await,
        ),
        (
            StatusCode::BAD_REQUEST,
            "limit",
            house.get("/event?limit=501").await,
        ),
        (
            StatusCode::BAD_REQUEST,
            "after",
            house.get("/event?after=x").await,
        ),
        (StatusCode::BAD_REQUEST, "version", {
            house.put("/event/1", &show()).await
        }),
    ];
    for (number, (expected, field, (status, problem))) in table.into_iter().enumerate() {
        assert_eq!(status, expected, "{number}: {problem}");
        // The parser says more of a body that breaks off than its name.
        if field != "body" {
            assert_eq!(problem["field"], field, "{number}: {problem}");
        }
    }
}

#[tokio::test]
async fn the_list_is_read_in_pages_to_its_end() {
    let house = House::open();
    for number in 1..=5 {
        house
            .post(&with(show(), "name", json!(format!("Evening {number}"))))
            .await;
    }
    let mut names = Vec::new();
    let mut path = "/event?limit=2".to_owned();
    loop {
        let (status, page) = house.get(&path).await;
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
async fn a_key_registers_one_event_however_often_it_is_sent() {
    let house = House::open();
    let first = house.post_once("k", &show()).await;
    assert_eq!(first.0, StatusCode::CREATED);

    assert_eq!(house.post_once("k", &show()).await, first);
    let house = house.reopen();
    assert_eq!(house.post_once("k", &show()).await, first);

    let (status, problem) = house
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
        house.get("/event").await.1["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(house.told().len(), 1);
}

#[tokio::test]
async fn a_key_modifies_one_event_once_however_often_it_is_sent() {
    let house = House::open();
    house.post(&show()).await;
    let change = with(
        with(show(), "ticketQuantity", json!(120)),
        "version",
        json!(1),
    );
    let put = |path: &str, body: &Value| {
        let request = Request::put(path).header("Idempotency-Key", "k");
        request.body(body.to_string().into()).unwrap()
    };
    let first = house.send(put("/event/1", &change)).await;
    assert_eq!(first.0, StatusCode::OK, "{}", first.1);

    assert_eq!(house.send(put("/event/1", &change)).await, first);
    // What was refused is decided again: the event is there by then.
    let missing = house.send(put("/event/2", &change)).await;
    assert_eq!(missing.1["code"], "EVENT_NOT_FOUND");
    house.post(&show()).await;
    let found = house.send(put("/event/2", &change)).await;
    assert_eq!(found.0, StatusCode::OK, "{}", found.1);
    // A POST with the key is another request.
    assert_eq!(house.post_once("k", &show()).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn a_restart_keeps_events_and_draws_no_id_twice() {
    let house = House::open();
    house.post(&show()).await;
    house.post(&show()).await;
    let house = house.reopen();
    assert_eq!(house.post(&show()).await.1["id"], 3);
    assert_eq!(
        house.get("/event").await.1["items"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
}

//! The user service over HTTP: its answers, its refusals, and the stored state.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode},
    middleware::from_fn_with_state,
};
use contract::Timestamp;
use messaging::{Clock, Metrics, Record, Store, Table};
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;
use user::{Service, Settings};
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

    async fn with_kim() -> Self {
        let app = Self::open();
        let (status, _) = app.post("/user", &kim()).await;
        assert_eq!(status, StatusCode::CREATED);
        app
    }

    fn open_in(folder: TempDir) -> Self {
        let tables: Vec<&'static Table> =
            [messaging::TABLES, user::TABLES, &[AnswerRecord::TABLE]].concat();
        let store = Store::open_embedded(folder.path(), &tables, Metrics::unregistered()).unwrap();
        let clock = Clock::manual(START);
        let idempotency = Idempotency::new(store.clone(), clock.clone());
        let service = Service::new(store.clone(), clock.clone(), Settings::default());
        let router = user::http::router(service).split_for_parts().0;
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

    async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Request::post(path).body(body.to_string().into()).unwrap())
            .await
    }

    async fn post_once(&self, key: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let request = Request::post(path).header("Idempotency-Key", key);
        self.send(request.body(body.to_string().into()).unwrap())
            .await
    }

    async fn put(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        self.send(Request::put(path).body(body.to_string().into()).unwrap())
            .await
    }

    async fn entries(&self, id: i64) -> Vec<Value> {
        let (status, page) = self.get(&format!("/user/{id}/points")).await;
        assert_eq!(status, StatusCode::OK);
        page["items"].as_array().unwrap().clone()
    }

    async fn is_consistent(&self) -> bool {
        common::is_consistent(&self.store).await
    }
}

fn kim() -> Value {
    json!({"id": 1, "name": "Kim", "status": "ACTIVE", "points": 1000})
}

fn with(mut body: Value, field: &str, value: Value) -> Value {
    body[field] = value;
    body
}

#[tokio::test]
async fn a_registered_user_can_be_read_and_the_ledger_shows_the_granted_points() {
    let app = TestApp::open();

    let (status, answer) = app.post("/user", &kim()).await;

    let expected = json!({"id": 1, "name": "Kim", "status": "ACTIVE", "flagged": false, "points": 1000,
        "version": 1, "createdAt": NOW, "updatedAt": NOW});
    assert_eq!((status, &answer), (StatusCode::CREATED, &expected));
    assert_eq!(app.get("/user/1").await, (StatusCode::OK, expected));
    let entry = json!({"entryId": "1:0000000000000001", "kind": "GRANTED", "amount": 1000, "balanceAfter": 1000,
        "sagaId": null, "reason": "registration", "at": NOW});
    assert_eq!(app.entries(1).await, [entry]);
    assert!(app.is_consistent().await);
}

#[tokio::test]
async fn a_user_can_be_registered_with_a_name_only() {
    let app = TestApp::open();
    let (status, answer) = app.post("/user", &json!({"name": "Lee"})).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(
        (&answer["id"], &answer["status"], &answer["points"]),
        (&json!(1), &json!("ACTIVE"), &json!(0))
    );
    assert!(app.entries(1).await.is_empty());
}

#[tokio::test]
async fn a_taken_id_is_refused_and_its_owner_is_unchanged() {
    let app = TestApp::with_kim().await;
    let (status, problem) = app.post("/user", &with(kim(), "name", json!("Lee"))).await;
    assert_eq!(
        (status, &problem["code"]),
        (StatusCode::CONFLICT, &json!("USER_EXISTS"))
    );
    let (_, owner) = app.get("/user/1").await;
    assert_eq!(
        (&owner["name"], &owner["points"], &owner["version"]),
        (&json!("Kim"), &json!(1000), &json!(1))
    );
    assert_eq!(app.entries(1).await.len(), 1);
}

#[tokio::test]
async fn generated_ids_skip_given_ones() {
    let app = TestApp::open();
    let lee = json!({"name": "Lee"});
    assert_eq!(app.post("/user", &lee).await.1["id"], 1);
    for id in 2..40 {
        app.post("/user", &with(kim(), "id", json!(id))).await;
    }
    assert_eq!(app.post("/user", &lee).await.1["id"], 40);
    let app = app.reopen();
    app.post("/user", &with(kim(), "id", json!(1000))).await;
    assert_eq!(app.post("/user", &lee).await.1["id"], 1001);
}

#[tokio::test]
async fn concurrent_registrations_get_distinct_ids() {
    let app = TestApp::open();
    app.post("/user", &json!({"name": "Lee"})).await;
    let (lee, given) = (json!({"name": "Lee"}), with(kim(), "id", json!(2)));

    let (one, two, three) = tokio::join!(
        app.post("/user", &lee),
        app.post("/user", &given),
        app.post("/user", &lee)
    );

    let generated = [&one, &three].map(|(status, answer)| {
        assert_eq!(*status, StatusCode::CREATED, "{answer}");
        answer["id"].as_i64().unwrap()
    });
    assert_ne!(generated[0], generated[1]);
    let taken_twice = two.0 == StatusCode::CREATED && generated.contains(&2);
    assert!(!taken_twice && (two.0 == StatusCode::CREATED || generated.contains(&2)));
}

#[tokio::test]
async fn a_modified_user_is_stored_and_keeps_its_flag_until_it_is_cleared() {
    let app = TestApp::with_kim().await;
    app.clock.advance_millis(1500);
    let flag = json!({"name": "Kim", "status": "ACTIVE", "flagged": true, "version": 1});
    let (status, answer) = app.put("/user/1", &flag).await;
    let expected = json!({"id": 1, "name": "Kim", "status": "ACTIVE", "flagged": true, "points": 1000,
        "version": 2, "createdAt": NOW, "updatedAt": "2027-01-15T08:00:01.500Z"});
    assert_eq!((status, answer), (StatusCode::OK, expected));

    let rename = json!({"name": "Kim Minjun", "status": "INACTIVE", "version": 2});
    let (_, answer) = app.put("/user/1", &rename).await;
    assert_eq!(
        (&answer["flagged"], &answer["status"]),
        (&json!(true), &json!("INACTIVE"))
    );
    assert_eq!(app.get("/user/1").await.1, answer);
}

#[tokio::test]
async fn a_change_of_an_old_version_is_refused() {
    let app = TestApp::with_kim().await;
    let flag = json!({"name": "Kim", "status": "ACTIVE", "flagged": true, "version": 1});
    app.put("/user/1", &flag).await;
    for version in [1, 3, 0, -1] {
        let late = json!({"name": "Too late", "status": "ACTIVE", "version": version});
        let (status, problem) = app.put("/user/1", &late).await;
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::CONFLICT, &json!("VERSION_CONFLICT"))
        );
    }
    assert_eq!(app.get("/user/1").await.1["name"], "Kim");
}

#[tokio::test]
async fn a_concurrent_grant_does_not_prevent_blocking_a_user() {
    let app = TestApp::with_kim().await;
    let seen = app.get("/user/1").await.1["version"].clone();
    app.post("/user/1/points", &json!({"amount": 1})).await;

    let block = json!({"name": "Kim", "status": "INACTIVE", "version": seen});
    let (status, answer) = app.put("/user/1", &block).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&answer["status"], &answer["points"], &answer["version"]),
        (&json!("INACTIVE"), &json!(1001), &json!(3))
    );
    let stale = app.put("/user/1", &block).await;
    assert_eq!(stale.0, StatusCode::CONFLICT, "it was changed since");
}

#[tokio::test]
async fn granted_points_are_in_the_balance_and_in_the_ledger() {
    let app = TestApp::with_kim().await;

    let grant = json!({"amount": 250, "reason": "a birthday"});
    let answer = app.post("/user/1/points", &grant).await;

    assert_eq!(
        answer,
        (StatusCode::OK, json!({"userId": 1, "points": 1250}))
    );
    assert_eq!(app.get("/user/1").await.1["points"], 1250);
    let entry = app.entries(1).await.pop().unwrap();
    assert_eq!(
        (&entry["amount"], &entry["balanceAfter"]),
        (&json!(250), &json!(1250))
    );
    assert_eq!(entry["reason"], "a birthday");
    assert!(app.is_consistent().await);
}

#[tokio::test]
async fn concurrent_grants_are_all_counted() {
    let app = TestApp::with_kim().await;
    let grant = json!({"amount": 5});
    let five = tokio::join!(
        app.post("/user/1/points", &grant),
        app.post("/user/1/points", &grant),
        app.post("/user/1/points", &grant),
        app.post("/user/1/points", &grant),
        app.post("/user/1/points", &grant),
    );
    for (status, answer) in [five.0, five.1, five.2, five.3, five.4] {
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    assert_eq!(app.get("/user/1").await.1["points"], 1025);
    assert_eq!(app.entries(1).await.len(), 6);
    assert!(app.is_consistent().await);
}

#[tokio::test]
async fn the_ledger_is_paged_in_the_order_of_its_changes() {
    let app = TestApp::with_kim().await;
    app.post("/user", &json!({"id": 10, "name": "Lee", "points": 77}))
        .await;
    for amount in 1..=11 {
        app.post("/user/1/points", &json!({"amount": amount})).await;
    }
    let mut amounts = Vec::new();
    let mut path = "/user/1/points?limit=5".to_owned();
    loop {
        let (status, page) = app.get(&path).await;
        assert_eq!(status, StatusCode::OK);
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 5);
        amounts.extend(items.iter().map(|item| item["amount"].as_i64().unwrap()));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/user/1/points?limit=5&after={next}");
    }
    assert_eq!(amounts, [1000, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
}

#[tokio::test]
async fn an_unknown_user_is_not_found() {
    let app = TestApp::open();
    let change = json!({"name": "Kim", "status": "ACTIVE", "version": 1});
    let answers = [
        app.get("/user/7").await,
        app.put("/user/7", &change).await,
        app.post("/user/7/points", &json!({"amount": 1})).await,
        app.get("/user/7/points").await,
    ];
    for (status, problem) in answers {
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::NOT_FOUND, &json!("USER_NOT_FOUND"))
        );
    }
}

#[tokio::test]
async fn an_invalid_request_names_its_field_and_stores_nothing() {
    let app = TestApp::with_kim().await;
    let lee = json!({"name": "Lee"});
    let change = json!({"name": "Lee", "status": "ACTIVE", "version": 1});
    let grant = json!({"amount": 1});
    let posts = [
        ("/user", "name", json!({"id": 2})),
        ("/user", "name", with(lee.clone(), "name", json!(""))),
        (
            "/user",
            "name",
            with(lee.clone(), "name", json!("x".repeat(201))),
        ),
        ("/user", "id", with(lee.clone(), "id", json!(0))),
        ("/user", "id", with(lee.clone(), "id", json!(-1))),
        ("/user", "id", with(lee.clone(), "id", json!("2"))),
        ("/user", "id", with(lee.clone(), "id", json!(i64::MAX))),
        (
            "/user",
            "status",
            with(lee.clone(), "status", json!("SLEEPING")),
        ),
        ("/user", "points", with(lee.clone(), "points", json!(-1))),
        ("/user", "points", with(lee.clone(), "points", json!(1.5))),
        (
            "/user",
            "points",
            with(lee.clone(), "points", json!(i64::MAX)),
        ),
        ("/user", "colour", with(lee.clone(), "colour", json!("red"))),
        ("/user/1/points", "amount", json!({})),
        (
            "/user/1/points",
            "amount",
            with(grant.clone(), "amount", json!(0)),
        ),
        (
            "/user/1/points",
            "amount",
            with(grant.clone(), "amount", json!(-5)),
        ),
        (
            "/user/1/points",
            "amount",
            with(grant.clone(), "amount", json!(i64::MAX)),
        ),
        (
            "/user/1/points",
            "reason",
            with(grant.clone(), "reason", json!("x".repeat(201))),
        ),
        ("/user/x/points", "id", grant),
    ];
    for (path, field, body) in posts {
        let (status, problem) = app.post(path, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(
            (&problem["code"], &problem["field"]),
            (&json!("INVALID_REQUEST"), &json!(field)),
            "{body}"
        );
    }
    let puts = [
        ("name", with(change.clone(), "name", json!(" "))),
        ("flagged", with(change.clone(), "flagged", json!("yes"))),
        ("status", json!({"name": "Lee", "version": 1})),
        ("version", json!({"name": "Lee", "status": "ACTIVE"})),
        ("points", with(change, "points", json!(5))),
    ];
    for (field, body) in puts {
        let (status, problem) = app.put("/user/1", &body).await;
        assert_eq!(
            (status, &problem["field"]),
            (StatusCode::BAD_REQUEST, &json!(field)),
            "{body}"
        );
    }
    for (field, path) in [
        ("id", "/user/first"),
        ("limit", "/user/1/points?limit=0"),
        ("limit", "/user/1/points?limit=x"),
    ] {
        let (status, problem) = app.get(path).await;
        assert_eq!(
            (status, &problem["field"]),
            (StatusCode::BAD_REQUEST, &json!(field)),
            "{path}"
        );
    }
    assert_eq!(app.get("/user/1").await.1["version"], 1);
    assert_eq!(app.get("/user/2").await.0, StatusCode::NOT_FOUND);
    assert_eq!(
        app.post("/user", &lee).await.1["id"],
        2,
        "a refusal took an id"
    );
}

#[tokio::test]
async fn a_malformed_or_oversized_body_is_refused() {
    let app = TestApp::with_kim().await;
    let malformed = app
        .send(Request::post("/user").body("{\"name\": ".into()).unwrap())
        .await;
    assert_eq!(malformed.0, StatusCode::BAD_REQUEST);
    let big = with(kim(), "name", json!("x".repeat(64 * 1024)));
    for (status, problem) in [
        app.post("/user", &big).await,
        app.post_once("k", "/user", &big).await,
        app.put("/user/1", &big).await,
        app.post("/user/1/points", &big).await,
    ] {
        assert_eq!(
            (status, &problem["code"]),
            (StatusCode::PAYLOAD_TOO_LARGE, &json!("BODY_TOO_LARGE"))
        );
    }
}

#[tokio::test]
async fn a_repeated_key_grants_points_once() {
    let app = TestApp::with_kim().await;
    let grant = json!({"amount": 250});
    let first = app.post_once("k", "/user/1/points", &grant).await;
    assert_eq!(first.1["points"], 1250);
    app.post("/user/1/points", &json!({"amount": 1})).await;

    assert_eq!(app.post_once("k", "/user/1/points", &grant).await, first);
    let app = app.reopen();
    assert_eq!(app.post_once("k", "/user/1/points", &grant).await, first);

    let (status, problem) = app
        .post_once("k", "/user/1/points", &json!({"amount": 251}))
        .await;
    assert_eq!(
        (status, &problem["code"]),
        (
            StatusCode::UNPROCESSABLE_ENTITY,
            &json!("IDEMPOTENCY_KEY_REUSED")
        )
    );
    assert_eq!(app.get("/user/1").await.1["points"], 1251);
    assert!(app.is_consistent().await);
}

#[tokio::test]
async fn a_repeated_key_modifies_a_user_once() {
    let app = TestApp::with_kim().await;
    let change = json!({"name": "Kim Lee", "status": "ACTIVE", "version": 1});
    let put = |body: &Value| {
        let request = Request::put("/user/1").header("Idempotency-Key", "k");
        request.body(body.to_string().into()).unwrap()
    };
    let first = app.send(put(&change)).await;
    assert_eq!(
        (first.0, &first.1["name"]),
        (StatusCode::OK, &json!("Kim Lee"))
    );

    // Without the key this would be a version conflict.
    assert_eq!(app.send(put(&change)).await, first);
    let (_, refused) = app.send(put(&with(change, "name", json!("Park")))).await;
    assert_eq!(refused["code"], "IDEMPOTENCY_KEY_REUSED");
    assert_eq!(app.get("/user/1").await.1["name"], "Kim Lee");
}

#[tokio::test]
async fn a_repeated_key_registers_one_user() {
    let app = TestApp::open();
    let lee = json!({"name": "Lee", "points": 5});
    let first = app.post_once("k", "/user", &lee).await;
    assert_eq!(first.0, StatusCode::CREATED);
    assert_eq!(app.post_once("k", "/user", &lee).await, first);
    assert_eq!(app.get("/user/2").await.0, StatusCode::NOT_FOUND);

    let refused = app
        .post_once("l", "/user", &with(kim(), "id", json!(1)))
        .await;
    assert_eq!(refused.1["code"], "USER_EXISTS");
    assert_eq!(
        app.post_once("l", "/user", &with(kim(), "id", json!(1)))
            .await,
        refused
    );
}

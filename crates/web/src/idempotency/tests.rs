//! Concurrent requests with one key, and which answers are saved.

use std::collections::BTreeSet;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::Method,
    middleware::from_fn_with_state,
    routing,
};
use http_body_util::BodyExt as _;
use messaging::{Clock, Metrics, Record as _, Store};
use tokio::sync::Barrier;
use tower::ServiceExt as _;

use super::*;
use crate::Problem;

/// A handler that commits its work together with the answer.
async fn work(
    State((store, both, process)): State<(Store, Arc<Barrier>, &'static str)>,
    request: IdempotentRequest,
) -> Result<Response, Problem> {
    both.wait().await;
    let mut commit = Commit::new();
    let answer = request.answer(&mut commit, StatusCode::CREATED, &process);
    store.commit(commit).await?;
    Ok(answer)
}

#[tokio::test]
async fn concurrent_requests_with_one_key_to_two_processes_get_one_answer() {
    // Given two processes over one store,
    let folder = tempfile::tempdir().unwrap();
    let tables = &[AnswerRecord::TABLE];
    let store = Store::open_embedded(folder.path(), tables, Metrics::unregistered()).unwrap();
    let both = Arc::new(Barrier::new(2));
    let process = |name: &'static str| {
        let idempotency = Idempotency::new(store.clone(), Clock::System);
        Router::new()
            .route("/work", routing::post(work))
            .layer(from_fn_with_state(idempotency, idempotent))
            .with_state((store.clone(), Arc::clone(&both), name))
    };
    // when both run the same request at the same time,
    let ask = |name| async move {
        let request = Request::post("/work").header(HEADER, "one");
        let request = request.body(Body::from("{}")).unwrap();
        let answer = process(name).oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status.as_u16(), String::from_utf8_lossy(&body).into_owned())
    };
    let (one, other) = futures::join!(ask("one"), ask("other"));
    // then the work is done once, and both get its answer.
    assert_eq!(one.0, 201, "{one:?}");
    assert_eq!(BTreeSet::from([one, other]).len(), 1);
}

async fn refuses() -> Problem {
    Problem::conflict("SOLD_OUT", "not now")
}

async fn is_pending() -> Response {
    pending(StatusCode::ACCEPTED, "not yet")
}

#[tokio::test]
async fn only_effects_are_saved_and_unknown_paths_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let tables = &[AnswerRecord::TABLE];
    let store = Store::open_embedded(folder.path(), tables, Metrics::unregistered()).unwrap();
    let idempotency = Idempotency::new(store.clone(), Clock::System);
    let router = Router::new()
        .route("/refuses", routing::post(refuses))
        .route("/under-way", routing::post(is_pending))
        .route("/done", routing::put(async || "done").get(async || "read"))
        .layer(from_fn_with_state(idempotency, idempotent));
    let ask = |method: Method, path: &str, keys: &[&str]| {
        let mut request = Request::builder().method(method).uri(path);
        for key in keys {
            request = request.header(HEADER, *key);
        }
        let answer = router.clone().oneshot(request.body(Body::empty()).unwrap());
        async move { answer.await.unwrap() }
    };
    let long = format!("/nowhere/{}", "x".repeat(60_000));
    for (method, path, status) in [
        (Method::POST, "/refuses", 409),
        (Method::POST, "/under-way", 202),
        (Method::POST, "/done", 405),
        (Method::POST, &long, 404),
        (Method::GET, "/done", 200),
    ] {
        assert_eq!(ask(method, path, &["k"]).await.status(), status, "{path}");
    }
    let unknown = ask(Method::POST, "/nowhere", &["k", "l"]).await;
    assert_eq!(unknown.status(), 404, "the keys are ignored");
    let find = || messaging::Find::all(AnswerRecord::TABLE, 10);
    let saved: Vec<AnswerRecord> = store.find(find()).await.unwrap();
    assert_eq!(saved, []);

    assert_eq!(ask(Method::PUT, "/done", &["k", "l"]).await.status(), 400);
    for is_replayed in [false, true] {
        let done = ask(Method::PUT, "/done", &["k"]).await;
        assert_eq!(done.status(), 200);
        assert_eq!(done.headers().contains_key(REPLAYED_HEADER), is_replayed);
    }
    let saved: Vec<AnswerRecord> = store.find(find()).await.unwrap();
    assert_eq!(saved.len(), 1);
}

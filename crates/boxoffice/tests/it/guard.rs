//! What holds for every route: limits, refusals, panics, idempotency keys, a graceful stop.

use std::sync::Arc;

use crate::support::{Running, TIMEOUT, assert_problem};
use axum::{Router, routing};
use messaging::{Metrics, Store};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::Semaphore};

/// A route that signals each request and answers when the test allows it.
#[derive(Clone)]
struct Gate {
    entered: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    fn new() -> Self {
        Self {
            entered: Arc::new(Semaphore::new(0)),
            open: Arc::new(Semaphore::new(0)),
        }
    }

    fn router(&self) -> Router {
        let gate = self.clone();
        let handler = move || async move {
            gate.entered.add_permits(1);
            gate.open.acquire().await.unwrap().forget();
            "through"
        };
        Router::new().route("/gate", routing::any(handler))
    }

    async fn entered(&self) {
        let entered = tokio::time::timeout(TIMEOUT, self.entered.acquire()).await;
        entered
            .expect("the request never arrived")
            .unwrap()
            .forget();
    }
}

#[tokio::test]
async fn an_unknown_path_is_a_problem() {
    let it = Running::start().await;
    let body = assert_problem(it.get("/nowhere").await, 404, "NOT_FOUND").await;
    assert_eq!(body["detail"], "no route has the path /nowhere");
}

#[tokio::test]
async fn an_unsupported_method_is_a_problem_that_names_the_supported_ones() {
    let it = Running::start().await;
    let response = it.send(Method::PATCH, "/event").await;
    let allowed = response.headers()["allow"].to_str().unwrap().to_owned();
    assert!(
        allowed.contains("POST") && allowed.contains("GET"),
        "{allowed}"
    );
    assert_problem(response, 405, "METHOD_NOT_ALLOWED").await;
}

#[tokio::test]
async fn a_body_over_64_kib_is_refused_with_and_without_a_key() {
    let it = Running::start().await;
    let body = format!(
        "{{\"name\":\"{}\",\"ticketQuantity\":1}}",
        "x".repeat(64 * 1024)
    );
    for key in [None, Some("large")] {
        let mut request = it.client.post(it.url("/event")).body(body.clone());
        if let Some(key) = key {
            request = request.header("Idempotency-Key", key);
        }
        assert_problem(request.send().await.unwrap(), 413, "BODY_TOO_LARGE").await;
    }
}

#[tokio::test]
async fn a_repeated_key_replays_and_with_another_body_is_refused() {
    let it = Running::start().await;
    let register = |quantity: i64| {
        it.client
            .post(it.url("/event"))
            .header("Idempotency-Key", "one")
            .json(&json!({ "name": "Show", "ticketQuantity": quantity }))
            .send()
    };
    let first = register(10).await.unwrap();
    assert_eq!(first.status(), 201);
    let first = first.text().await.unwrap();

    let again = register(10).await.unwrap();
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.text().await.unwrap(), first);

    assert_problem(register(11).await.unwrap(), 422, "IDEMPOTENCY_KEY_REUSED").await;
}

#[tokio::test]
async fn a_key_is_refused_while_its_first_request_is_in_flight() {
    let gate = Gate::new();
    let it = Running::start_with(|_| {}, gate.router()).await;
    let request = || {
        let request = it
            .client
            .post(it.url("/gate"))
            .header("Idempotency-Key", "one");
        request.send()
    };
    let first = tokio::spawn(request());
    gate.entered().await;

    let second = assert_problem(request().await.unwrap(), 409, "IDEMPOTENCY_KEY_IN_FLIGHT");
    second.await;

    gate.open.add_permits(1);
    assert_eq!(
        first.await.unwrap().unwrap().text().await.unwrap(),
        "through"
    );
    let replayed = request().await.unwrap();
    assert_eq!(replayed.headers()["idempotency-replayed"], "true");
}

#[tokio::test]
async fn a_panicking_handler_is_a_problem_without_details_and_the_next_request_is_answered() {
    async fn bug() -> &'static str {
        panic!("a secret of the inside")
    }
    let it = Running::start_with(|_| {}, Router::new().route("/bug", routing::get(bug))).await;
    let body = assert_problem(it.get("/bug").await, 500, "INTERNAL").await;
    assert!(!body.to_string().contains("secret"), "{body}");
    assert_eq!(it.get("/healthz").await.status(), 200);
}

#[tokio::test]
async fn one_request_too_many_is_shed_at_once_while_health_is_still_answered() {
    let gate = Gate::new();
    let it = Running::start_with(|config| config.http.in_flight_max = 1, gate.router()).await;
    let first = tokio::spawn(it.client.get(it.url("/gate")).send());
    gate.entered().await;

    let shed = it.get("/event").await;
    assert_eq!(shed.headers()["retry-after"], "1");
    assert_problem(shed, 503, "OVERLOADED").await;
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(it.get(path).await.status(), 200, "{path}");
    }

    gate.open.add_permits(1);
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(it.get("/event").await.status(), 200);
}

#[tokio::test]
async fn a_disconnected_client_frees_its_slot() {
    let gate = Gate::new();
    let it = Running::start_with(|config| config.http.in_flight_max = 1, gate.router()).await;
    let first = tokio::spawn(it.client.get(it.url("/gate")).send());
    gate.entered().await;
    first.abort();

    let free = async {
        while it.get("/event").await.status() != 200 {
            tokio::task::yield_now().await;
        }
    };
    let free = tokio::time::timeout(TIMEOUT, free).await;
    free.expect("the slot was never freed");
}

#[tokio::test]
async fn a_request_that_takes_too_long_times_out() {
    let never = Router::new().route("/never", routing::get(std::future::pending::<()>));
    let it = Running::start_with(|config| config.http.request_timeout_millis = 10, never).await;
    assert_problem(it.get("/never").await, 504, "REQUEST_TIMEOUT").await;
}

#[tokio::test]
async fn a_stop_finishes_accepted_requests_accepts_no_new_ones_and_closes_the_store() {
    let gate = Gate::new();
    let it = Running::start_with(|_| {}, gate.router()).await;
    let address = it.app.address();
    let accepted = tokio::spawn(it.client.get(it.url("/gate")).send());
    gate.entered().await;

    let stopped = tokio::spawn(it.app.stop());
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let refused = tokio::time::timeout(TIMEOUT, refused).await;
    refused.expect("new connections are still taken");
    assert!(!stopped.is_finished());

    gate.open.add_permits(1);
    let answer = accepted.await.unwrap().unwrap();
    assert_eq!(answer.text().await.unwrap(), "through");
    stopped.await.unwrap();
    let tables = boxoffice::app::tables();
    let opened = Store::open_embedded(
        boxoffice::backends::data_folder(it.folder.path()),
        &tables,
        Metrics::unregistered(),
    );
    assert!(opened.is_ok(), "{:?}", opened.err());
}

#[tokio::test]
async fn a_stop_has_a_timeout() {
    let gate = Gate::new();
    let change = |config: &mut boxoffice::config::Config| config.http.shutdown_timeout_millis = 10;
    let it = Running::start_with(change, gate.router()).await;
    let accepted = tokio::spawn(it.client.get(it.url("/gate")).send());
    gate.entered().await;

    let stopped = tokio::time::timeout(TIMEOUT, it.app.stop()).await;
    assert!(stopped.is_ok());
    assert!(!accepted.is_finished());
}

#[tokio::test]
async fn a_page_of_another_site_changes_nothing() {
    let it = Running::start().await;
    let event = json!({ "name": "Show", "ticketQuantity": 5 });
    let post = |origin: String| {
        it.client
            .post(it.url("/event"))
            .header("origin", origin)
            .json(&event)
            .send()
    };

    assert_problem(
        post("https://elsewhere.example".to_owned()).await.unwrap(),
        403,
        "CROSS_ORIGIN_REQUEST",
    )
    .await;
    let listed: Value = it.get("/event").await.json().await.unwrap();
    assert_eq!(listed["items"], json!([]), "nothing was registered");

    assert_eq!(
        post(it.app.url()).await.unwrap().status(),
        201,
        "the server's own console is allowed"
    );
}

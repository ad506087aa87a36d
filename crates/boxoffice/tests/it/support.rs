//! Boxoffice in the test's process, with its own folder and port and a manual clock.

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use boxoffice::{
    app::App,
    config::{Config, Flags},
};
use contract::Timestamp;
use messaging::{Clock, Random};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
pub use test_support::api::client;
use test_support::api::{ApiAnswer, ApiRequest, Purchase};

/// The test fails if an awaited condition takes longer.
pub const TIMEOUT: Duration = Duration::from_secs(20);

/// The price of every ticket of [`Running::event`].
pub const PRICE: i64 = 1000;

pub struct Running {
    pub app: App,
    pub client: Client,
    pub folder: TempDir,
}

/// The default settings, with a free port.
pub fn config(folder: &TempDir) -> Config {
    let flags = Flags {
        data: Some(folder.path().to_owned()),
        listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
        services: None,
    };
    Config::load(None, [], &flags).unwrap()
}

impl Running {
    pub async fn start() -> Self {
        Self::start_with(|_| {}, Router::new()).await
    }

    pub async fn start_with(change: impl FnOnce(&mut Config), extra: Router) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(&folder);
        change(&mut config);
        let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        let app = App::start_with(config, clock, Random::seeded(1), extra).await;
        Self {
            app: app.unwrap(),
            client: client(),
            folder,
        }
    }

    pub async fn call(&self, request: ApiRequest) -> ApiAnswer {
        let url = self.app.url();
        request.send(&self.client, &url).await.unwrap()
    }

    /// Registers an event with tickets at [`PRICE`] and waits until it is on sale.
    pub async fn event(&self, quantity: i64) -> i64 {
        let registered = self.call(ApiRequest::register_event("Show", quantity, PRICE));
        let event = registered.await.ok(201)["id"].as_i64().unwrap();
        let stock = format!("/ticketing/event/{event}");
        self.eventually(&stock, |stock| stock["available"] == quantity)
            .await;
        event
    }

    pub async fn user(&self, status: &str, points: i64) -> i64 {
        let registered = self.call(ApiRequest::register_user("Buyer", status, points));
        registered.await.ok(201)["id"].as_i64().unwrap()
    }

    pub async fn reserved(&self, event: i64, user: i64) -> String {
        let reserved = self.call(ApiRequest::reserve(event, user)).await.ok(200);
        reserved["ticketId"].as_str().unwrap().to_owned()
    }

    /// Processes a reservation and waits until its purchase is in this state.
    pub async fn processed(&self, purchase: Purchase<'_>, state: &str) -> Value {
        self.call(ApiRequest::process(purchase)).await.ok(202);
        let path = format!("/ticketing/process/{}", purchase.ticket);
        self.eventually(&path, |it| it["sagaState"] == state).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.app.url())
    }

    pub async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path).await
    }

    pub async fn send(&self, method: Method, path: &str) -> Response {
        let request = self.client.request(method, self.url(path));
        request.send().await.unwrap()
    }

    /// Waits until the JSON at `path` is as wanted; reads it again after each commit.
    pub async fn eventually(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut committed = self.app.store().committed();
        let found = async {
            loop {
                committed.borrow_and_update();
                let body: Value = self.get(path).await.json().await.unwrap();
                if wanted(&body) {
                    return body;
                }
                committed.changed().await.unwrap();
            }
        };
        let found = tokio::time::timeout(TIMEOUT, found).await;
        found.unwrap_or_else(|_| panic!("{path} never became as wanted"))
    }
}

/// Asserts that the answer is a problem with this status and code.
pub async fn assert_problem(response: Response, status: u16, code: &str) -> Value {
    assert_eq!(response.status(), StatusCode::from_u16(status).unwrap());
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    let body: Value = response.json().await.unwrap();
    assert_eq!(body["code"], code, "{body}");
    assert_eq!(body["status"], status);
    let anchor = code.to_lowercase().replace('_', "-");
    assert_eq!(body["type"], format!("/docs/problems#{anchor}"));
    body
}

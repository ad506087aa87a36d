//! The payment gateway's sandbox behind a door of the test's own: it can be away, or charge and not say so.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use axum::{
    extract::{Request, State},
    http::{Method, StatusCode},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use payment::{
    gateway::SecretKey,
    sandbox::{Sandbox, SandboxSettings},
};
use reqwest::Client;
use serde_json::Value;
use tokio::{net::TcpListener, task::AbortHandle};

pub const SECRET: &str = "test_sk_scenarios";

/// How the gateway behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mood {
    Well,
    /// Nobody is there: nothing is done, and nothing is told.
    Away,
    /// What is asked for is done, and nothing is told.
    Dumb,
}

/// Dropping it ends it.
pub struct Gateway {
    pub url: String,
    mood: Arc<AtomicU8>,
    server: AbortHandle,
}

impl Gateway {
    pub async fn start() -> Self {
        let settings = SandboxSettings::new(SecretKey::new(SECRET));
        let mood = Arc::new(AtomicU8::new(Mood::Well as u8));
        let router = Sandbox::open(settings)
            .unwrap()
            .router()
            .layer(middleware::from_fn_with_state(Arc::clone(&mood), answer));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = async move { axum::serve(listener, router).await.unwrap() };
        let server = tokio::spawn(serving).abort_handle();
        Self { url, mood, server }
    }

    pub fn turn(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// What it says of a charge by its key: status, amount, and what is left of it.
    pub async fn charge(&self, client: &Client, key: &str) -> Option<(String, i64, i64)> {
        let url = format!("{}/v1/payments/{key}", self.url);
        let request = client.get(url).basic_auth(SECRET, Some(""));
        let response = request.send().await.unwrap();
        if response.status() == 404 {
            return None;
        }
        let body: Value = response.json().await.unwrap();
        Some((
            body["status"].as_str().unwrap().to_owned(),
            body["totalAmount"].as_i64().unwrap(),
            body["balanceAmount"].as_i64().unwrap(),
        ))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(mood): State<Arc<AtomicU8>>, request: Request, next: Next) -> Response {
    let silence = || StatusCode::SERVICE_UNAVAILABLE.into_response();
    let asks_for_change = request.method() == Method::POST;
    match mood.load(Ordering::SeqCst) {
        mood if mood == Mood::Away as u8 => silence(),
        mood if mood == Mood::Dumb as u8 => {
            if asks_for_change {
                next.run(request).await;
            }
            silence()
        }
        _ => next.run(request).await,
    }
}

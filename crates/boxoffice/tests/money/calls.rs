//! All requests of the clients with their answers.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use reqwest::{Method, Response};
use serde_json::Value;

/// A request. Every POST has an idempotency key, the same however often it is sent.
#[derive(Debug, Clone)]
pub struct ApiRequest {
    pub method: Method,
    pub path: String,
    pub key: String,
    pub body: Value,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct ApiAnswer {
    pub status: u16,
    pub body: Value,
}

#[derive(Default)]
pub struct CallLog {
    entries: Mutex<Vec<(ApiRequest, ApiAnswer)>>,
    answers: AtomicUsize,
}

impl ApiRequest {
    pub fn post(path: &str, key: String, body: Value) -> Self {
        Self {
            method: Method::POST,
            path: path.to_owned(),
            key,
            body,
        }
    }

    pub fn delete(path: String) -> Self {
        Self {
            method: Method::DELETE,
            path,
            key: String::new(),
            body: Value::Null,
        }
    }
}

impl ApiAnswer {
    /// `None` if the connection broke before the end.
    pub async fn read(response: Response) -> Option<Self> {
        let status = response.status().as_u16();
        let body = response.text().await.ok()?;
        Some(Self {
            status,
            body: serde_json::from_str(&body).unwrap_or(Value::Null),
        })
    }

    /// The same request should be sent again.
    pub fn is_retryable(&self) -> bool {
        self.status >= 500 || self.code() == "IDEMPOTENCY_KEY_IN_FLIGHT"
    }

    pub fn code(&self) -> &str {
        self.text("code").unwrap_or_default()
    }

    pub fn text(&self, field: &str) -> Option<&str> {
        self.body[field].as_str()
    }
}

impl CallLog {
    pub fn note(&self, request: &ApiRequest, answer: &ApiAnswer) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if !answer.is_retryable() {
            let mut entries = self.entries.lock().unwrap();
            entries.push((request.clone(), answer.clone()));
        }
    }

    /// Number of answers so far.
    pub fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    /// Requests to this path that were answered with this status, with their answers.
    pub fn answered(&self, path: &str, status: u16) -> Vec<(ApiRequest, ApiAnswer)> {
        let entries = self.entries.lock().unwrap();
        let found = entries
            .iter()
            .filter(|(request, answer)| request.path == path && answer.status == status);
        found.cloned().collect()
    }

    /// Tickets whose release was confirmed.
    pub fn released(&self) -> Vec<String> {
        let entries = self.entries.lock().unwrap();
        let done = entries
            .iter()
            .filter(|(request, answer)| request.method == Method::DELETE && answer.status == 204);
        let tickets = done.filter_map(|(request, _)| request.path.rsplit('/').next());
        tickets.map(str::to_owned).collect()
    }
}

//! What the clients asked and what they were told.

use std::sync::{
    Mutex,
    atomic::{AtomicUsize, Ordering},
};

use reqwest::{Method, Response};
use serde_json::Value;

/// A request. Every POST has an idempotency key, the same however often it is sent.
#[derive(Debug, Clone)]
pub struct Ask {
    pub method: Method,
    pub path: String,
    pub key: String,
    pub body: Value,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Told {
    pub status: u16,
    pub body: Value,
}

#[derive(Default)]
pub struct Ledger {
    entries: Mutex<Vec<(Ask, Told)>>,
    answers: AtomicUsize,
}

impl Ask {
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

impl Told {
    /// `None` where the connection broke before the end.
    pub async fn read(response: Response) -> Option<Self> {
        let status = response.status().as_u16();
        let body = response.text().await.ok()?;
        Some(Self {
            status,
            body: serde_json::from_str(&body).unwrap_or(Value::Null),
        })
    }

    /// It asks to send the same request again.
    pub fn is_passing(&self) -> bool {
        self.status >= 500 || self.code() == "IDEMPOTENCY_KEY_IN_FLIGHT"
    }

    pub fn code(&self) -> &str {
        self.text("code").unwrap_or_default()
    }

    pub fn text(&self, field: &str) -> Option<&str> {
        self.body[field].as_str()
    }
}

impl Ledger {
    pub fn note(&self, ask: &Ask, told: &Told) {
        self.answers.fetch_add(1, Ordering::Relaxed);
        if !told.is_passing() {
            let mut entries = self.entries.lock().unwrap();
            entries.push((ask.clone(), told.clone()));
        }
    }

    /// How many answers were given so far.
    pub fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    /// Everything that was answered with this status at this address.
    pub fn told(&self, path: &str, status: u16) -> Vec<(Ask, Told)> {
        let entries = self.entries.lock().unwrap();
        let found = entries
            .iter()
            .filter(|(ask, told)| ask.path == path && told.status == status);
        found.cloned().collect()
    }

    /// Tickets whose buyers were told that they are released.
    pub fn released(&self) -> Vec<String> {
        let entries = self.entries.lock().unwrap();
        let done = entries
            .iter()
            .filter(|(ask, told)| ask.method == Method::DELETE && told.status == 204);
        let tickets = done.filter_map(|(ask, _)| ask.path.rsplit('/').next());
        tickets.map(str::to_owned).collect()
    }
}

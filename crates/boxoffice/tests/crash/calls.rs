//! All requests of the clients and their answers, over all servers that a folder has had.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use contract::UserId;
use reqwest::{Method, Response, header};
use serde_json::{Value, json};
use web::idempotency::record_key;

use crate::server::Server;

const WEBHOOK_PATH: &str = "/payment/webhook/toss";

/// A request. Every POST has an idempotency key.
#[derive(Debug, Clone)]
pub struct ApiRequest {
    pub method: Method,
    pub path: String,
    pub key: String,
    pub body: Value,
    /// Makes the sandbox gateway answer in this way.
    pub test_code: Option<&'static str>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiAnswer {
    pub status: u16,
    pub body: String,
    /// A 5xx or an answer with `Retry-After`: the request may be sent again with its key.
    pub is_retryable: bool,
    pub is_replay: bool,
}

#[derive(Default)]
pub struct CallLog {
    entries: Mutex<Vec<(ApiRequest, Option<ApiAnswer>)>>,
    answers: AtomicUsize,
}

impl ApiRequest {
    pub fn post(path: &str, key: String, body: Value) -> Self {
        Self {
            method: Method::POST,
            path: path.to_owned(),
            key,
            body,
            test_code: None,
        }
    }

    pub fn delete(path: String) -> Self {
        Self {
            method: Method::DELETE,
            path,
            key: String::new(),
            body: Value::Null,
            test_code: None,
        }
    }

    /// A webhook of the gateway about a payment.
    pub fn webhook(transmission: String, data: Value) -> Self {
        let body = json!({ "eventType": "PAYMENT_STATUS_CHANGED", "data": data });
        Self::post(WEBHOOK_PATH, transmission, body)
    }

    fn is_webhook(&self) -> bool {
        self.path == WEBHOOK_PATH
    }

    /// The key under which the server saves its answer.
    pub fn scope(&self) -> String {
        let caller = self.body["userId"].as_i64().map(UserId);
        record_key(&Method::POST, &self.path, caller, &self.key)
    }

    /// Sends the request; `None` if the server exited before it answered.
    pub async fn send(&self, server: &Server) -> Option<ApiAnswer> {
        let url = format!("{}{}", server.url, self.path);
        let mut request = server.client.request(self.method.clone(), url);
        if self.method == Method::POST {
            if self.is_webhook() {
                let name = "tosspayments-webhook-transmission-id";
                request = request.header(name, &self.key);
            }
            request = request
                .header("Idempotency-Key", &self.key)
                .json(&self.body);
        }
        if let Some(code) = self.test_code {
            request = request.header("TossPayments-Test-Code", code);
        }
        let answer = match request.send().await {
            Ok(response) => ApiAnswer::read(response).await,
            Err(_) => None,
        };
        if answer.is_none() {
            server.mark_gone();
        }
        answer
    }
}

impl ApiAnswer {
    async fn read(response: Response) -> Option<Self> {
        let status = response.status();
        let headers = response.headers();
        let is_retryable = status.is_server_error() || headers.contains_key(header::RETRY_AFTER);
        let is_replay = headers.contains_key("idempotency-replayed");
        let body = response.text().await.ok()?;
        Some(Self {
            status: status.as_u16(),
            body,
            is_retryable,
            is_replay,
        })
    }

    /// A refused or pending request is decided again when it is repeated.
    fn is_kept(&self, request: &ApiRequest) -> bool {
        let is_under_way = request.path == "/payment/confirmed" && self.status == 202;
        self.status < 300 && !is_under_way
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl CallLog {
    /// Sends a request and logs it with its answer, if there is one.
    pub async fn send(&self, server: &Server, request: ApiRequest) -> Option<ApiAnswer> {
        let place = {
            let mut entries = self.entries.lock().unwrap();
            entries.push((request.clone(), None));
            entries.len() - 1
        };
        let answer = request.send(server).await?;
        self.entries.lock().unwrap()[place].1 = Some(answer.clone());
        self.answers.fetch_add(1, Ordering::Relaxed);
        Some(answer)
    }

    /// Number of answers so far.
    pub fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    /// Requests to this path that were answered with this status, with their answers.
    pub fn answered(&self, path: &str, status: u16) -> Vec<(ApiRequest, ApiAnswer)> {
        let answered = self.all_answered().into_iter();
        answered
            .filter(|(request, answer)| request.path == path && answer.status == status)
            .collect()
    }

    /// Tickets with a release request, and whether the release was confirmed.
    pub fn releases(&self) -> BTreeMap<String, bool> {
        let mut releases = BTreeMap::new();
        for (request, answer) in self.entries.lock().unwrap().iter() {
            if let Some(ticket) = request.path.strip_prefix("/ticketing/reserve/") {
                let is_done = answer.as_ref().is_some_and(|answer| answer.status == 204);
                *releases.entry(ticket.to_owned()).or_default() |= is_done;
            }
        }
        releases
    }

    /// Tickets with a cancellation request, and whether it was accepted.
    pub fn cancellations(&self) -> BTreeMap<String, bool> {
        let mut cancellations = BTreeMap::new();
        for (request, answer) in self.entries.lock().unwrap().iter() {
            let ticket = request.path.strip_prefix("/ticket/");
            if let Some(ticket) = ticket.and_then(|rest| rest.strip_suffix("/cancel")) {
                let is_accepted = answer.as_ref().is_some_and(|answer| answer.status == 202);
                *cancellations.entry(ticket.to_owned()).or_default() |= is_accepted;
            }
        }
        cancellations
    }

    /// One request for each idempotency key without an answer.
    pub fn unanswered(&self) -> Vec<ApiRequest> {
        let answered: HashSet<String> = self
            .all_answered()
            .iter()
            .map(|(request, _)| request.scope())
            .collect();
        let mut seen = BTreeSet::new();
        let entries = self.entries.lock().unwrap();
        let open = entries.iter().map(|(request, _)| request);
        open.filter(|request| {
            request.method == Method::POST && !answered.contains(&request.scope())
        })
        .filter(|request| seen.insert(request.scope()))
        .cloned()
        .collect()
    }

    /// The saved answer for each idempotency key. All answers for one key must be equal.
    pub fn final_answers(&self) -> Vec<(ApiRequest, ApiAnswer)> {
        let mut answers: BTreeMap<String, (ApiRequest, ApiAnswer)> = BTreeMap::new();
        for (request, answer) in self.all_answered() {
            if request.method != Method::POST || request.is_webhook() || !answer.is_kept(&request) {
                continue;
            }
            let (_, first) = answers
                .entry(request.scope())
                .or_insert_with(|| (request.clone(), answer.clone()));
            assert_eq!(
                (first.status, &first.body),
                (answer.status, &answer.body),
                "{request:?} was answered in two ways"
            );
        }
        answers.into_values().collect()
    }

    fn all_answered(&self) -> Vec<(ApiRequest, ApiAnswer)> {
        let entries = self.entries.lock().unwrap();
        let answered = entries.iter().filter_map(|(request, answer)| {
            let answer = answer.as_ref().filter(|answer| !answer.is_retryable)?;
            Some((request.clone(), answer.clone()))
        });
        answered.collect()
    }
}

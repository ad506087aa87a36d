//! What the clients asked and what they were told, over all servers that a folder has had.

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
pub struct Ask {
    pub method: Method,
    pub path: String,
    pub key: String,
    pub body: Value,
    /// What the gateway's double is to do.
    pub test_code: Option<&'static str>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub status: u16,
    pub body: String,
    /// It asks to try again later, or is no answer at all (5xx): the key is still open.
    pub is_passing: bool,
    pub is_replay: bool,
}

#[derive(Default)]
pub struct Ledger {
    entries: Mutex<Vec<(Ask, Option<Told>)>>,
    answers: AtomicUsize,
}

impl Ask {
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

    /// What the gateway tells of a payment, by the webhook's name.
    pub fn webhook(transmission: String, data: Value) -> Self {
        let body = json!({ "eventType": "PAYMENT_STATUS_CHANGED", "data": data });
        Self::post(WEBHOOK_PATH, transmission, body)
    }

    fn is_webhook(&self) -> bool {
        self.path == WEBHOOK_PATH
    }

    /// How the server names it among its answers.
    pub fn scope(&self) -> String {
        let caller = self.body["userId"].as_i64().map(UserId);
        record_key(&Method::POST, &self.path, caller, &self.key)
    }

    /// Sends it; `None` where the server went away before it answered.
    pub async fn send(&self, server: &Server) -> Option<Told> {
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
        let told = match request.send().await {
            Ok(response) => Told::read(response).await,
            Err(_) => None,
        };
        if told.is_none() {
            server.note_gone();
        }
        told
    }
}

impl Told {
    async fn read(response: Response) -> Option<Self> {
        let status = response.status();
        let headers = response.headers();
        let is_passing = status.is_server_error() || headers.contains_key(header::RETRY_AFTER);
        let is_replay = headers.contains_key("idempotency-replayed");
        let body = response.text().await.ok()?;
        Some(Self {
            status: status.as_u16(),
            body,
            is_passing,
            is_replay,
        })
    }

    /// What was refused, or is under way, is decided again.
    fn is_kept(&self, ask: &Ask) -> bool {
        let is_under_way = ask.path == "/payment/confirmed" && self.status == 202;
        self.status < 300 && !is_under_way
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }

    pub fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Ledger {
    /// Asks, and remembers it whatever comes of it.
    pub async fn ask(&self, server: &Server, ask: Ask) -> Option<Told> {
        let place = {
            let mut entries = self.entries.lock().unwrap();
            entries.push((ask.clone(), None));
            entries.len() - 1
        };
        let told = ask.send(server).await?;
        self.entries.lock().unwrap()[place].1 = Some(told.clone());
        self.answers.fetch_add(1, Ordering::Relaxed);
        Some(told)
    }

    /// How many answers were given so far.
    pub fn answers(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    /// Everything that was answered with this status at this address, with the answer.
    pub fn told(&self, path: &str, status: u16) -> Vec<(Ask, Told)> {
        let answered = self.answered().into_iter();
        answered
            .filter(|(ask, told)| ask.path == path && told.status == status)
            .collect()
    }

    /// Tickets that somebody asked to release, and whether they were told that it was done.
    pub fn releases(&self) -> BTreeMap<String, bool> {
        let mut releases = BTreeMap::new();
        for (ask, told) in self.entries.lock().unwrap().iter() {
            if let Some(ticket) = ask.path.strip_prefix("/ticketing/reserve/") {
                let is_done = told.as_ref().is_some_and(|told| told.status == 204);
                *releases.entry(ticket.to_owned()).or_default() |= is_done;
            }
        }
        releases
    }

    /// Tickets that were asked to be given back, and whether that was accepted.
    pub fn cancellations(&self) -> BTreeMap<String, bool> {
        let mut cancellations = BTreeMap::new();
        for (ask, told) in self.entries.lock().unwrap().iter() {
            let ticket = ask.path.strip_prefix("/ticket/");
            if let Some(ticket) = ticket.and_then(|rest| rest.strip_suffix("/cancel")) {
                let is_accepted = told.as_ref().is_some_and(|told| told.status == 202);
                *cancellations.entry(ticket.to_owned()).or_default() |= is_accepted;
            }
        }
        cancellations
    }

    /// Keys that nobody has an answer to, each once.
    pub fn unanswered(&self) -> Vec<Ask> {
        let answered: HashSet<String> =
            self.answered().iter().map(|(ask, _)| ask.scope()).collect();
        let mut seen = BTreeSet::new();
        let entries = self.entries.lock().unwrap();
        let open = entries.iter().map(|(ask, _)| ask);
        open.filter(|ask| ask.method == Method::POST && !answered.contains(&ask.scope()))
            .filter(|ask| seen.insert(ask.scope()))
            .cloned()
            .collect()
    }

    /// The answer that is kept for each idempotency key. A key that was asked more than once was answered alike.
    pub fn final_answers(&self) -> Vec<(Ask, Told)> {
        let mut answers: BTreeMap<String, (Ask, Told)> = BTreeMap::new();
        for (ask, told) in self.answered() {
            if ask.method != Method::POST || ask.is_webhook() || !told.is_kept(&ask) {
                continue;
            }
            let (_, first) = answers
                .entry(ask.scope())
                .or_insert_with(|| (ask.clone(), told.clone()));
            assert_eq!(
                (first.status, &first.body),
                (told.status, &told.body),
                "{ask:?} was answered in two ways"
            );
        }
        answers.into_values().collect()
    }

    fn answered(&self) -> Vec<(Ask, Told)> {
        let entries = self.entries.lock().unwrap();
        let answered = entries.iter().filter_map(|(ask, told)| {
            let told = told.as_ref().filter(|told| !told.is_passing)?;
            Some((ask.clone(), told.clone()))
        });
        answered.collect()
    }
}

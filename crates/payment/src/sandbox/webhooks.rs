//! Tells the merchant what has become of his payments. Webhooks are written with the change that they tell of, and
//! sent by one background task until they are taken with a 200, or were refused too often.
//!
//! Of one payment, one webhook is on its way at a time, oldest first, so that only the script, and a receiver that
//! fails, change their order.

pub(super) mod schedule;

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use contract::Timestamp;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use messaging::{Random, Shutdown};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url, redirect, retry};
use rusqlite::{Connection, Result};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Notify;

use super::faults::director::Subject;
use super::faults::script::{Fault, On};
use super::payment::{Method, Payment};
use super::shared::Shared;
use super::state::outbox::{self, Due, New};
use super::state::{lock, payments};
use super::{Error, korea};
use crate::gateway::protocol::{
    DepositWebhook, PAYMENT_STATUS_CHANGED, StatusWebhook, WEBHOOK_ID_HEADER,
    WEBHOOK_RETRIED_HEADER, WEBHOOK_TIME_HEADER,
};
use schedule::Course;

/// Documented: a webhook that is not answered in ten seconds has failed.
const ANSWER_SECS_MAX: u64 = 10;
/// Webhooks on their way at once.
const SENDING_MAX: usize = 16;
/// How long a webhook that is to be overtaken waits for another one of its payment.
const HELD_MILLIS: i64 = 2_000;
/// Before the file is asked again that could not be read.
const BROKEN_WAIT_MILLIS: i64 = 1_000;
/// Its name here; on the wire it has none.
const DEPOSIT_CALLBACK: &str = "DEPOSIT_CALLBACK";

/// Where webhooks go, and how fast.
pub(super) struct Sender {
    http: Client,
    url: Mutex<Option<String>>,
    speed: u32,
    random: Random,
    /// There is something new to send, or to wait for.
    wake: Notify,
    /// Held by the one task that sends.
    running: tokio::sync::Mutex<()>,
}

impl Sender {
    pub fn new(url: Option<String>, speed: u32) -> std::result::Result<Self, Error> {
        if speed == 0 {
            return Err(Error::WebhookSpeed);
        }
        let sender = Self {
            http: client()?,
            url: Mutex::new(None),
            speed,
            random: Random::System,
            wake: Notify::new(),
            running: tokio::sync::Mutex::new(()),
        };
        sender.send_to(url)?;
        Ok(sender)
    }

    pub fn send_to(&self, url: Option<String>) -> std::result::Result<(), Error> {
        if let Some(url) = &url {
            let parsed = Url::parse(url).map_err(|_| Error::WebhookUrl)?;
            if parsed.scheme() != "http" {
                return Err(Error::WebhookUrl);
            }
        }
        *lock(&self.url) = url;
        self.wake.notify_one();
        Ok(())
    }

    pub fn url(&self) -> Option<String> {
        lock(&self.url).clone()
    }

    /// A name that nobody can guess.
    pub fn unguessable(&self, now: Timestamp) -> String {
        self.random.uuid(now).simple().to_string()
    }

    /// Writes what the merchant is to be told of this payment, if he wants to be told. The task that sends cannot
    /// read it before it is committed: they share the connection.
    pub fn announce(
        &self,
        connection: &Connection,
        payment: &Payment,
        now: Timestamp,
    ) -> Result<()> {
        if self.url().is_none() {
            return Ok(());
        }
        self.wake.notify_one();
        if !payment.status.is_announced() {
            return Ok(());
        }
        let webhook = StatusWebhook {
            event_type: PAYMENT_STATUS_CHANGED.to_owned(),
            created_at: korea::show(now),
            data: payment.body(),
        };
        let body = json(&webhook);
        self.add(connection, payment, PAYMENT_STATUS_CHANGED, body, now)?;
        if payment.method == Method::VirtualAccount && payment.is_confirmed {
            let webhook = DepositWebhook {
                created_at: korea::show(now),
                secret: payment.secret.clone().unwrap_or_default(),
                status: payment.status.on_the_wire(),
                transaction_key: payment.last_transaction_key.clone().unwrap_or_default(),
                order_id: payment.order_id.clone(),
            };
            self.add(connection, payment, DEPOSIT_CALLBACK, json(&webhook), now)?;
        }
        Ok(())
    }

    fn add(
        &self,
        connection: &Connection,
        payment: &Payment,
        kind: &'static str,
        body: String,
        now: Timestamp,
    ) -> Result<()> {
        let new = New {
            id: self.random.uuid(now).to_string(),
            payment_key: payment.key.clone(),
            order_id: payment.order_id.clone(),
            kind,
            payment_status: payment.status.as_str(),
            body,
        };
        outbox::add(connection, &new, now)
    }

    /// Sends it once; says whether it was taken, and how it went.
    async fn send(&self, url: &str, due: &Due, now: Timestamp) -> (bool, String) {
        let sent = self
            .http
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(WEBHOOK_ID_HEADER, &due.id)
            .header(WEBHOOK_RETRIED_HEADER, due.course.attempts)
            .header(WEBHOOK_TIME_HEADER, korea::show(now))
            .body(due.body.clone())
            .send()
            .await;
        match sent {
            Ok(answer) => (
                answer.status() == 200,
                format!("answered {}", answer.status().as_u16()),
            ),
            Err(error) if error.is_timeout() => (false, "no answer in time".to_owned()),
            Err(error) if error.is_connect() => (false, "no connection".to_owned()),
            Err(_) => (false, "the connection broke".to_owned()),
        }
    }
}

fn json(webhook: &impl serde::Serialize) -> String {
    serde_json::to_string(webhook).expect("these bodies are plain structs")
}

fn client() -> std::result::Result<Client, Error> {
    // Webhooks go by plain http; the client wants to know how it would speak TLS all the same.
    let tls = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)?
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    Client::builder()
        .tls_backend_preconfigured(tls)
        .timeout(Duration::from_secs(ANSWER_SECS_MAX))
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .no_proxy()
        .http1_only()
        .build()
        .map_err(Error::Client)
}

/// Sends webhooks until told to stop. What is on its way then is sent again after the next start, by the same id.
pub(super) async fn run(shared: &Shared, mut shutdown: Shutdown) {
    let _only_one = tokio::select! {
        guard = shared.sender.running.lock() => guard,
        () = shutdown.requested() => return,
    };
    let mut busy = HashSet::new();
    let mut sending = FuturesUnordered::new();
    while !shutdown.is_requested() {
        let (due, next_at) = look(shared);
        for due in due {
            if sending.len() < SENDING_MAX && busy.insert(due.payment_key.clone()) {
                sending.push(deliver(shared, due));
            }
        }
        tokio::select! {
            () = shutdown.requested() => {}
            Some(payment_key) = sending.next() => {
                busy.remove(&payment_key);
            }
            () = shared.sender.wake.notified() => {}
            () = wait(shared, next_at) => {}
        }
    }
}

/// What is to be sent now, and when to look again if nothing happens until then.
fn look(shared: &Shared) -> (Vec<Due>, Option<Timestamp>) {
    if shared.sender.url().is_none() {
        return (Vec::new(), None);
    }
    let looked = shared.within(|transaction, now| {
        let due = outbox::due(transaction, now)?;
        let next_due = outbox::next_due(transaction, now)?;
        let next_window = payments::next_window(transaction)?;
        Ok((due, next_due.into_iter().chain(next_window).min()))
    });
    looked.unwrap_or_else(|error| {
        tracing::error!(%error, "the sandbox's webhooks cannot be read");
        let later = shared.now().plus_millis(BROKEN_WAIT_MILLIS);
        (Vec::new(), Some(later))
    })
}

async fn wait(shared: &Shared, until: Option<Timestamp>) {
    match until {
        Some(until) => shared.clock.wait_until(until).await,
        None => std::future::pending().await,
    }
}

/// One attempt; returns the payment, which is free for its next webhook.
async fn deliver(shared: &Shared, due: Due) -> String {
    if let Err(error) = attempt(shared, &due).await {
        tracing::error!(%error, "the sandbox's webhooks cannot be written");
        tokio::time::sleep(Duration::from_millis(BROKEN_WAIT_MILLIS.unsigned_abs())).await;
    }
    due.payment_key
}

async fn attempt(shared: &Shared, due: &Due) -> Result<()> {
    let Some(url) = shared.sender.url() else {
        return Ok(());
    };
    let fault = fault_of(shared, due);
    let mut course = due.course;
    let mut copies = 0;
    match fault {
        Some(Fault::Drop) => {
            let outcome = (false, "dropped by the script".to_owned());
            return settle(shared, due, course, outcome);
        }
        Some(Fault::Delay { millis }) => {
            let millis = i64::try_from(millis).unwrap_or(i64::MAX);
            return put_off(shared, due, millis, false);
        }
        Some(Fault::Reorder) if !is_one_held(shared, due)? => {
            let millis = HELD_MILLIS / i64::from(shared.sender.speed);
            return put_off(shared, due, millis.max(1), true);
        }
        Some(Fault::Duplicate { times }) => copies = times,
        Some(Fault::Repeat { times }) => course.repeats_left = times,
        Some(_) | None => {}
    }
    let mut outcome = shared.sender.send(&url, due, shared.now()).await;
    for _ in 0..copies {
        let again = shared.sender.send(&url, due, shared.now()).await;
        if !outcome.0 {
            outcome = again;
        }
    }
    settle(shared, due, course, outcome)
}

/// The script is not asked about an attempt that it has put off, nor about a repetition that it has caused.
fn fault_of(shared: &Shared, due: &Due) -> Option<Fault> {
    if due.was_put_off || due.course.was_delivered {
        return None;
    }
    let subject = Subject {
        order_id: Some(&due.order_id),
        payment_key: Some(&due.payment_key),
    };
    shared.director.ask(On::Webhook, subject)
}

fn is_one_held(shared: &Shared, due: &Due) -> Result<bool> {
    shared
        .state
        .within(|transaction| outbox::is_one_held(transaction, due))
}

fn put_off(shared: &Shared, due: &Due, millis: i64, is_held: bool) -> Result<()> {
    let until = shared.now().plus_millis(millis);
    shared
        .state
        .within(|transaction| outbox::put_off(transaction, due, until, is_held))
}

fn settle(
    shared: &Shared,
    due: &Due,
    course: Course,
    (is_delivered, outcome): (bool, String),
) -> Result<()> {
    let now = shared.now();
    let course = course.after(is_delivered, shared.sender.speed, now);
    shared
        .state
        .within(|transaction| outbox::settle(transaction, due, &course, &outcome, now))
}

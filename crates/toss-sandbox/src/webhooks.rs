//! Webhooks to the merchant. They are inserted with the change that they announce, and one background task sends each
//! until the merchant answers 200, or the last retry fails.
//!
//! Each payment has at most one webhook in flight, the oldest first, so that only a fault or a failing receiver changes
//! their order.

pub(super) mod schedule;

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::{SignedDuration, Timestamp};
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Url, redirect, retry};
use rusqlite::{Connection, Result};
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Notify;
use toss::korea;

use super::Error;
use super::faults::injector::Subject;
use super::faults::script::{Fault, FaultTarget};
use super::payment::{Method, Payment};
use super::shared::Shared;
use super::state::outbox::{self, Due};
use super::state::{lock, payments};
use schedule::Delivery;
use toss::protocol::{
    DepositWebhook, PAYMENT_STATUS_CHANGED, StatusWebhook, WEBHOOK_ID_HEADER,
    WEBHOOK_RETRIED_HEADER, WEBHOOK_TIME_HEADER,
};

/// Documented: a delivery without an answer within ten seconds has failed.
const ANSWER_SECS_MAX: u64 = 10;
/// Webhooks in flight at once.
const SENDING_MAX: usize = 16;
/// How long a webhook with the fault `reorder` waits for the next one of its payment.
const HELD_MILLIS: i64 = 2_000;
/// The wait after the file could not be read or written.
const FILE_ERROR_WAIT_MILLIS: i64 = 1_000;
/// The kind of a deposit webhook in the file; its body names none.
const DEPOSIT_CALLBACK: &str = "DEPOSIT_CALLBACK";

/// Inserts and sends webhooks.
pub(super) struct WebhookSender {
    http: Client,
    url: Mutex<Option<String>>,
    speed: u32,
    /// Notified when a webhook or a time window is new.
    wake: Notify,
    /// Held by the one task that sends.
    running: tokio::sync::Mutex<()>,
}

impl WebhookSender {
    pub fn new(url: Option<String>, speed: u32) -> std::result::Result<Self, Error> {
        if speed == 0 {
            return Err(Error::WebhookSpeed);
        }
        let sender = Self {
            http: client()?,
            url: Mutex::new(None),
            speed,
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

    /// Inserts the webhooks about this payment, if webhooks are on. The sending task cannot read them before the commit:
    /// both use the same connection.
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
        if !payment.is_announced() {
            return Ok(());
        }
        let webhook = StatusWebhook {
            event_type: PAYMENT_STATUS_CHANGED.to_owned(),
            created_at: korea::body_time(now),
            data: payment.body(),
        };
        let (kind, body) = (PAYMENT_STATUS_CHANGED, json(&webhook));
        outbox::add(connection, payment, kind, &body, now)?;
        if payment.method == Method::VirtualAccount && payment.is_confirmed {
            let webhook = DepositWebhook {
                created_at: korea::body_time(now),
                secret: payment.secret.clone().unwrap_or_default(),
                status: payment.status.clone(),
                transaction_key: payment.last_transaction_key.clone().unwrap_or_default(),
                order_id: payment.order_id.clone(),
            };
            outbox::add(connection, payment, DEPOSIT_CALLBACK, &json(&webhook), now)?;
        }
        Ok(())
    }

    /// Sends one delivery; returns whether the merchant took it, and a text for the list of webhooks.
    async fn send(&self, url: &str, due: &Due, now: Timestamp) -> (bool, String) {
        let sent = self
            .http
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(WEBHOOK_ID_HEADER, &due.id)
            .header(WEBHOOK_RETRIED_HEADER, due.delivery.attempts)
            .header(WEBHOOK_TIME_HEADER, korea::body_time(now))
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
    // Webhooks are http only, but the client needs a TLS configuration all the same.
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

/// Sends webhooks until `shutdown` resolves. A delivery in flight at that time is repeated with the same id after the
/// next start.
pub(super) async fn run(shared: &Shared, shutdown: impl Future<Output = ()>) {
    tokio::pin!(shutdown);
    let _only_one = tokio::select! {
        guard = shared.sender.running.lock() => guard,
        () = &mut shutdown => return,
    };
    let mut busy = HashSet::new();
    let mut sending = FuturesUnordered::new();
    loop {
        let (due, next_at) = look(shared);
        for due in due {
            if sending.len() < SENDING_MAX && busy.insert(due.payment_key.clone()) {
                sending.push(deliver(shared, due));
            }
        }
        tokio::select! {
            () = &mut shutdown => return,
            Some(payment_key) = sending.next() => {
                busy.remove(&payment_key);
            }
            () = shared.sender.wake.notified() => {}
            () = wait(shared, next_at) => {}
        }
    }
}

/// The due webhooks, and when to look again if nothing is notified before.
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
        tracing::error!(%error, "cannot read the webhooks of the sandbox");
        let later = shared.now() + SignedDuration::from_millis(FILE_ERROR_WAIT_MILLIS);
        (Vec::new(), Some(later))
    })
}

async fn wait(shared: &Shared, until: Option<Timestamp>) {
    match until {
        Some(until) => shared.clock.wait_until(until).await,
        None => std::future::pending().await,
    }
}

/// One attempt; returns the payment, whose next webhook may follow.
async fn deliver(shared: &Shared, due: Due) -> String {
    if let Err(error) = attempt(shared, &due).await {
        tracing::error!(%error, "cannot write the webhooks of the sandbox");
        tokio::time::sleep(Duration::from_millis(FILE_ERROR_WAIT_MILLIS.unsigned_abs())).await;
    }
    due.payment_key
}

async fn attempt(shared: &Shared, due: &Due) -> Result<()> {
    let Some(url) = shared.sender.url() else {
        return Ok(());
    };
    let fault = fault_of(shared, due);
    let mut delivery = due.delivery;
    let mut copies = 0;
    match fault {
        Some(Fault::Drop) => {
            let outcome = (false, "dropped by the script".to_owned());
            return settle(shared, due, delivery, outcome);
        }
        Some(Fault::Delay { millis }) => {
            let millis = i64::try_from(millis).unwrap_or(i64::MAX);
            return postpone(shared, due, millis, false);
        }
        Some(Fault::Reorder) if !shared.state.within(|it| outbox::is_one_held(it, due))? => {
            let millis = HELD_MILLIS / i64::from(shared.sender.speed);
            return postpone(shared, due, millis.max(1), true);
        }
        Some(Fault::Duplicate { times }) => copies = times,
        Some(Fault::Repeat { times }) => delivery.repeats_left = times,
        Some(_) | None => {}
    }
    let mut outcome = shared.sender.send(&url, due, shared.now()).await;
    for _ in 0..copies {
        let again = shared.sender.send(&url, due, shared.now()).await;
        if !outcome.0 {
            outcome = again;
        }
    }
    settle(shared, due, delivery, outcome)
}

/// No fault applies to an attempt that a fault has postponed, nor to a repetition that a fault has caused.
fn fault_of(shared: &Shared, due: &Due) -> Option<Fault> {
    if due.was_put_off || due.delivery.was_delivered {
        return None;
    }
    let subject = Subject::new(Some(&due.order_id), Some(&due.payment_key));
    shared.faults.next(FaultTarget::Webhook, subject)
}

fn postpone(shared: &Shared, due: &Due, millis: i64, is_held: bool) -> Result<()> {
    let until = shared.now() + SignedDuration::from_millis(millis);
    shared
        .state
        .within(|transaction| outbox::postpone(transaction, due, until, is_held))
}

fn settle(
    shared: &Shared,
    due: &Due,
    delivery: Delivery,
    (is_delivered, outcome): (bool, String),
) -> Result<()> {
    let now = shared.now();
    let delivery = delivery.after(is_delivered, shared.sender.speed, now);
    shared
        .state
        .within(|transaction| outbox::settle(transaction, due, &delivery, &outcome, now))
}

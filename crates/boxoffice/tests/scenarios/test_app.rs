//! Boxoffice in this process with a manual clock and a sandbox gateway, and every access that a scenario needs.

use std::{net::SocketAddr, time::Duration};

use boxoffice::{
    app::App,
    audit::{self, Books},
    backends,
    config::{Config, Flags},
};
use contract::{
    Payload, Timestamp,
    domain::{PaymentStatus, TicketStatus},
    topic,
};
use messaging::{Clock, Commit, Message, Metrics, Random, Snapshot, timers::Timers};
use payment::record::{PaymentRecord, Refund, WebhookRecord, WebhookState};
use reqwest::Client;
use serde_json::Value;
use tempfile::TempDir;
use test_support::api::{self, ApiAnswer, ApiRequest};
use tokio::sync::watch;
use toss::SecretKey;

use crate::{
    deployment::{DeploymentKind, Environment, PublishedMessage},
    end_state::EndState,
    gateway::{SECRET, TestGateway},
};

/// The test fails if an awaited condition takes longer. Advancing the
/// clock by ten minutes takes six hundred polls.
pub const TIMEOUT: Duration = Duration::from_secs(180);
pub const OPENING: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// Settings of every scenario.
pub const HOLD_SECS: i64 = 1800;
pub const GRACE_SECS: i64 = 90;

/// How often conditions are polled that no commit signals: states of the brokers and of Redis.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Runs a scenario on every deployment. Its end state must pass the audit and be equal on all of them.
pub async fn on_every_deployment(scenario: impl AsyncFn(&mut TestApp)) {
    let mut ends: Vec<(DeploymentKind, EndState)> = Vec::new();
    for deployment in DeploymentKind::ALL {
        let mut app = TestApp::open(*deployment).await;
        scenario(&mut app).await;
        let end = app.close().await;
        if let Some((other, first)) = ends.first() {
            assert_eq!(
                end.differences(first),
                [] as [String; 0],
                "{deployment:?} (+) differs from {other:?} (-)"
            );
        }
        ends.push((*deployment, end));
    }
}

pub struct TestApp {
    /// `None` only between a stop and the next start.
    pub server: Option<App>,
    /// Used from the next start on.
    pub config: Config,
    random: Random,
    pub clock: Clock,
    pub gateway: TestGateway,
    receives_webhooks: bool,
    pub client: Client,
    folder: TempDir,
    environment: Environment,
    messages_sent: u32,
    /// Number of open dead letters that the scenario leaves.
    pub dead_letters_left: usize,
    /// Number of orders that the gateway charges twice in the scenario.
    pub orders_charged_twice: usize,
}

impl TestApp {
    pub async fn open(deployment: DeploymentKind) -> Self {
        let client = api::client();
        let clock = Clock::manual(OPENING);
        let gateway = TestGateway::start(clock.clone()).await;
        let folder = tempfile::tempdir().unwrap();
        let flags = Flags {
            data: Some(folder.path().to_owned()),
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            services: None,
        };
        let mut config = Config::load(None, [], &flags).unwrap();
        config.payment.sandbox = false;
        config.payment.gateway.base_url = gateway.client.url.clone();
        config.payment.gateway.secret_key = SecretKey::new(SECRET);
        config.payment.forward_test_codes = true;
        // Scenarios start reconciliation themselves.
        config.payment.reconcile_every_secs = 0;
        config.ticketing.hold_ttl_secs = HOLD_SECS;
        config.ticketing.hold_grace_secs = GRACE_SECS;
        let environment = Environment::open(deployment, &mut config).await;
        let mut app = Self {
            server: None,
            config,
            random: Random::seeded(1),
            clock,
            gateway,
            receives_webhooks: false,
            client,
            folder,
            environment,
            messages_sent: 0,
            dead_letters_left: 0,
            orders_charged_twice: 0,
        };
        app.start().await;
        app
    }

    pub async fn start(&mut self) {
        let (config, clock, random) =
            (self.config.clone(), self.clock.clone(), self.random.clone());
        self.server = Some(App::start(config, clock, random).await.unwrap());
        // Once the server answers, all tasks have started and read the start time.
        self.get("/healthz").await.ok(200);
        self.register_webhook_url();
    }

    /// Lets the gateway send webhooks to the app, also after a restart.
    pub fn receive_webhooks(&mut self) {
        self.receives_webhooks = true;
        self.register_webhook_url();
    }

    fn register_webhook_url(&self) {
        if self.receives_webhooks {
            let url = self.server().url() + "/payment/webhook/toss";
            self.gateway.send_webhooks_to(Some(url));
        }
    }

    pub async fn stop(&mut self) {
        self.server.take().unwrap().stop().await;
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    /// Stops the app and checks every general invariant.
    async fn close(mut self) -> EndState {
        self.wait_until_idle().await;
        let consumed = self
            .environment
            .wait_until_consumed(self.server().bus())
            .await;
        let stocks = self.stocks().await;
        self.stop().await;
        let snapshot = self.snapshot();
        let report = audit::audit_snapshot(&snapshot).unwrap();
        let counts = report.counts;
        assert_eq!(report.violations, [], "{counts:?}");
        assert_eq!(counts.open_dead_letters, self.dead_letters_left);
        assert_eq!((counts.parked_sagas, counts.parked_refunds), (0, 0));
        self.money_is_where_it_belongs();
        let end = EndState::read(&snapshot, stocks, &self.gateway.books());
        drop(snapshot);
        self.environment.close(consumed).await;
        end
    }

    /// The answers about each event's stock.
    async fn stocks(&self) -> Vec<Value> {
        let mut stocks = Vec::new();
        for event in self.books().allocations.keys() {
            let path = format!("/ticketing/event/{event}");
            stocks.push(self.get(&path).await.ok(200));
        }
        stocks
    }

    /// The gateway holds the price of the valid tickets, to the won, and no payment is unsettled.
    fn money_is_where_it_belongs(&self) {
        let (books, gateway) = (self.books(), self.gateway.books());
        let is_open = |it: &&PaymentRecord| {
            it.status == PaymentStatus::Confirming || it.refund == Refund::Requested
        };
        let open: Vec<_> = books.payments.values().filter(is_open).collect();
        assert_eq!(open, [] as [&PaymentRecord; 0]);
        let tickets = books.tickets.values();
        let valid = tickets.filter(|it| it.status == TicketStatus::Reserved);
        let cost: i64 = valid
            .map(|it| books.payments[&it.payment_id].final_amount.get())
            .sum();
        assert_eq!(
            (gateway.held, gateway.charged - gateway.refunded),
            (cost, cost),
            "{gateway:?}"
        );
        let twice = self.orders_charged_twice;
        assert_eq!(gateway.orders_charged_twice.len(), twice, "{gateway:?}");
    }

    /// All webhooks that the app has accepted.
    pub fn webhooks(&self) -> Vec<WebhookRecord> {
        let mut webhooks = Vec::new();
        let keep = |it: WebhookRecord| webhooks.push(it);
        self.snapshot().each(keep).unwrap();
        webhooks
    }

    /// Advances the clock until every accepted webhook is applied.
    pub async fn webhooks_are_applied(&self) {
        let is_open = |it: &WebhookRecord| it.state == WebhookState::Received;
        let running = async {
            while self.webhooks().iter().any(is_open) {
                self.advance(1).await;
                // Gives the app time for its calls to the gateway.
                self.get("/healthz").await.ok(200);
            }
        };
        let applied = tokio::time::timeout(TIMEOUT, running).await;
        assert!(applied.is_ok(), "{:?}", self.webhooks());
        self.wait_until_idle().await;
    }

    pub fn server(&self) -> &App {
        self.server.as_ref().unwrap()
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    fn snapshot(&self) -> Snapshot {
        backends::snapshot(&self.config).unwrap()
    }

    fn books(&self) -> Books {
        Books::read(&self.snapshot()).unwrap()
    }

    /// Messages that some group has not handled.
    pub async fn under_way(&self) -> Vec<String> {
        match &self.environment {
            Environment::Folder => match self.books().messages_under_way {
                0 => Vec::new(),
                _ => self.books().under_way.into_iter().collect(),
            },
            #[cfg(feature = "kafka")]
            Environment::Engines(namespace) => namespace.under_way().await,
        }
    }

    /// Waits until every message is handled and no timer is due. Work that read the clock before it was advanced may set
    /// a timer that is due already, after the timers' last look. Their next look needs a clock that goes on, and the
    /// test's stands still: so it fires what is due.
    pub async fn wait_until_idle(&self) {
        let store = self.server().store().clone();
        let timers = Timers {
            store: store.clone(),
            clock: self.clock.clone(),
            metrics: Metrics::unregistered(),
        };
        let mut committed = store.committed();
        let mut left = Vec::new();
        let resting = async {
            loop {
                committed.borrow_and_update();
                let fired = timers.fire_due().await.unwrap();
                left = self.under_way().await;
                if fired == 0 && left.is_empty() {
                    return;
                }
                changed(&mut committed).await;
            }
        };
        let rested = tokio::time::timeout(TIMEOUT, resting).await;
        rested.unwrap_or_else(|_| panic!("it never became idle: {left:?}"));
    }

    /// Advances the clock and waits until its consequences are handled.
    pub async fn advance(&self, secs: i64) {
        self.clock.advance_millis(secs * 1000);
        self.wait_until_idle().await;
    }

    /// Advances the clock by seconds until the JSON at `path` is as wanted, for retries at unknown times.
    pub async fn advance_until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let running = async {
            while !wanted(&last) {
                self.advance(1).await;
                last = self.get(path).await.body;
            }
        };
        if tokio::time::timeout(TIMEOUT, running).await.is_err() {
            panic!("{path} never became as wanted: {last}");
        }
        last
    }

    /// Publishes a message, as a foreign participant does.
    pub async fn send<P: Payload>(&mut self, payload: &P) {
        self.send_text(
            P::TOPIC,
            &payload.key(),
            &serde_json::to_string(payload).unwrap(),
        )
        .await;
    }

    pub async fn send_text(&mut self, topic: &str, key: &str, payload: &str) {
        self.messages_sent += 1;
        let mut commit = Commit::new();
        commit.publish(Message {
            id: format!("scenario:{}", self.messages_sent),
            topic: topic.to_owned(),
            key: key.to_owned(),
            subject: None,
            time: self.clock.now(),
            payload: payload.to_owned(),
            reissue: None,
            trace: None,
        });
        self.server().store().commit(commit).await.unwrap();
        self.wait_until_idle().await;
    }

    /// The topics of what was published under a key, in order.
    pub async fn published_topics(&self, key: &str) -> Vec<String> {
        let all = self.published().await.into_iter();
        let about_it = all.filter(|message| message.key == key);
        about_it.map(|message| message.topic).collect()
    }

    /// All published messages in the order of their commits; a folder lacks those that housekeeping has deleted.
    pub async fn published(&self) -> Vec<PublishedMessage> {
        match &self.environment {
            Environment::Folder => {
                let all = self.snapshot().pending("test", topic::ALL).unwrap();
                all.into_iter().map(PublishedMessage::from).collect()
            }
            #[cfg(feature = "kafka")]
            Environment::Engines(namespace) => namespace.published().await,
        }
    }

    pub async fn call(&self, request: ApiRequest) -> ApiAnswer {
        let url = self.server().url();
        request.send(&self.client, &url).await.unwrap()
    }

    pub async fn get(&self, path: &str) -> ApiAnswer {
        self.call(ApiRequest::get(path)).await
    }

    pub async fn delete(&self, path: &str) -> ApiAnswer {
        self.call(ApiRequest::delete(path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> ApiAnswer {
        self.call(ApiRequest::post(path, body)).await
    }

    pub async fn post_with_key(&self, path: &str, key: &str, body: &Value) -> ApiAnswer {
        self.call(ApiRequest::post(path, body.clone()).with_key(key))
            .await
    }

    pub async fn put(&self, path: &str, body: Value) -> ApiAnswer {
        self.call(ApiRequest::put(path, body)).await
    }

    /// A POST with a raw body.
    pub async fn post_text(&self, path: &str, body: &str) -> ApiAnswer {
        let request = self.client.post(self.server().url() + path);
        let request = request.header("content-type", "application/json");
        let response = request.body(body.to_owned()).send().await.unwrap();
        ApiAnswer::read(response).await.unwrap()
    }

    /// Waits until the JSON at `path` is as wanted; reads it again after each commit.
    pub async fn eventually(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut committed = self.server().store().committed();
        let mut last = Value::Null;
        let found = async {
            loop {
                committed.borrow_and_update();
                last = self.get(path).await.body;
                if wanted(&last) {
                    return;
                }
                changed(&mut committed).await;
            }
        };
        if tokio::time::timeout(TIMEOUT, found).await.is_err() {
            panic!("{path} never became as wanted: {last}");
        }
        last
    }
}

/// Waits for the next commit, but at most [`POLL_INTERVAL`], since not every condition depends on a commit.
async fn changed(committed: &mut watch::Receiver<i64>) {
    if let Ok(changed) = tokio::time::timeout(POLL_INTERVAL, committed.changed()).await {
        changed.unwrap();
    }
}

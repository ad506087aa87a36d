//! A running Boxoffice that a story is played on, and everything that a story may do to it from outside.

use std::{net::SocketAddr, time::Duration};

use boxoffice::{
    app::App,
    audit::{self, Books, books::subscriptions},
    config::{Config, Flags},
};
use contract::{
    Payload, Timestamp,
    domain::{PaymentStatus, TicketStatus},
};
use messaging::{Clock, Commit, Message, Random, Snapshot};
use payment::{
    gateway::SecretKey,
    record::{PaymentRecord, Refund, WebhookRecord, WebhookState},
};
use reqwest::{Client, Method, RequestBuilder, header::HeaderMap};
use serde_json::Value;
use tempfile::TempDir;

use ticketing::ReservationsBackend;

use crate::{
    gateway::{Gateway, SECRET},
    redis_place,
};

/// What must come does so within this, or the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const OPENING: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// The settings that the stories are told with.
pub const HOLD_SECS: i64 = 1800;
pub const GRACE_SECS: i64 = 90;

/// Where Boxoffice runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deployment {
    /// Everything in this process, on a folder.
    Embedded,
    /// The same, with reservations in Redis.
    Redis,
}

impl Deployment {
    const ALL: &[Self] = &[Self::Embedded, Self::Redis];

    fn configure(self, config: &mut Config) {
        match self {
            Self::Embedded => {}
            Self::Redis => {
                config.ticketing.reservations = ReservationsBackend::Redis;
                config.ticketing.redis = redis_place::settings();
            }
        }
    }
}

/// Plays a story on every deployment; afterwards the books must be in order.
pub async fn play(story: impl AsyncFn(&mut House)) {
    for deployment in Deployment::ALL {
        let mut house = House::open(*deployment).await;
        story(&mut house).await;
        house.close().await;
    }
}

pub struct House {
    pub deployment: Deployment,
    /// Absent only between a stop and the next start.
    pub app: Option<App>,
    /// Holds from the next start on.
    pub config: Config,
    random: Random,
    pub clock: Clock,
    pub gateway: Gateway,
    hears_webhooks: bool,
    pub client: Client,
    folder: TempDir,
    messages_sent: u32,
    /// Dead letters that a story leaves for people; none, unless it says so.
    pub dead_letters_left: usize,
    /// Orders that the gateway has charged twice in a story; none, unless it says so.
    pub orders_charged_twice: usize,
}

/// An answer, read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    /// The body of an answer that must have this status.
    pub fn ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// The problem that this answer must be.
    pub fn refused(self, status: u16, code: &str) -> Value {
        let Self {
            status: told,
            headers,
            body,
        } = self;
        assert_eq!(
            (told, body["code"].as_str()),
            (status, Some(code)),
            "{body}"
        );
        assert_eq!(headers["content-type"], "application/problem+json");
        body
    }

    pub fn is_replayed(&self) -> bool {
        self.headers.contains_key("idempotency-replayed")
    }
}

impl House {
    async fn open(deployment: Deployment) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let clock = Clock::manual(OPENING);
        let gateway = Gateway::start(clock.clone()).await;
        let folder = tempfile::tempdir().unwrap();
        let flags = Flags {
            data: Some(folder.path().to_owned()),
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            services: None,
        };
        let mut config = Config::load(None, [], &flags).unwrap();
        config.payment.sandbox = false;
        config.payment.gateway.base_url = gateway.url.clone();
        config.payment.gateway.secret_key = SecretKey::new(SECRET);
        config.payment.forward_test_codes = true;
        // A story that wants the books compared says so.
        config.payment.reconcile_every_secs = 0;
        config.ticketing.hold_ttl_secs = HOLD_SECS;
        config.ticketing.hold_grace_secs = GRACE_SECS;
        deployment.configure(&mut config);
        let mut house = Self {
            deployment,
            app: None,
            config,
            random: Random::seeded(1),
            clock,
            gateway,
            hears_webhooks: false,
            client: Client::builder().no_proxy().build().unwrap(),
            folder,
            messages_sent: 0,
            dead_letters_left: 0,
            orders_charged_twice: 0,
        };
        house.start().await;
        house
    }

    pub async fn start(&mut self) {
        let (config, clock, random) =
            (self.config.clone(), self.clock.clone(), self.random.clone());
        let app = match self.deployment {
            Deployment::Embedded | Deployment::Redis => App::start(config, clock, random).await,
        };
        self.app = Some(app.unwrap());
        // When it answers, what was started before the server has begun, and has seen the time of the start.
        self.get("/healthz").await.ok(200);
        self.tell_where_webhooks_go();
    }

    /// From now on the gateway tells by webhooks, wherever the house listens.
    pub fn hear_webhooks(&mut self) {
        self.hears_webhooks = true;
        self.tell_where_webhooks_go();
    }

    fn tell_where_webhooks_go(&self) {
        if self.hears_webhooks {
            let url = self.app().url() + "/payment/webhook/toss";
            self.gateway.tell(Some(url));
        }
    }

    pub async fn stop(&mut self) {
        self.app.take().unwrap().stop().await;
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    /// Every promise holds when a story is over, whatever it was about.
    async fn close(mut self) {
        self.rest().await;
        self.stop().await;
        let report = audit::audit(self.folder.path()).unwrap();
        let counts = report.counts;
        assert_eq!(report.violations, [], "{counts:?}");
        assert_eq!(counts.open_dead_letters, self.dead_letters_left);
        assert_eq!((counts.parked_sagas, counts.parked_refunds), (0, 0));
        self.money_is_where_it_belongs();
    }

    /// What the gateway holds is what the valid tickets cost, to the won, and nothing is left to be settled.
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

    /// Every webhook that was taken, and what became of it.
    pub fn webhooks(&self) -> Vec<WebhookRecord> {
        let mut webhooks = Vec::new();
        let snapshot = Snapshot::open(self.folder.path()).unwrap();
        snapshot
            .each(|it: WebhookRecord| webhooks.push(it))
            .unwrap();
        webhooks
    }

    /// Lets the clock run until every webhook that was taken has served.
    pub async fn webhooks_are_heeded(&self) {
        let is_open = |it: &WebhookRecord| it.state == WebhookState::Received;
        let running = async {
            while self.webhooks().iter().any(is_open) {
                self.pass(1).await;
                // Lets the house and the gateway talk meanwhile.
                self.get("/healthz").await.ok(200);
            }
        };
        let heeded = tokio::time::timeout(PATIENCE, running).await;
        assert!(heeded.is_ok(), "{:?}", self.webhooks());
        self.rest().await;
    }

    pub fn app(&self) -> &App {
        self.app.as_ref().unwrap()
    }

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    fn books(&self) -> Books {
        Books::read(&Snapshot::open(self.folder.path()).unwrap()).unwrap()
    }

    /// Waits until every message is handled and no timer is due.
    pub async fn rest(&self) {
        let store = self.app().store().clone();
        let mut committed = store.committed();
        let resting = async {
            loop {
                committed.borrow_and_update();
                let due = store.due_timers(self.clock.now(), 1).await.unwrap();
                if due.is_empty() && self.books().messages_under_way == 0 {
                    return;
                }
                committed.changed().await.unwrap();
            }
        };
        let rested = tokio::time::timeout(PATIENCE, resting).await;
        rested.expect("it never came to rest");
    }

    /// Moves the clock on, and waits until what that sets off is over.
    pub async fn pass(&self, secs: i64) {
        self.clock.advance_millis(secs * 1000);
        self.rest().await;
    }

    /// Lets the clock run, second by second, until the JSON at `path` is as wanted: for what is tried again at times
    /// that are not told.
    pub async fn pass_until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let running = async {
            while !wanted(&last) {
                self.pass(1).await;
                last = self.get(path).await.body;
            }
        };
        if tokio::time::timeout(PATIENCE, running).await.is_err() {
            panic!("{path} never became what it should: {last}");
        }
        last
    }

    /// Puts a message on the bus, as a participant of somebody else's making would.
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
            id: format!("story:{}", self.messages_sent),
            topic: topic.to_owned(),
            key: key.to_owned(),
            time: self.clock.now(),
            payload: payload.to_owned(),
            reissue: None,
            trace: None,
        });
        self.app().store().commit(commit).await.unwrap();
        self.rest().await;
    }

    /// The topics of what was said under a key, in order; what was cleaned away since is missing.
    pub fn said(&self, key: &str) -> Vec<String> {
        let topics: Vec<&str> = subscriptions()
            .into_iter()
            .flat_map(|(_, topics)| topics.iter().copied())
            .collect();
        let snapshot = Snapshot::open(self.folder.path()).unwrap();
        let all = snapshot.pending("a listener", &topics).unwrap();
        all.into_iter()
            .filter(|message| message.key == key)
            .map(|message| message.topic)
            .collect()
    }

    pub async fn get(&self, path: &str) -> Answer {
        answer(self.request(Method::GET, path)).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::POST, path).json(&body)).await
    }

    pub async fn post_with(&self, path: &str, header: (&str, &str), body: &Value) -> Answer {
        let request = self.request(Method::POST, path).json(body);
        answer(request.header(header.0, header.1)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Answer {
        answer(self.request(Method::PUT, path).json(&body)).await
    }

    /// A request whose body is not of our making.
    pub async fn post_text(&self, path: &str, body: &str) -> Answer {
        let request = self.request(Method::POST, path).body(body.to_owned());
        answer(request.header("content-type", "application/json")).await
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.app().url() + path)
    }

    /// The JSON at `path`, once it is as wanted: looked at again whenever something was committed.
    pub async fn eventually(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut committed = self.app().store().committed();
        let mut last = Value::Null;
        let found = async {
            loop {
                committed.borrow_and_update();
                last = self.get(path).await.body;
                if wanted(&last) {
                    return;
                }
                committed.changed().await.unwrap();
            }
        };
        if tokio::time::timeout(PATIENCE, found).await.is_err() {
            panic!("{path} never became what it should: {last}");
        }
        last
    }
}

async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::Null);
    Answer {
        status,
        headers,
        body,
    }
}

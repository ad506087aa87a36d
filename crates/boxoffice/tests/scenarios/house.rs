//! A running Boxoffice that a story is played on, and everything that a story may do to it from outside.

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
use messaging::{Clock, Commit, Message, Random, Snapshot};
use payment::{
    gateway::SecretKey,
    record::{PaymentRecord, Refund, WebhookRecord, WebhookState},
};
use reqwest::{Client, Method, RequestBuilder, header::HeaderMap};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::{
    deployment::{Deployment, Said, Site},
    end_state::EndState,
    gateway::{Gateway, SECRET},
};

/// What must come does so within this, or the test fails. Ten minutes of a story are six hundred looks.
pub const PATIENCE: Duration = Duration::from_secs(180);
pub const OPENING: Timestamp = Timestamp::from_millis(1_800_000_000_000);
/// The settings that the stories are told with.
pub const HOLD_SECS: i64 = 1800;
pub const GRACE_SECS: i64 = 90;

/// How often is looked again for what no commit tells of: what the brokers have, what changes in Redis.
const LOOK: Duration = Duration::from_millis(5);

/// Plays a story on every deployment. The books must be in order afterwards, and the same everywhere.
pub async fn play(story: impl AsyncFn(&mut House)) {
    let mut ends: Vec<(Deployment, EndState)> = Vec::new();
    for deployment in Deployment::ALL {
        let mut house = House::open(*deployment).await;
        story(&mut house).await;
        let end = house.close().await;
        if let Some((other, first)) = ends.first() {
            assert_eq!(
                end.beside(first),
                [] as [String; 0],
                "{deployment:?} (+) beside {other:?} (-)"
            );
        }
        ends.push((*deployment, end));
    }
}

pub struct House {
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
    site: Site,
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
    pub async fn open(deployment: Deployment) -> Self {
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
        let site = Site::open(deployment, &mut config).await;
        let mut house = Self {
            app: None,
            config,
            random: Random::seeded(1),
            clock,
            gateway,
            hears_webhooks: false,
            client: Client::builder().no_proxy().build().unwrap(),
            folder,
            site,
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
        self.app = Some(App::start(config, clock, random).await.unwrap());
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
    async fn close(mut self) -> EndState {
        self.rest().await;
        let heard = self.site.is_heard(self.app().bus()).await;
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
        self.site.close(heard).await;
        end
    }

    /// What every event's stock is told as.
    async fn stocks(&self) -> Vec<Value> {
        let mut stocks = Vec::new();
        for event in self.books().allocations.keys() {
            let path = format!("/ticketing/event/{event}");
            stocks.push(self.get(&path).await.ok(200));
        }
        stocks
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
        let keep = |it: WebhookRecord| webhooks.push(it);
        self.snapshot().each(keep).unwrap();
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

    pub fn site(&self) -> &Site {
        &self.site
    }

    fn snapshot(&self) -> Snapshot {
        backends::snapshot(&self.config).unwrap()
    }

    fn books(&self) -> Books {
        Books::read(&self.snapshot()).unwrap()
    }

    /// Messages that a group has yet to handle.
    pub async fn under_way(&self) -> Vec<String> {
        match &self.site {
            Site::Folder => match self.books().messages_under_way {
                0 => Vec::new(),
                _ => self.books().under_way.into_iter().collect(),
            },
            #[cfg(feature = "kafka")]
            Site::Distributed(distributed) => distributed.under_way().await,
        }
    }

    /// Waits until every message is handled and no timer is due.
    pub async fn rest(&self) {
        let store = self.app().store().clone();
        let mut committed = store.committed();
        let mut left = Vec::new();
        let resting = async {
            loop {
                committed.borrow_and_update();
                let due = store.due_timers(self.clock.now(), 10).await.unwrap();
                left = due.into_iter().map(|timer| timer.id).collect();
                left.extend(self.under_way().await);
                if left.is_empty() {
                    return;
                }
                changed(&mut committed).await;
            }
        };
        let rested = tokio::time::timeout(PATIENCE, resting).await;
        rested.unwrap_or_else(|_| panic!("it never came to rest: {left:?}"));
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
            subject: None,
            time: self.clock.now(),
            payload: payload.to_owned(),
            reissue: None,
            trace: None,
        });
        self.app().store().commit(commit).await.unwrap();
        self.rest().await;
    }

    /// The topics of what was said under a key, in order.
    pub async fn said(&self, key: &str) -> Vec<String> {
        let all = self.all_said().await.into_iter();
        let about_it = all.filter(|message| message.key == key);
        about_it.map(|message| message.topic).collect()
    }

    /// Everything that was said, in the order of its commits; in a folder without what was cleaned away since.
    pub async fn all_said(&self) -> Vec<Said> {
        match &self.site {
            Site::Folder => {
                let all = self.snapshot().pending("a listener", topic::ALL).unwrap();
                all.into_iter().map(Said::from).collect()
            }
            #[cfg(feature = "kafka")]
            Site::Distributed(distributed) => distributed.all_said().await,
        }
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
                changed(&mut committed).await;
            }
        };
        if tokio::time::timeout(PATIENCE, found).await.is_err() {
            panic!("{path} never became what it should: {last}");
        }
        last
    }
}

/// Waits until something was committed, for a moment at most: not everything that is waited for is a commit.
async fn changed(committed: &mut watch::Receiver<i64>) {
    if let Ok(changed) = tokio::time::timeout(LOOK, committed.changed()).await {
        changed.unwrap();
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

//! A sandbox on a free port with a manual clock, and a merchant that receives webhooks.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use jiff::{SignedDuration, Timestamp};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use test_support::{Polling, api::ApiAnswer, eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use toss::SecretKey;
use toss_sandbox::{Clock, FaultScript, ManualClock, Sandbox, SandboxSettings};

pub const SECRET: &str = "test_sk_of_the_tests";
/// `test_sk_of_the_tests:` in base64.
const AUTHORIZATION: &str = "Basic dGVzdF9za19vZl90aGVfdGVzdHM6";
/// No test waits longer than this for anything.
pub const DEADLINE: Duration = Duration::from_secs(20);
pub const POLLING: Polling = Polling {
    interval: Duration::from_millis(1),
    timeout: DEADLINE,
};
pub const START: Timestamp = Timestamp::constant(1_800_000_000, 0);

pub struct Harness {
    pub inner: Sandbox,
    pub address: SocketAddr,
    pub clock: Arc<ManualClock>,
    client: Client,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

pub fn settings() -> SandboxSettings {
    SandboxSettings {
        clock: Arc::new(ManualClock::new(START)),
        ..SandboxSettings::new(SecretKey::new(SECRET))
    }
}

impl Harness {
    pub async fn start() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(settings: SandboxSettings) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let settings = SandboxSettings {
            clock: clock.clone(),
            ..settings
        };
        let inner = Sandbox::open(settings).unwrap();
        let (stop, stopped) = oneshot::channel();
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let shutdown = async { stopped.await.unwrap_or_default() };
        let (address, server) = inner.serve(any_port, shutdown).await.unwrap();
        Self {
            inner,
            address,
            clock,
            client: test_support::api::client(),
            stop,
            server,
        }
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.server.await.unwrap();
    }

    /// The time after so many milliseconds, as the control API shows it.
    pub fn shown_after(&self, millis: i64) -> String {
        let at = self.clock.now() + SignedDuration::from_millis(millis);
        format!("{at:.3}")
    }

    pub fn play(&self, rules: Value) {
        let script = json!({ "rules": rules }).to_string();
        self.inner
            .set_faults(FaultScript::parse(script.as_bytes()).unwrap())
            .unwrap();
    }

    pub async fn ask(&self, method: Method, path: &str, body: &str) -> (u16, Value) {
        let answer = self
            .client
            .request(method, format!("http://{}{path}", self.address))
            .basic_auth(SECRET, Some(""))
            .body(body.to_owned())
            .send()
            .await
            .unwrap();
        let answer = ApiAnswer::read(answer).await.unwrap();
        (answer.status, answer.body)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.ask(Method::GET, path, "").await
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.ask(Method::POST, path, &body.to_string()).await
    }

    /// What the buyer does before the merchant confirms; returns the payment's key.
    pub async fn request(&self, body: Value) -> String {
        let (status, payment) = self.post("/sandbox/payments", body).await;
        assert_eq!(status, 200, "{payment}");
        payment["paymentKey"].as_str().unwrap().to_owned()
    }

    pub async fn act(&self, key: &str, verb: &str) -> (u16, Value) {
        let path = format!("/sandbox/payments/{key}/{verb}");
        self.post(&path, json!({})).await
    }

    pub async fn confirm(&self, key: &str, order: &str) -> (u16, Value) {
        let body = json!({ "paymentKey": key, "orderId": order, "amount": 1000 });
        self.post("/v1/payments/confirm", body).await
    }

    pub async fn status(&self, key: &str) -> Value {
        self.get(&format!("/v1/payments/{key}")).await.1["status"].clone()
    }

    /// A confirm of `key` for `order-1` as bytes, and everything that comes back until the connection is closed.
    pub async fn raw_confirm(&self, key: &str, idempotency_key: &str) -> Vec<u8> {
        let body = json!({ "paymentKey": key, "orderId": "order-1", "amount": 1000 }).to_string();
        let request = format!(
            "POST /v1/payments/confirm HTTP/1.1\r\nhost: sandbox\r\nconnection: close\r\n\
             authorization: {AUTHORIZATION}\r\nidempotency-key: {idempotency_key}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let read = tokio::time::timeout(DEADLINE, read).await.unwrap();
        // A connection that is cut may end by a reset, after whatever was sent.
        drop(read);
        answer
    }

    /// Looks at the webhooks until they are as wanted.
    pub async fn webhooks_until(&self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(POLLING, "the wanted webhooks", async || {
            let listed = self.get("/sandbox/webhooks").await.1;
            if is_wanted(&listed) {
                Ok(listed)
            } else {
                Err(listed)
            }
        })
        .await
    }
}

/// One webhook as it came.
#[derive(Debug)]
pub struct Heard {
    pub id: String,
    pub retried: u32,
    pub body: Value,
}

impl Heard {
    pub fn status(&self) -> &str {
        let data = self.body.get("data").unwrap_or(&self.body);
        data["status"].as_str().unwrap()
    }

    pub fn is_deposit(&self) -> bool {
        self.body.get("eventType").is_none()
    }
}

/// Takes webhooks; answers 200 unless told otherwise.
pub struct Merchant {
    pub url: String,
    answers: Arc<Mutex<VecDeque<u16>>>,
    heard: mpsc::UnboundedReceiver<Heard>,
    server: JoinHandle<()>,
}

type Ear = (Arc<Mutex<VecDeque<u16>>>, mpsc::UnboundedSender<Heard>);

impl Merchant {
    pub async fn start() -> Self {
        let answers = Arc::new(Mutex::new(VecDeque::new()));
        let (sender, heard) = mpsc::unbounded_channel();
        let router = Router::new()
            .route("/webhook", post(hear))
            .with_state((answers.clone(), sender));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/webhook", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            url,
            answers,
            heard,
            server,
        }
    }

    /// What it answers next.
    pub fn answer(&self, statuses: impl IntoIterator<Item = u16>) {
        self.answers.lock().unwrap().extend(statuses);
    }

    pub async fn hear(&mut self) -> Heard {
        tokio::time::timeout(DEADLINE, self.heard.recv())
            .await
            .expect("a webhook in time")
            .unwrap()
    }

    /// What came that nobody asked for yet.
    pub fn heard_more(&mut self) -> bool {
        self.heard.try_recv().is_ok()
    }
}

impl Drop for Merchant {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn hear(
    State((answers, sender)): State<Ear>,
    headers: HeaderMap,
    body: String,
) -> StatusCode {
    let header = |name: &str| {
        let name = format!("tosspayments-webhook-transmission-{name}");
        headers[name].to_str().unwrap().to_owned()
    };
    assert!(header("time").ends_with("+09:00"));
    let heard = Heard {
        id: header("id"),
        retried: header("retried-count").parse().unwrap(),
        body: serde_json::from_str(&body).unwrap(),
    };
    sender.send(heard).unwrap();
    let status = answers.lock().unwrap().pop_front().unwrap_or(200);
    StatusCode::from_u16(status).unwrap()
}

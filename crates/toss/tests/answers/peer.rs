//! A peer on a port of the system's choice that says what it is told to, one connection for each request.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use toss::{Cancel, Charge, ChargeStatus, Client, Confirm, GatewayOutcome, SecretKey, Settings};

pub const SECRET: &str = "test_sk_of_the_tests";
/// Long enough for a machine under load: only a test that waits for it to pass is slow.
const TIMEOUT_MILLIS: u64 = 20_000;
/// For a test that waits for it to pass.
pub const SHORT_TIMEOUT_MILLIS: u64 = 1_000;

/// What the peer does with one request that it has read to its end.
#[derive(Clone, Debug)]
pub enum PeerReply {
    /// Answers, and closes the connection in good order.
    All(String),
    /// Answers, and resets the connection.
    ThenReset(String),
    /// Answers, and keeps the connection open without another word.
    ThenHang(String),
}

pub struct Peer {
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<String>>>,
    server: JoinHandle<()>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Peer {
    /// Says one after the other; the last one again and again.
    pub async fn replying(script: Vec<PeerReply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(Mutex::new(Vec::new()));
        let recording = Arc::clone(&received);
        let server = tokio::spawn(async move {
            let mut hung = Vec::new();
            for turn in 0.. {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read(&mut stream).await;
                recording.lock().unwrap().push(request);
                let say = &script[turn.min(script.len() - 1)];
                hung.extend(answer(stream, say).await);
            }
        });
        Self {
            address,
            received,
            server,
        }
    }

    /// The requests so far, head and body.
    pub fn received(&self) -> Vec<String> {
        self.received.lock().unwrap().clone()
    }

    pub fn settings(&self) -> Settings {
        Settings {
            base_url: format!("http://{}", self.address),
            secret_key: SecretKey::new(SECRET),
            request_timeout_millis: TIMEOUT_MILLIS,
            ..Settings::default()
        }
    }

    pub fn client(&self) -> Client {
        Client::new(&self.settings()).unwrap()
    }

    pub fn impatient_client(&self) -> Client {
        let settings = Settings {
            request_timeout_millis: SHORT_TIMEOUT_MILLIS,
            ..self.settings()
        };
        Client::new(&settings).unwrap()
    }
}

/// One request, head and body. A caller that hangs up half way has said as much as it has.
async fn read(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && body.len() >= content_length(head)
        {
            return text.into_owned();
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return String::from_utf8_lossy(&bytes).into_owned();
        }
    }
}

fn content_length(head: &str) -> usize {
    head.lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, length)| length.parse().unwrap())
}

/// Returns the connection that is to stay open. A caller that stops listening has received enough.
async fn answer(mut stream: TcpStream, say: &PeerReply) -> Option<TcpStream> {
    let (PeerReply::All(bytes) | PeerReply::ThenReset(bytes) | PeerReply::ThenHang(bytes)) = say;
    let _ = stream.write_all(bytes.as_bytes()).await;
    match say {
        PeerReply::All(_) => {
            let _ = stream.shutdown().await;
            None
        }
        PeerReply::ThenReset(_) => {
            stream.set_zero_linger().unwrap();
            None
        }
        PeerReply::ThenHang(_) => Some(stream),
    }
}

/// The bytes of a whole answer.
pub fn http(status: u16, content_type: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Said\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
}

pub fn replies(status: u16, body: &Value) -> PeerReply {
    PeerReply::All(http(status, "application/json", &body.to_string()))
}

pub fn error(status: u16, code: &str) -> PeerReply {
    replies(status, &json!({"code": code, "message": "why"}))
}

pub fn payment(status: &str) -> Value {
    json!({
        "paymentKey": "payment-key-1", "orderId": "order-1", "status": status, "totalAmount": 1000,
        "balanceAmount": 1000,
    })
}

pub fn charge(status: ChargeStatus, balance_amount: i64) -> Charge {
    Charge {
        payment_key: "payment-key-1".into(),
        order_id: "order-1".into(),
        status,
        total_amount: 1_000,
        balance_amount,
        secret: None,
        virtual_account: None,
    }
}

pub fn confirm() -> Confirm {
    Confirm {
        payment_key: "payment-key-1".into(),
        order_id: "order-1".into(),
        amount: 1_000,
        idempotency_key: "once".into(),
        test_code: None,
    }
}

pub fn cancel(amount: Option<i64>) -> Cancel {
    Cancel {
        payment_key: "payment-key-1".into(),
        reason: "the buyer asked for it".into(),
        amount,
        refund_account: None,
        idempotency_key: "once".into(),
        test_code: None,
    }
}

#[track_caller]
pub fn unknown_because(outcome: GatewayOutcome) -> String {
    match outcome {
        GatewayOutcome::Unknown { reason, .. } => reason,
        other => panic!("expected an unknown outcome, got {other:?}"),
    }
}

#[track_caller]
pub fn declined_with(outcome: GatewayOutcome) -> String {
    match outcome {
        GatewayOutcome::Declined { code, .. } => code,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

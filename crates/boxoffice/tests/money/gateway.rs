//! The gateway: the sandbox in this process, on a port of its own and a file, so that it outlives every death of the
//! service. Beside it stands a house where nobody is home: webhooks go there while the service is away, so that none
//! reaches a stranger who was given its port.

use std::{collections::BTreeMap, net::Ipv4Addr};

use messaging::ShutdownSwitch;
use payment::{
    gateway::SecretKey,
    sandbox::{Books, Sandbox, SandboxSettings, Script},
};
use reqwest::Client;
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;

/// Between the two of us.
pub const SECRET: &str = "test_sk_money_is_never_lost";
/// The waits of webhooks, from one minute to three days, come to 10 milliseconds up to 40 seconds; the first six of
/// them together, to 14 seconds, which is longer than the service is ever away.
const WEBHOOK_SPEED: u32 = 6_000;
const FILE: &str = "gateway.db";

pub struct Gateway {
    sandbox: Sandbox,
    pub url: String,
    nobody: String,
    client: Client,
    folder: TempDir,
    _switch: ShutdownSwitch,
}

/// A charge in the books of the gateway.
#[derive(Debug, Clone)]
pub struct Charge {
    pub key: String,
    pub order: String,
    pub is_account: bool,
    pub status: String,
    pub total: i64,
    pub balance: i64,
    /// Everything that came in, and everything that went back.
    pub charged: i64,
    pub refunded: i64,
}

impl Gateway {
    pub async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = SandboxSettings {
            path: Some(folder.path().join(FILE)),
            webhook_speed: WEBHOOK_SPEED,
            ..SandboxSettings::new(SecretKey::new(SECRET))
        };
        let sandbox = Sandbox::open(settings).unwrap();
        let (switch, shutdown) = ShutdownSwitch::new();
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let (address, _) = sandbox.serve(listen, shutdown).await.unwrap();
        let gateway = Self {
            sandbox,
            url: format!("http://{address}"),
            nobody: nobody_home().await,
            client: Client::builder().no_proxy().build().unwrap(),
            folder,
            _switch: switch,
        };
        gateway.tell_nobody();
        gateway
    }

    pub fn tell(&self, service_url: &str) {
        let url = format!("{service_url}/payment/webhook/toss");
        self.sandbox.send_webhooks_to(Some(url)).unwrap();
    }

    pub fn tell_nobody(&self) {
        let url = Some(self.nobody.clone());
        self.sandbox.send_webhooks_to(url).unwrap();
    }

    pub fn play(&self, script: Script) {
        self.sandbox.play(script).unwrap();
    }

    pub fn books(&self) -> Books {
        self.sandbox.books().unwrap()
    }

    /// The buyer chooses a virtual account.
    pub async fn request_account(&self, order: &str, key: &str, amount: i64) {
        let wish = json!({ "orderId": order, "paymentKey": key, "amount": amount,
            "method": "VIRTUAL_ACCOUNT" });
        let url = format!("{}/sandbox/payments", self.url);
        let asked = self.client.post(url).json(&wish).send().await.unwrap();
        assert_eq!(asked.status(), 200, "{wish}");
    }

    /// Charges a card without the service; what is answered does not matter.
    pub async fn charge(&self, order: &str, key: &str, amount: i64) {
        let wish = json!({ "orderId": order, "paymentKey": key, "amount": amount });
        let url = format!("{}/v1/payments/confirm", self.url);
        let request = self.client.post(url).header("Idempotency-Key", key);
        let _ = request
            .basic_auth(SECRET, Some(""))
            .json(&wish)
            .send()
            .await;
    }

    /// What the bank, or the merchant at the gateway's own console, does with a payment; whether that was possible.
    pub async fn act(&self, key: &str, deed: &str) -> bool {
        let url = format!("{}/sandbox/payments/{key}/{deed}", self.url);
        self.client.post(url).send().await.unwrap().status() == 200
    }

    /// Webhooks that were not taken so far. What is sent once more after it was taken changes nothing.
    pub fn webhooks_pending(&self) -> i64 {
        let text = "SELECT COUNT(*) FROM webhook WHERE state = 'PENDING' AND was_delivered = 0";
        let file = self.folder.path().join(FILE);
        let connection = rusqlite::Connection::open(file).unwrap();
        connection.query_row(text, (), |row| row.get(0)).unwrap()
    }

    /// All payments that were requested here, by their keys.
    pub fn charges(&self) -> BTreeMap<String, Charge> {
        let file = self.folder.path().join(FILE);
        let connection = rusqlite::Connection::open(file).unwrap();
        let text = "SELECT payment_key, order_id, method, status, total_amount, balance_amount,
             (SELECT COALESCE(SUM(MAX(amount, 0)), 0) FROM movement m WHERE m.payment_key = p.payment_key),
             (SELECT COALESCE(SUM(MAX(-amount, 0)), 0) FROM movement m WHERE m.payment_key = p.payment_key)
             FROM payment p";
        let mut statement = connection.prepare(text).unwrap();
        let rows = statement.query_map((), |row| {
            let charge = Charge {
                key: row.get(0)?,
                order: row.get(1)?,
                is_account: row.get::<_, String>(2)? == "VIRTUAL_ACCOUNT",
                status: row.get(3)?,
                total: row.get(4)?,
                balance: row.get(5)?,
                charged: row.get(6)?,
                refunded: row.get(7)?,
            };
            Ok((charge.key.clone(), charge))
        });
        rows.unwrap().map(Result::unwrap).collect()
    }
}

impl Gateway {
    /// How many idempotency keys the gateway has seen at confirms of each order: what it judged, it remembers.
    pub fn confirm_keys(&self) -> BTreeMap<String, i64> {
        let file = self.folder.path().join(FILE);
        let connection = rusqlite::Connection::open(file).unwrap();
        let text = "SELECT json_extract(request, '$.orderId'), COUNT(*) FROM first_answer
             WHERE path = '/v1/payments/confirm' AND idempotency_key NOT LIKE '%-card_' GROUP BY 1";
        let mut statement = connection.prepare(text).unwrap();
        let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)));
        rows.unwrap().map(Result::unwrap).collect()
    }
}

impl Drop for Gateway {
    /// What a failed test leaves is kept for whoever looks into it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!(
                "the gateway's file is kept: {}",
                self.folder.path().display()
            );
        }
    }
}

/// Takes every connection and closes it.
async fn nobody_home() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    format!("http://{address}/")
}

//! The payment gateway's sandbox beside the house, under the same clock: stories give it a script of faults, do what
//! buyers, banks and merchants do at it, let it tell by webhooks, and look into its books.

use std::time::Duration;

use messaging::{Clock, ShutdownSwitch};
use payment::{
    gateway::SecretKey,
    sandbox::{Books, Sandbox, SandboxSettings, Script},
};
use reqwest::{Client, Method};
use rusqlite::{Connection, OptionalExtension};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{desk::Purchase, house::PATIENCE};

pub const SECRET: &str = "test_sk_scenarios";
const FILE: &str = "gateway.db";
/// How often its webhooks are looked at.
const LOOK: Duration = Duration::from_millis(5);

/// How the gateway behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Nobody is there: nothing is done, and nothing is told.
    Away,
    /// What is asked for is done, and nothing is told.
    Dumb,
}

pub struct Gateway {
    pub url: String,
    sandbox: Sandbox,
    client: Client,
    folder: TempDir,
    /// Dropping it ends the server.
    _switch: ShutdownSwitch,
}

impl Gateway {
    pub async fn start(clock: Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = SandboxSettings {
            path: Some(folder.path().join(FILE)),
            clock,
            ..SandboxSettings::new(SecretKey::new(SECRET))
        };
        let sandbox = Sandbox::open(settings).unwrap();
        let (switch, shutdown) = ShutdownSwitch::new();
        let served = sandbox.serve(([127, 0, 0, 1], 0).into(), shutdown).await;
        Self {
            url: format!("http://{}", served.unwrap().0),
            sandbox,
            client: Client::builder().no_proxy().build().unwrap(),
            folder,
            _switch: switch,
        }
    }

    pub fn turn(&self, mood: Mood) {
        let strike = |on: &str, fault: &str| json!({ "on": on, "fault": fault });
        self.script(match mood {
            Mood::Well => json!([]),
            Mood::Away => json!([
                strike("confirm", "dropBefore"),
                strike("cancel", "dropBefore"),
                strike("lookup", "dropBefore"),
            ]),
            Mood::Dumb => json!([
                strike("confirm", "doThenDrop"),
                strike("cancel", "doThenDrop"),
                strike("lookup", "dropBefore"),
            ]),
        });
    }

    /// Plays these rules from their beginning, in place of those before.
    pub fn script(&self, rules: Value) {
        let text = json!({ "rules": rules }).to_string();
        let script = Script::parse(text.as_bytes()).unwrap();
        self.sandbox.play(script).unwrap();
    }

    /// What its file says of a payment by its key: status, amount, and what is left of it.
    pub fn charge(&self, key: &str) -> Option<(String, i64, i64)> {
        let text =
            "SELECT status, total_amount, balance_amount FROM payment WHERE payment_key = ?1";
        let read = |row: &rusqlite::Row<'_>| {
            Ok((
                row.get("status")?,
                row.get("total_amount")?,
                row.get("balance_amount")?,
            ))
        };
        self.file().query_row(text, [key], read).optional().unwrap()
    }

    pub fn books(&self) -> Books {
        self.sandbox.books().unwrap()
    }

    /// Its file, for what no gateway would do by itself.
    pub fn file(&self) -> Connection {
        Connection::open(self.folder.path().join(FILE)).unwrap()
    }

    /// Money is taken for an order, and the house does not know of it.
    pub async fn take(&self, key: &str, order: &str, amount: i64) {
        let url = format!("{}/v1/payments/confirm", self.url);
        let request = json!({ "paymentKey": key, "orderId": order, "amount": amount });
        let request = self.client.post(url).json(&request);
        let taken = request.basic_auth(SECRET, Some("")).send().await.unwrap();
        assert_eq!(taken.status(), 200);
    }

    /// What no sandbox does: an order that was charged is charged once more.
    pub async fn take_again(&self, key: &str, order: &str, amount: i64) {
        let elsewhere = format!("{key}-elsewhere");
        self.take(key, &elsewhere, amount).await;
        let file = self.file();
        for text in [
            "UPDATE payment SET order_id = ?1, is_confirmed = 0 WHERE payment_key = ?2",
            "UPDATE movement SET order_id = ?1 WHERE payment_key = ?2",
        ] {
            assert_eq!(file.execute(text, [order, key]).unwrap(), 1);
        }
    }

    /// The buyer chooses to pay into a virtual account.
    pub async fn open_account(&self, purchase: &Purchase, key: &str) {
        let request = json!({
            "orderId": purchase.payment, "amount": purchase.amount, "paymentKey": key,
            "method": "VIRTUAL_ACCOUNT",
        });
        let (status, answer) = self.ask(Method::POST, "payments", Some(request)).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Somebody pays into the account, the bank takes the deposit back, or the merchant cancels at his console:
    /// `deposit`, `withdraw`, `cancel-by-merchant`.
    pub async fn act(&self, key: &str, what: &str) {
        let (status, answer) = self.try_to(key, what).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// As [`Gateway::act`], which the gateway may refuse.
    pub async fn try_to(&self, key: &str, what: &str) -> (u16, Value) {
        let path = format!("payments/{key}/{what}");
        self.ask(Method::POST, &path, None).await
    }

    /// From now on its webhooks go there.
    pub fn tell(&self, url: Option<String>) {
        self.sandbox.send_webhooks_to(url).unwrap();
    }

    /// Waits until this many webhooks were taken, and returns how many are still to be sent.
    pub async fn told(&self, delivered: usize) -> usize {
        self.webhooks_become(|webhooks| count(webhooks, "delivered") >= delivered)
            .await
    }

    /// Waits until every webhook was taken.
    pub async fn told_all(&self) {
        self.webhooks_become(|webhooks| count(webhooks, "pending") == 0)
            .await;
    }

    /// Waits until a webhook was sent in vain.
    pub async fn told_in_vain(&self) {
        let is_tried = |webhook: &Value| webhook["attempts"].as_u64() > Some(0);
        self.webhooks_become(|webhooks| {
            webhooks["pending"].as_array().unwrap().iter().any(is_tried)
        })
        .await;
    }

    async fn webhooks_become(&self, wanted: impl Fn(&Value) -> bool) -> usize {
        let mut last = Value::Null;
        let looking = async {
            let mut look = tokio::time::interval(LOOK);
            loop {
                look.tick().await;
                last = self.ask(Method::GET, "webhooks", None).await.1;
                if wanted(&last) {
                    return;
                }
            }
        };
        if tokio::time::timeout(PATIENCE, looking).await.is_err() {
            panic!("the webhooks never became what they should: {last}");
        }
        count(&last, "pending")
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("{}/sandbox/{path}", self.url);
        let request = self.client.request(method, url);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = request.send().await.unwrap();
        (
            response.status().as_u16(),
            response.json().await.unwrap_or_default(),
        )
    }
}

fn count(webhooks: &Value, standing: &str) -> usize {
    webhooks[standing].as_array().unwrap().len()
}

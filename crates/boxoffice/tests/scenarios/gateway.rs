//! The sandbox gateway beside the app, with the same clock: scenarios script its faults, act as buyers, banks and
//! merchants, receive its webhooks and read its books.

use std::{sync::Arc, time::Duration};

use contract::Timestamp;
use futures::{FutureExt, future::BoxFuture};
use messaging::{Clock, ShutdownSwitch};
use rusqlite::{Connection, OptionalExtension};
use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::{Polling, eventually, gateway::GatewayClient};
use toss::SecretKey;
use toss_sandbox::{FaultScript, Sandbox, SandboxSettings, Totals};

use crate::test_app::TIMEOUT;

pub const SECRET: &str = "test_sk_scenarios";
const FILE: &str = "gateway.db";
const POLLING: Polling = Polling {
    interval: Duration::from_millis(5),
    timeout: TIMEOUT,
};

/// How the gateway behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GatewayMode {
    Normal,
    /// Nothing is done and nothing is answered.
    Unreachable,
    /// Every request is done and none is answered.
    LosesAnswers,
}

/// The clock of the services as the sandbox's.
#[derive(Debug)]
struct SharedClock(Clock);

impl toss_sandbox::Clock for SharedClock {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::from_millisecond(self.0.now().as_millis()).unwrap()
    }

    fn wait_until(&self, at: jiff::Timestamp) -> BoxFuture<'_, ()> {
        let at = Timestamp::from_millis(at.as_millisecond());
        async move { self.0.wait_until(at).await }.boxed()
    }
}

pub struct TestGateway {
    pub client: GatewayClient,
    sandbox: Sandbox,
    folder: TempDir,
    /// Dropping it ends the server.
    _switch: ShutdownSwitch,
}

impl TestGateway {
    pub async fn start(clock: Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = SandboxSettings {
            path: Some(folder.path().join(FILE)),
            clock: Arc::new(SharedClock(clock)),
            ..SandboxSettings::new(SecretKey::new(SECRET))
        };
        let sandbox = Sandbox::open(settings).unwrap();
        let (switch, mut shutdown) = ShutdownSwitch::new();
        let stopped = async move { shutdown.requested().await };
        let served = sandbox.serve(([127, 0, 0, 1], 0).into(), stopped).await;
        Self {
            client: GatewayClient::new(format!("http://{}", served.unwrap().0), SECRET),
            sandbox,
            folder,
            _switch: switch,
        }
    }

    pub fn set_mode(&self, mode: GatewayMode) {
        let strike = |on: &str, fault: &str| json!({ "on": on, "fault": fault });
        self.script(match mode {
            GatewayMode::Normal => json!([]),
            GatewayMode::Unreachable => json!([
                strike("confirm", "dropBefore"),
                strike("cancel", "dropBefore"),
                strike("lookup", "dropBefore"),
            ]),
            GatewayMode::LosesAnswers => json!([
                strike("confirm", "doThenDrop"),
                strike("cancel", "doThenDrop"),
                strike("lookup", "dropBefore"),
            ]),
        });
    }

    /// Replaces the fault rules.
    pub fn script(&self, rules: Value) {
        let text = json!({ "rules": rules }).to_string();
        let script = FaultScript::parse(text.as_bytes()).unwrap();
        self.sandbox.set_faults(script).unwrap();
    }

    /// Status, amount and balance of a payment in its file.
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

    pub fn books(&self) -> Totals {
        self.sandbox.totals().unwrap()
    }

    /// Its file, for changes that no gateway makes by itself.
    pub fn file(&self) -> Connection {
        Connection::open(self.folder.path().join(FILE)).unwrap()
    }

    /// Charges an order a second time, which the sandbox itself refuses.
    pub async fn charge_again(&self, key: &str, order: &str, amount: i64) {
        let elsewhere = format!("{key}-elsewhere");
        self.client.charge(&elsewhere, key, amount).await;
        let file = self.file();
        for text in [
            "UPDATE payment SET order_id = ?1, is_confirmed = 0 WHERE payment_key = ?2",
            "UPDATE movement SET order_id = ?1 WHERE payment_key = ?2",
        ] {
            assert_eq!(file.execute(text, [order, key]).unwrap(), 1);
        }
    }

    /// Performs an action, which must be possible; see [`GatewayClient::try_perform`].
    pub async fn perform(&self, key: &str, action: &str) {
        let (status, answer) = self.client.try_perform(key, action).await;
        assert_eq!(status, 200, "{answer}");
    }

    pub fn send_webhooks_to(&self, url: Option<String>) {
        self.sandbox.send_webhooks_to(url).unwrap();
    }

    /// Waits until this number of webhooks was delivered; returns the number of pending ones.
    pub async fn wait_for_webhooks(&self, delivered: usize) -> usize {
        self.webhooks_become(|webhooks| count(webhooks, "delivered") >= delivered)
            .await
    }

    /// Waits until every webhook was delivered.
    pub async fn wait_for_all_webhooks(&self) {
        self.webhooks_become(|webhooks| count(webhooks, "pending") == 0)
            .await;
    }

    /// Waits until the delivery of a webhook has failed.
    pub async fn wait_for_failed_webhook(&self) {
        let is_tried = |webhook: &Value| webhook["attempts"].as_u64() > Some(0);
        self.webhooks_become(|webhooks| {
            webhooks["pending"].as_array().unwrap().iter().any(is_tried)
        })
        .await;
    }

    async fn webhooks_become(&self, is_wanted: impl Fn(&Value) -> bool) -> usize {
        let webhooks = eventually(POLLING, "the webhooks are as wanted", async || {
            let webhooks = self.client.webhooks().await;
            if is_wanted(&webhooks) {
                Ok(webhooks)
            } else {
                Err(webhooks)
            }
        });
        count(&webhooks.await, "pending")
    }
}

fn count(webhooks: &Value, standing: &str) -> usize {
    webhooks[standing].as_array().unwrap().len()
}

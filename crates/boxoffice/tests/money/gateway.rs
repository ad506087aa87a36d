//! The sandbox gateway in this process, on a port and a file of its own, so that it survives each kill of the service.
//! While the service is down, webhooks go to a listener that closes every connection, so that none reaches another
//! process on the service's former port.

use std::{collections::BTreeMap, net::Ipv4Addr};

use messaging::ShutdownSwitch;
use tempfile::TempDir;
use test_support::gateway::GatewayClient;
use tokio::net::TcpListener;
use toss::SecretKey;
use toss_sandbox::{FaultScript, Sandbox, SandboxSettings, Totals};

/// The secret that service and gateway share.
pub const SECRET: &str = "test_sk_money_is_never_lost";
/// Scales webhook retry delays of one minute to three days down to 10 milliseconds to 40 seconds. The first six delays
/// sum to 14 seconds, which is longer than any outage of the service.
const WEBHOOK_SPEED: u32 = 6_000;
const FILE: &str = "gateway.db";

pub struct TestGateway {
    sandbox: Sandbox,
    pub client: GatewayClient,
    closing_url: String,
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
    /// Sums of all charges and of all refunds.
    pub charged: i64,
    pub refunded: i64,
}

impl TestGateway {
    pub async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = SandboxSettings {
            path: Some(folder.path().join(FILE)),
            webhook_speed: WEBHOOK_SPEED,
            ..SandboxSettings::new(SecretKey::new(SECRET))
        };
        let sandbox = Sandbox::open(settings).unwrap();
        let (switch, mut shutdown) = ShutdownSwitch::new();
        let stopped = async move { shutdown.requested().await };
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let (address, _) = sandbox.serve(listen, stopped).await.unwrap();
        let gateway = Self {
            sandbox,
            client: GatewayClient::new(format!("http://{address}"), SECRET),
            closing_url: closing_listener().await,
            folder,
            _switch: switch,
        };
        gateway.send_webhooks_to_closed_port();
        gateway
    }

    pub fn send_webhooks_to(&self, service_url: &str) {
        let url = format!("{service_url}/payment/webhook/toss");
        self.sandbox.send_webhooks_to(Some(url)).unwrap();
    }

    pub fn send_webhooks_to_closed_port(&self) {
        let url = Some(self.closing_url.clone());
        self.sandbox.send_webhooks_to(url).unwrap();
    }

    pub fn play(&self, script: FaultScript) {
        self.sandbox.set_faults(script).unwrap();
    }

    pub fn books(&self) -> Totals {
        self.sandbox.totals().unwrap()
    }

    /// Number of webhooks that were never delivered. Repeated deliveries change nothing and are not counted.
    pub fn webhooks_pending(&self) -> i64 {
        let text = "SELECT COUNT(*) FROM webhook WHERE state = 'PENDING' AND was_delivered = 0";
        let file = self.folder.path().join(FILE);
        let connection = rusqlite::Connection::open(file).unwrap();
        connection.query_row(text, (), |row| row.get(0)).unwrap()
    }

    /// All payments at the gateway, by payment key.
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

impl TestGateway {
    /// Number of idempotency keys with which each order was confirmed.
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

impl Drop for TestGateway {
    /// Keeps the folder of a failed test for inspection.
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

/// Accepts every connection and closes it.
async fn closing_listener() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    format!("http://{address}/")
}

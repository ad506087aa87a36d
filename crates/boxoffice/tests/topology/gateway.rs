//! The sandbox gateway in this process, in memory. No fault stops it. It sends webhooks.

use std::net::{Ipv4Addr, SocketAddr};

use messaging::ShutdownSwitch;
use reqwest::Client;
use serde_json::json;
use toss::SecretKey;
use toss_sandbox::{Sandbox, SandboxSettings, Totals};

pub const SECRET: &str = "test_sk_topology";
/// Scales webhook retry delays of one minute to three days down to 0.2 seconds to some minutes.
const WEBHOOK_SPEED: u32 = 300;

pub struct TestGateway {
    sandbox: Sandbox,
    pub address: SocketAddr,
    client: Client,
    _switch: ShutdownSwitch,
}

impl TestGateway {
    pub async fn open() -> Self {
        let settings = SandboxSettings {
            webhook_speed: WEBHOOK_SPEED,
            ..SandboxSettings::new(SecretKey::new(SECRET))
        };
        let sandbox = Sandbox::open(settings).unwrap();
        let (switch, mut shutdown) = ShutdownSwitch::new();
        let stopped = async move { shutdown.requested().await };
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let (address, _) = sandbox.serve(listen, stopped).await.unwrap();
        Self {
            sandbox,
            address,
            client: test_support::api::client(),
            _switch: switch,
        }
    }

    pub fn send_webhooks_to(&self, url: &str) {
        self.sandbox.send_webhooks_to(Some(url.to_owned())).unwrap();
    }

    pub fn books(&self) -> Totals {
        self.sandbox.totals().unwrap()
    }

    /// Charges a card for an order, without the service.
    pub async fn charge(&self, order: &str, key: &str, amount: i64) {
        let body = json!({ "orderId": order, "paymentKey": key, "amount": amount });
        let url = format!("http://{}/v1/payments/confirm", self.address);
        let request = self.client.post(url).header("Idempotency-Key", key);
        let request = request.basic_auth(SECRET, Some("")).json(&body);
        assert_eq!(request.send().await.unwrap().status(), 200, "{body}");
    }

    /// The buyer requests a virtual account.
    pub async fn request_account(&self, order: &str, key: &str, amount: i64) {
        let body = json!({ "orderId": order, "paymentKey": key, "amount": amount,
            "method": "VIRTUAL_ACCOUNT" });
        let url = format!("http://{}/sandbox/payments", self.address);
        let answer = self.client.post(url).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{body}");
    }

    /// The buyer pays into the virtual account; returns whether that was possible.
    pub async fn deposit(&self, key: &str) -> bool {
        let url = format!("http://{}/sandbox/payments/{key}/deposit", self.address);
        self.client.post(url).send().await.unwrap().status() == 200
    }
}

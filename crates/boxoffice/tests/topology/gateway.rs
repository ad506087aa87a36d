//! The sandbox gateway in this process, in memory. No fault stops it. It sends webhooks.

use std::net::{Ipv4Addr, SocketAddr};

use messaging::ShutdownSwitch;
use test_support::gateway::GatewayClient;
use toss::SecretKey;
use toss_sandbox::{Sandbox, SandboxSettings, Totals};

pub const SECRET: &str = "test_sk_topology";
/// Scales webhook retry delays of one minute to three days down to 0.2 seconds to some minutes.
const WEBHOOK_SPEED: u32 = 300;

pub struct TestGateway {
    sandbox: Sandbox,
    pub address: SocketAddr,
    pub client: GatewayClient,
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
            client: GatewayClient::new(format!("http://{address}"), SECRET),
            _switch: switch,
        }
    }

    pub fn send_webhooks_to(&self, url: &str) {
        self.sandbox.send_webhooks_to(Some(url.to_owned())).unwrap();
    }

    pub fn books(&self) -> Totals {
        self.sandbox.totals().unwrap()
    }
}

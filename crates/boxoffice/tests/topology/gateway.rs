//! The gateway: the sandbox in this process, in memory, which nothing here takes down.

use std::net::Ipv4Addr;

use messaging::ShutdownSwitch;
use payment::{
    gateway::SecretKey,
    sandbox::{Books, Sandbox, SandboxSettings},
};

pub const SECRET: &str = "test_sk_topology";

pub struct Gateway {
    sandbox: Sandbox,
    pub url: String,
    _switch: ShutdownSwitch,
}

impl Gateway {
    pub async fn open() -> Self {
        let sandbox = Sandbox::open(SandboxSettings::new(SecretKey::new(SECRET))).unwrap();
        let (switch, shutdown) = ShutdownSwitch::new();
        let listen = (Ipv4Addr::LOCALHOST, 0).into();
        let (address, _) = sandbox.serve(listen, shutdown).await.unwrap();
        Self {
            sandbox,
            url: format!("http://{address}"),
            _switch: switch,
        }
    }

    pub fn books(&self) -> Books {
        self.sandbox.books().unwrap()
    }
}

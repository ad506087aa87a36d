//! The service over its restarts: each server has another port and the same folder.

use std::{fs::OpenOptions, path::Path, process::Command, time::Duration};

use reqwest::Client;
use tempfile::TempDir;
use test_support::{
    Polling,
    api::{self, ApiAnswer, ApiRequest},
    calls::CallLog,
    eventually,
    process::{self, ServerProcess},
};
use tokio::sync::{Mutex, watch};

use crate::gateway::{SECRET, TestGateway};

pub const TIMEOUT: Duration = Duration::from_secs(60);
pub const POLL_INTERVAL: Duration = Duration::from_millis(40);
pub const POLLING: Polling = Polling {
    interval: POLL_INTERVAL,
    timeout: TIMEOUT,
};
/// Time between a reservation's deadline and its expiry.
pub const HOLD_GRACE_SECS: i64 = 1;
/// Short timeouts; the gateway is not the built-in one.
const SETTINGS: &[(&str, &str)] = &[
    ("BOXOFFICE_TICKETING__HOLD_TTL_SECS", "3"),
    ("BOXOFFICE_TICKETING__HOLD_GRACE_SECS", "1"),
    ("BOXOFFICE_PAYMENT__SANDBOX", "false"),
    ("BOXOFFICE_PAYMENT__GATEWAY__REQUEST_TIMEOUT_MILLIS", "600"),
    ("BOXOFFICE_PAYMENT__GATEWAY__CONNECT_TIMEOUT_MILLIS", "300"),
    ("BOXOFFICE_PAYMENT__SETTLE_AFTER_MILLIS", "800"),
    ("BOXOFFICE_PAYMENT__GIVE_UP_AFTER_MILLIS", "2000"),
    ("BOXOFFICE_PAYMENT__RETRY_MILLIS_MIN", "50"),
    ("BOXOFFICE_PAYMENT__RETRY_MILLIS_MAX", "400"),
    (
        "BOXOFFICE_MESSAGING__DEAD_LETTER_RETRY_INTERVAL_MILLIS",
        "200",
    ),
    ("BOXOFFICE_LOG__LEVEL", "info"),
];

pub struct RestartableService {
    folder: TempDir,
    pub gateway: TestGateway,
    pub calls: CallLog,
    client: Client,
    server: Mutex<Option<ServerProcess>>,
    /// The URL of the current server; `None` while there is none.
    address: watch::Sender<Option<String>>,
}

impl RestartableService {
    /// A new folder without a server.
    pub async fn new_folder() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            gateway: TestGateway::open().await,
            calls: CallLog::default(),
            client: api::client(),
            server: Mutex::new(None),
            address: watch::Sender::new(None),
        }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub async fn start(&self) {
        let command = self.command();
        let starting = tokio::task::spawn_blocking(|| ServerProcess::start(command));
        let server = starting.await.unwrap();
        self.gateway.send_webhooks_to(&server.url());
        self.address.send_replace(Some(server.url()));
        *self.server.lock().await = Some(server);
    }

    fn command(&self) -> Command {
        let log = self.path().join("server.log");
        let log = OpenOptions::new().create(true).append(true).open(log);
        let mut command = process::serve(env!("CARGO_BIN_EXE_boxoffice"), self.path());
        command
            .envs(SETTINGS.iter().copied())
            .env(
                "BOXOFFICE_PAYMENT__GATEWAY__BASE_URL",
                &self.gateway.client.url,
            )
            .env("BOXOFFICE_PAYMENT__GATEWAY__SECRET_KEY", SECRET)
            .stderr(log.unwrap());
        command
    }

    /// `kill -9`, followed by a restart.
    pub async fn kill(&self) {
        let server = self.detach().await;
        tokio::task::spawn_blocking(|| server.kill()).await.unwrap();
        self.start().await;
    }

    pub async fn stop(&self) {
        let server = self.detach().await;
        tokio::task::spawn_blocking(|| server.stop("-TERM"))
            .await
            .unwrap();
    }

    async fn detach(&self) -> ServerProcess {
        self.gateway.send_webhooks_to_closed_port();
        self.address.send_replace(None);
        self.server.lock().await.take().unwrap()
    }

    /// Sends a request once; `None` if the service died before it answered.
    pub async fn send_once(&self, request: &ApiRequest) -> Option<ApiAnswer> {
        let url = self.address().await;
        let sending = async { request.send(&self.client, &url).await.ok() };
        self.calls.log(request, sending).await
    }

    /// Sends a request with the same key until it is answered.
    pub async fn send(&self, request: &ApiRequest) -> ApiAnswer {
        eventually(POLLING, "an answer", async || {
            match self.send_once(request).await {
                Some(answer) if !answer.leaves_key_open() => Ok(answer),
                answer => Err(format!("{request:?} was answered {answer:?}")),
            }
        })
        .await
    }

    /// The answer to a GET, once there is one.
    pub async fn get(&self, path: &str) -> ApiAnswer {
        self.send(&ApiRequest::get(path)).await
    }

    async fn address(&self) -> String {
        let mut address = self.address.subscribe();
        let open = tokio::time::timeout(TIMEOUT, address.wait_for(Option::is_some)).await;
        let open = open.expect("the service was never restarted").unwrap();
        open.clone().unwrap()
    }
}

impl Drop for RestartableService {
    /// Keeps the folder of a failed test for inspection.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!("the folder is kept: {}", self.path().display());
        }
    }
}

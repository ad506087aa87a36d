//! The program on a folder, with the settings of this suite.

use std::{
    fs::OpenOptions,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use reqwest::Client;
use serde_json::Value;
use test_support::{
    Polling,
    api::{self, ApiAnswer, ApiRequest},
    process::{self, ExitKind, ServerProcess},
};

pub const TIMEOUT: Duration = Duration::from_secs(60);
pub const POLL_INTERVAL: Duration = Duration::from_millis(5);
pub const POLLING: Polling = Polling {
    interval: POLL_INTERVAL,
    timeout: TIMEOUT,
};
/// Time between a reservation's deadline and its expiry.
pub const HOLD_GRACE_SECS: i64 = 1;

/// Short timeouts; the sandbox gateway accepts test codes.
const SETTINGS: &[(&str, &str)] = &[
    ("BOXOFFICE_TICKETING__HOLD_TTL_SECS", "2"),
    ("BOXOFFICE_TICKETING__HOLD_GRACE_SECS", "1"),
    ("BOXOFFICE_PAYMENT__FORWARD_TEST_CODES", "true"),
    ("BOXOFFICE_PAYMENT__GATEWAY__REQUEST_TIMEOUT_MILLIS", "800"),
    ("BOXOFFICE_PAYMENT__GATEWAY__CONNECT_TIMEOUT_MILLIS", "150"),
    ("BOXOFFICE_PAYMENT__SETTLE_AFTER_MILLIS", "1000"),
    ("BOXOFFICE_PAYMENT__GIVE_UP_AFTER_MILLIS", "2000"),
    (
        "BOXOFFICE_MESSAGING__DEAD_LETTER_RETRY_INTERVAL_MILLIS",
        "100",
    ),
    ("BOXOFFICE_LOG__LEVEL", "warn"),
];

/// Starts a server process. `failpoints` has the syntax of the crate `fail`.
pub fn spawn(folder: &Path, failpoints: &str) -> ServerProcess {
    let log = folder.join("server.log");
    let log = OpenOptions::new().create(true).append(true).open(log);
    let mut command = process::serve(env!("CARGO_BIN_EXE_boxoffice"), folder);
    command
        .envs(SETTINGS.iter().copied())
        .env("FAILPOINTS", failpoints)
        .stderr(log.unwrap());
    ServerProcess::spawn(command)
}

/// A server that listens, and a client of it.
pub struct Server {
    process: ServerProcess,
    pub url: String,
    pub client: Client,
    is_gone: AtomicBool,
}

impl Server {
    pub fn start(folder: &Path) -> Self {
        let started = Self::listening(spawn(folder, ""));
        started.unwrap_or_else(|exit| panic!("it did not start: {exit:?}"))
    }

    /// Waits until the process listens; an error says how it exited before.
    pub fn listening(mut process: ServerProcess) -> Result<Self, ExitKind> {
        process.wait_until_listening()?;
        Ok(Self {
            url: process.url(),
            process,
            client: api::client(),
            is_gone: AtomicBool::new(false),
        })
    }

    pub fn signal(&self, signal: &str) {
        self.process.signal(signal);
    }

    /// `kill -9`.
    pub fn kill(self) {
        self.process.kill();
    }

    /// Waits until it has exited.
    pub async fn exited(&mut self) -> ExitKind {
        self.process.exited().await
    }

    pub async fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.url);
        let answer = self.client.get(url).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// Sends a request; `None` if the server exited before it answered.
    pub async fn send(&self, request: &ApiRequest) -> Option<ApiAnswer> {
        let answer = request.send(&self.client, &self.url).await.ok();
        if answer.is_none() {
            self.mark_gone();
        }
        answer
    }

    /// A request has already found that the server has exited.
    pub fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    fn mark_gone(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
    }
}

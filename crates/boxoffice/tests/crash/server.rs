//! The program as a child process on a folder. Dropping the owner kills it.

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use reqwest::Client;
use serde_json::Value;

/// The test fails if an awaited condition takes longer.
pub const TIMEOUT: Duration = Duration::from_secs(60);
/// How often a condition is polled.
pub const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// Time between a reservation's deadline and its expiry.
pub const HOLD_GRACE_SECS: i64 = 1;
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;

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

/// How a server ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitKind {
    /// It crashed at its failpoint.
    Aborted,
    Killed,
    /// It stopped cleanly on SIGTERM.
    Stopped,
}

/// A server process that may not listen yet.
pub struct StartingServer {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

/// A server process that listens.
pub struct Server {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    pub url: String,
    pub client: Client,
    is_gone: AtomicBool,
}

impl StartingServer {
    /// `failpoints` as the crate `fail` reads them.
    pub fn spawn(folder: &Path, failpoints: &str) -> Self {
        let log = folder.join("server.log");
        let log = OpenOptions::new().create(true).append(true).open(log);
        let mut command = Command::new(env!("CARGO_BIN_EXE_boxoffice"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("BOXOFFICE_") {
                command.env_remove(name);
            }
        }
        let mut child = command
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder)
            .envs(SETTINGS.iter().copied())
            .env("FAILPOINTS", failpoints)
            // An abort may leave a core file in the working directory.
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// Waits until it listens; an error says how it exited before it listened.
    pub fn listening(mut self) -> Result<Server, ExitKind> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let Some(url) = line.strip_prefix("listening on ") else {
            return Err(ended(self.child.wait().unwrap()));
        };
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Server {
            child: self.child,
            _stdout: self.stdout,
            url: url.trim_end().to_owned(),
            client: Client::builder().no_proxy().build().unwrap(),
            is_gone: AtomicBool::new(false),
        })
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Server {
    pub fn start(folder: &Path) -> Self {
        let started = StartingServer::spawn(folder, "").listening();
        started.unwrap_or_else(|ended| panic!("it did not start: {ended:?}"))
    }

    /// Sends a signal without waiting.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// `kill -9`.
    pub async fn kill(mut self) {
        self.signal("-KILL");
        assert_eq!(self.ended().await, ExitKind::Killed);
    }

    pub async fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.url);
        self.client
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    /// A request has already found that the server has exited.
    pub fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    pub fn mark_gone(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
    }

    /// Waits until it has exited.
    pub async fn ended(&mut self) -> ExitKind {
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        let gone = async {
            loop {
                poll.tick().await;
                if let Some(status) = self.child.try_wait().unwrap() {
                    return ended(status);
                }
            }
        };
        let gone = tokio::time::timeout(TIMEOUT, gone).await;
        gone.expect("the server never exited")
    }
}

fn ended(status: ExitStatus) -> ExitKind {
    match (status.signal(), status.code()) {
        (Some(SIGABRT), _) => ExitKind::Aborted,
        (Some(SIGKILL), _) => ExitKind::Killed,
        (_, Some(0)) => ExitKind::Stopped,
        _ => panic!("the server exited by itself: {status}"),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only if it has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The program as a process: started on a folder, killed or told to stop. It owns its child, which dies with it.

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

/// What must come does so within this, or the test fails.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often something is looked at until it is as wanted.
pub const LOOK: Duration = Duration::from_millis(5);
/// How much later than its deadline a reservation lapses.
pub const HOLD_GRACE_SECS: i64 = 1;
const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;

/// Everything that takes time, made short; the gateway's double takes test codes.
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
pub enum Ended {
    /// It struck its failpoint.
    Aborted,
    Killed,
    /// It stopped as it was told.
    Stopped,
}

/// A server that may not listen yet.
pub struct Starting {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

/// A server that listens.
pub struct Server {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    pub url: String,
    pub client: Client,
    is_gone: AtomicBool,
}

impl Starting {
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
            // An abort may leave a file where it stands.
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// Waits until it listens, or how it ended before it did.
    pub fn listening(mut self) -> Result<Server, Ended> {
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
        let started = Starting::spawn(folder, "").listening();
        started.unwrap_or_else(|ended| panic!("it did not start: {ended:?}"))
    }

    /// Sends a signal to this child, and does not wait.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// `kill -9`.
    pub async fn kill(mut self) {
        self.signal("-KILL");
        assert_eq!(self.ended().await, Ended::Killed);
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

    /// Somebody found it gone: nobody else need try.
    pub fn is_gone(&self) -> bool {
        self.is_gone.load(Ordering::Relaxed)
    }

    pub fn note_gone(&self) {
        self.is_gone.store(true, Ordering::Relaxed);
    }

    /// Waits until it has ended.
    pub async fn ended(&mut self) -> Ended {
        let mut look = tokio::time::interval(LOOK);
        let gone = async {
            loop {
                look.tick().await;
                if let Some(status) = self.child.try_wait().unwrap() {
                    return ended(status);
                }
            }
        };
        let gone = tokio::time::timeout(PATIENCE, gone).await;
        gone.expect("the server never ended")
    }
}

fn ended(status: ExitStatus) -> Ended {
    match (status.signal(), status.code()) {
        (Some(SIGABRT), _) => Ended::Aborted,
        (Some(SIGKILL), _) => Ended::Killed,
        (_, Some(0)) => Ended::Stopped,
        _ => panic!("the server ended by itself: {status}"),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only where it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The program as a child process on a folder. Dropping the owner kills it.

use std::{
    fs::OpenOptions,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
};

/// Time between a reservation's deadline and its expiry.
pub const HOLD_GRACE_SECS: i64 = 1;
const SIGKILL: i32 = 9;

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

/// A server process that listens.
pub struct Server {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    pub url: String,
}

impl Server {
    /// Waits until it listens.
    pub fn start(folder: &Path, gateway_url: &str, secret: &str) -> Self {
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
            .env("BOXOFFICE_PAYMENT__GATEWAY__BASE_URL", gateway_url)
            .env("BOXOFFICE_PAYMENT__GATEWAY__SECRET_KEY", secret)
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let url = line.strip_prefix("listening on ");
        let url = url.unwrap_or_else(|| panic!("it did not start: {line:?}"));
        Self {
            child,
            _stdout: stdout,
            url: url.trim_end().to_owned(),
        }
    }

    /// `kill -9`.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(SIGKILL), "it ended by itself");
    }

    /// Stops it by SIGTERM and waits until it has exited.
    pub fn stop(mut self) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(sent.success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only if it has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

//! The program as a child process: it prints one line when it listens, and ends with its owner.

use std::{
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
/// How often an exit is polled.
const POLL_INTERVAL: Duration = Duration::from_millis(5);
const EXIT_TIMEOUT: Duration = Duration::from_secs(60);

/// The program at this path, without settings from the environment of the test.
pub fn command(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new(program.as_ref());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BOXOFFICE_") {
            command.env_remove(name);
        }
    }
    command
}

/// `serve` on a free port and a data folder, which is also the working directory: a crash may leave a core file there.
pub fn serve(program: impl AsRef<Path>, folder: &Path) -> Command {
    let mut command = command(program);
    command
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder)
        .current_dir(folder);
    command
}

/// How a process exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitKind {
    /// It crashed at a failpoint.
    Aborted,
    Killed,
    /// It stopped cleanly.
    Stopped,
    Failed(i32),
}

impl From<ExitStatus> for ExitKind {
    fn from(status: ExitStatus) -> Self {
        match (status.signal(), status.code()) {
            (Some(SIGABRT), _) => Self::Aborted,
            (Some(SIGKILL), _) => Self::Killed,
            (_, Some(0)) => Self::Stopped,
            (_, Some(code)) => Self::Failed(code),
            (signal, None) => panic!("the process ended by signal {signal:?}"),
        }
    }
}

/// A server process. Dropping it kills the process.
pub struct ServerProcess {
    pub child: Child,
    output: Arc<Output>,
}

/// Standard output, read by a thread.
#[derive(Default)]
struct Output {
    printed: Mutex<Printed>,
    changed: Condvar,
}

#[derive(Default)]
struct Printed {
    first_line: Option<String>,
    rest: String,
    is_closed: bool,
}

impl ServerProcess {
    /// Starts the process without waiting until it listens.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let output = Arc::new(Output::default());
        let reader = Arc::clone(&output);
        std::thread::spawn(move || reader.read(stdout));
        Self { child, output }
    }

    /// Starts the process and waits until it listens.
    pub fn start(command: Command) -> Self {
        let mut process = Self::spawn(command);
        if let Err(exit) = process.wait_until_listening() {
            panic!("it exited before it listened: {exit:?}");
        }
        process
    }

    /// Blocks until it listens; an error is how it exited before.
    pub fn wait_until_listening(&mut self) -> Result<(), ExitKind> {
        let printed = self.output.printed.lock().unwrap();
        let is_silent = |it: &mut Printed| it.first_line.is_none() && !it.is_closed;
        let printed = self.output.changed.wait_while(printed, is_silent).unwrap();
        let has_line = printed.first_line.is_some();
        drop(printed);
        if has_line { Ok(()) } else { Err(self.wait()) }
    }

    /// The base URL, once it listens.
    pub fn url_if_listening(&self) -> Option<String> {
        let printed = self.output.printed.lock().unwrap();
        let line = printed.first_line.as_ref()?;
        let url = line.strip_prefix("listening on ");
        Some(url.unwrap_or_else(|| panic!("{line:?}")).to_owned())
    }

    /// The base URL of a process that listens.
    pub fn url(&self) -> String {
        self.url_if_listening().expect("it listens")
    }

    /// Blocks until it has printed this text after its first line.
    pub fn wait_until_printed(&self, text: &str) {
        let printed = self.output.printed.lock().unwrap();
        let is_missing = |it: &mut Printed| !it.rest.contains(text) && !it.is_closed;
        let printed = self.output.changed.wait_while(printed, is_missing).unwrap();
        assert!(
            printed.rest.contains(text),
            "it exited before it printed {text:?}"
        );
    }

    /// Sends a signal, such as `-TERM`, without waiting.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Blocks until it has exited.
    pub fn wait(&mut self) -> ExitKind {
        self.child.wait().unwrap().into()
    }

    /// Waits until it has exited.
    pub async fn exited(&mut self) -> ExitKind {
        let exiting = async {
            let mut poll = tokio::time::interval(POLL_INTERVAL);
            loop {
                poll.tick().await;
                if let Some(status) = self.child.try_wait().unwrap() {
                    return status.into();
                }
            }
        };
        let exited = tokio::time::timeout(EXIT_TIMEOUT, exiting).await;
        exited.expect("the process exits")
    }

    /// `kill -9`, and waits.
    pub fn kill(mut self) {
        self.signal("-KILL");
        assert_eq!(self.wait(), ExitKind::Killed);
    }

    /// Sends a signal that stops it cleanly, and waits; returns what it printed after its first line.
    pub fn stop(mut self, signal: &str) -> String {
        self.signal(signal);
        assert_eq!(self.wait(), ExitKind::Stopped, "after {signal}");
        self.output.rest()
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Fails only if it has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    fn read(&self, stdout: ChildStdout) {
        let mut stdout = BufReader::new(stdout);
        loop {
            let mut line = String::new();
            let count = stdout.read_line(&mut line).unwrap_or(0);
            let mut printed = self.printed.lock().unwrap();
            match &printed.first_line {
                _ if count == 0 => printed.is_closed = true,
                None => printed.first_line = Some(line.trim_end().to_owned()),
                Some(_) => printed.rest.push_str(&line),
            }
            self.changed.notify_all();
            if printed.is_closed {
                return;
            }
        }
    }

    /// Everything after the first line, once the output is closed.
    fn rest(&self) -> String {
        let printed = self.printed.lock().unwrap();
        let closed = self.changed.wait_while(printed, |it| !it.is_closed);
        closed.unwrap().rest.clone()
    }
}

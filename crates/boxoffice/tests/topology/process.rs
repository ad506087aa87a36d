//! One process that is killed, paused and restarted.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use crate::{
    deployment::{POLL_INTERVAL, Target},
    proxy::Proxy,
};

/// One process and its replacements.
pub struct Process {
    pub name: String,
    pub services: &'static str,
    pub folder: PathBuf,
    pub settings: Vec<(String, String)>,
    /// Its proxies to the engines and the gateway.
    pub routes: Vec<(Target, Arc<Proxy>)>,
    /// Failpoints of the replacement, in the syntax of the crate `fail`.
    pub failpoints: Mutex<String>,
    pub running: Mutex<Running>,
}

pub struct Running {
    child: Child,
    /// Its URL, once it listens.
    url: Arc<Mutex<Option<String>>>,
    /// It was killed, or will crash at a failpoint.
    expects_exit: bool,
}

impl Process {
    pub fn url(&self) -> Option<String> {
        let running = self.running.lock().unwrap();
        running.url.lock().unwrap().clone()
    }

    pub fn is_worker(&self) -> bool {
        !matches!(self.services, "event" | "ticketing-api" | "payment-api")
    }

    /// `kill -9`; the supervisor starts it again.
    pub fn kill(&self) {
        let mut running = self.running.lock().unwrap();
        running.expects_exit = true;
        *running.url.lock().unwrap() = None;
        running.child.kill().unwrap();
    }

    /// Replaces it by a process with these failpoints; the replacement after that has none.
    pub fn restart_with_failpoints(&self, failpoints: &str) {
        failpoints.clone_into(&mut self.failpoints.lock().unwrap());
        self.kill();
    }

    /// Sends `-STOP` or `-CONT` to the current process.
    pub fn signal(&self, signal: &str) {
        let pid = self.running.lock().unwrap().child.id().to_string();
        // It may have just exited by itself.
        let _ = Command::new("kill").args([signal, &pid]).status();
    }

    pub fn end(&self) {
        let mut running = self.running.lock().unwrap();
        // Fails only if it has already exited.
        let _ = running.child.kill();
        let _ = running.child.wait();
    }

    fn restart_if_exited(&self) {
        let mut running = self.running.lock().unwrap();
        let Some(status) = running.child.try_wait().unwrap() else {
            return;
        };
        // A process that starts while an engine is down exits, and is restarted until the engine is up.
        if !running.expects_exit && running.url.lock().unwrap().is_some() {
            eprintln!("{} exited by itself: {status}", self.name);
        }
        let failpoints = std::mem::take(&mut *self.failpoints.lock().unwrap());
        *running = spawn(self.services, &self.folder, &self.settings, &failpoints);
    }
}

/// Restarts every process that has exited.
pub async fn supervise(processes: Vec<Arc<Process>>) {
    let mut poll = tokio::time::interval(POLL_INTERVAL * 5);
    loop {
        poll.tick().await;
        for process in &processes {
            process.restart_if_exited();
        }
    }
}

/// The program with these settings and none from the environment of the test.
pub fn command(settings: &[(String, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_boxoffice"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BOXOFFICE_") {
            command.env_remove(name);
        }
    }
    command.envs(settings.iter().map(|(key, value)| (key, value)));
    command
}

pub fn spawn(
    services: &str,
    folder: &Path,
    settings: &[(String, String)],
    failpoints: &str,
) -> Running {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .unwrap();
    let mut child = command(settings)
        .args(["serve", "--listen", "127.0.0.1:0", "--services", services])
        .arg("--data")
        .arg(folder)
        .env("FAILPOINTS", failpoints)
        // An abort may leave a core file in the working directory.
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let url = Arc::new(Mutex::new(None));
    let (output, answer) = (child.stdout.take().unwrap(), Arc::clone(&url));
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        let read = output.read_line(&mut line);
        if let (Ok(_), Some(url)) = (read, line.strip_prefix("listening on ")) {
            *answer.lock().unwrap() = Some(url.trim_end().to_owned());
        }
    });
    Running {
        child,
        url,
        expects_exit: !failpoints.is_empty(),
    }
}

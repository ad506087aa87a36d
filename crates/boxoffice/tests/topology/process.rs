//! One process, killed, stopped, and started again.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use crate::{
    deployment::{Goal, LOOK},
    proxy::Proxy,
};

/// One process, and whoever takes its place.
pub struct Process {
    pub name: String,
    pub services: &'static str,
    pub folder: PathBuf,
    pub settings: Vec<(String, String)>,
    /// Its ways to whatever it speaks to.
    pub roads: Vec<(Goal, Arc<Proxy>)>,
    /// Where whoever takes its place dies, as the crate `fail` reads it.
    pub failpoints: Mutex<String>,
    pub running: Mutex<Running>,
}

pub struct Running {
    child: Child,
    /// Where it listens, once it does.
    url: Arc<Mutex<Option<String>>>,
    /// Its end is no surprise.
    is_doomed: bool,
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
        running.is_doomed = true;
        *running.url.lock().unwrap() = None;
        running.child.kill().unwrap();
    }

    /// Puts one in its place that aborts at these places; whoever comes after that one does not.
    pub fn doom(&self, failpoints: &str) {
        failpoints.clone_into(&mut self.failpoints.lock().unwrap());
        self.kill();
    }

    /// `-STOP` or `-CONT`, to whoever runs now.
    pub fn signal(&self, signal: &str) {
        let pid = self.running.lock().unwrap().child.id().to_string();
        // It may have ended by itself a moment ago.
        let _ = Command::new("kill").args([signal, &pid]).status();
    }

    pub fn end(&self) {
        let mut running = self.running.lock().unwrap();
        // Fails only where it is gone already.
        let _ = running.child.kill();
        let _ = running.child.wait();
    }

    fn start_again_where_ended(&self) {
        let mut running = self.running.lock().unwrap();
        let Some(status) = running.child.try_wait().unwrap() else {
            return;
        };
        // One that starts while an engine is away ends, and is started again until the engine is there.
        if !running.is_doomed && running.url.lock().unwrap().is_some() {
            eprintln!("{} ended by itself: {status}", self.name);
        }
        let failpoints = std::mem::take(&mut *self.failpoints.lock().unwrap());
        *running = spawn(self.services, &self.folder, &self.settings, &failpoints);
    }
}

/// Starts again what has ended.
pub async fn supervise(processes: Vec<Arc<Process>>) {
    let mut look = tokio::time::interval(LOOK * 5);
    loop {
        look.tick().await;
        for process in &processes {
            process.start_again_where_ended();
        }
    }
}

/// The program, with these settings and none of the tester's own.
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
        // An abort may leave a file where it stands.
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let url = Arc::new(Mutex::new(None));
    let (output, told) = (child.stdout.take().unwrap(), Arc::clone(&url));
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        let read = output.read_line(&mut line);
        if let (Ok(_), Some(url)) = (read, line.strip_prefix("listening on ")) {
            *told.lock().unwrap() = Some(url.trim_end().to_owned());
        }
    });
    Running {
        child,
        url,
        is_doomed: !failpoints.is_empty(),
    }
}

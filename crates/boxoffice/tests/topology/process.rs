//! One process that is killed, paused and restarted.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use test_support::process::{self, ServerProcess};

use crate::{
    deployment::{POLL_INTERVAL, Target},
    proxy::Proxy,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_boxoffice");

/// One process and its replacements.
pub struct Process {
    pub name: String,
    pub program: PathBuf,
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
    process: ServerProcess,
    is_killed: bool,
    has_failpoints: bool,
}

impl Process {
    pub fn url(&self) -> Option<String> {
        let running = self.running.lock().unwrap();
        let url = running.process.url_if_listening();
        url.filter(|_| !running.is_killed)
    }

    pub fn is_worker(&self) -> bool {
        !matches!(self.services, "event" | "ticketing-api" | "payment-api")
    }

    /// `kill -9`; the supervisor starts it again.
    pub fn kill(&self) {
        let mut running = self.running.lock().unwrap();
        running.is_killed = true;
        running.process.child.kill().unwrap();
    }

    /// Replaces it by a process with these failpoints; the replacement after that has none.
    pub fn restart_with_failpoints(&self, failpoints: &str) {
        failpoints.clone_into(&mut self.failpoints.lock().unwrap());
        self.kill();
    }

    /// Sends `-STOP` or `-CONT` to the current process.
    pub fn signal(&self, signal: &str) {
        // A process that has just exited stays a zombie until it is restarted, so that the signal has a target.
        self.running.lock().unwrap().process.signal(signal);
    }

    pub fn end(&self) {
        let mut running = self.running.lock().unwrap();
        // Fails only if it has already exited.
        let _ = running.process.child.kill();
        let _ = running.process.child.wait();
    }

    fn restart_if_exited(&self) {
        let mut running = self.running.lock().unwrap();
        let Some(status) = running.process.child.try_wait().unwrap() else {
            return;
        };
        // A process that starts while an engine is down exits, and is restarted until the engine is up.
        let is_expected = running.is_killed || running.has_failpoints;
        if !is_expected && running.process.url_if_listening().is_some() {
            eprintln!("{} exited by itself: {status}", self.name);
        }
        let failpoints = std::mem::take(&mut *self.failpoints.lock().unwrap());
        *running = spawn(
            &self.program,
            self.services,
            &self.folder,
            &self.settings,
            &failpoints,
        );
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

/// The program of the processes with this number: this one, or for all but the first of each service the earlier one that
/// `TOPOLOGY_EARLIER_BINARY` names, so that both run side by side.
pub fn program(number: usize) -> PathBuf {
    let earlier = std::env::var_os("TOPOLOGY_EARLIER_BINARY").filter(|_| number > 1);
    earlier.map_or_else(|| PROGRAM.into(), PathBuf::from)
}

/// A program with these settings.
pub fn command(program: &Path, settings: &[(String, String)]) -> Command {
    let mut command = process::command(program);
    command.envs(settings.iter().map(|(key, value)| (key, value)));
    command
}

pub fn spawn(
    program: &Path,
    services: &str,
    folder: &Path,
    settings: &[(String, String)],
    failpoints: &str,
) -> Running {
    let log = folder.join("log");
    let log = File::options().create(true).append(true).open(log);
    let mut command = process::serve(program, folder);
    command
        .args(["--services", services])
        .envs(settings.iter().map(|(key, value)| (key, value)))
        .env("FAILPOINTS", failpoints)
        .stderr(log.unwrap());
    Running {
        process: ServerProcess::spawn(command),
        is_killed: false,
        has_failpoints: !failpoints.is_empty(),
    }
}

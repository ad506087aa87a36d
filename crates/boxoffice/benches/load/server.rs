//! A process under load: the release binary with its own data folder.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use tempfile::TempDir;

pub struct Server {
    process: Child,
    pub address: String,
    /// From the process's start to its line `listening on …`.
    pub start_time: Duration,
    _folder: Option<TempDir>,
}

/// The binary to measure.
pub fn binary() -> String {
    // The binary that cargo built for this bench has failpoints, which cost a little.
    std::env::var("MEASURED_BINARY").unwrap_or(env!("CARGO_BIN_EXE_boxoffice").to_owned())
}

impl Server {
    /// All services in one process, on a new folder.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(&["serve"], &[])
    }

    /// Runs `command` on a new folder with these settings.
    pub fn start_with(command: &[&str], settings: &[(String, String)]) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let mut server = Self::spawn(command, folder.path(), settings)?;
        server._folder = Some(folder);
        Ok(server)
    }

    pub fn start_in(folder: &Path) -> anyhow::Result<Self> {
        Self::spawn(&["serve"], folder, &[])
    }

    fn spawn(
        command: &[&str],
        folder: &Path,
        settings: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let started = Instant::now();
        let mut process = Command::new(binary())
            .args(command)
            .args(["--listen", "127.0.0.1:0", "--data"])
            .arg(folder)
            .env("BOXOFFICE_HTTP__BENCH_ROUTE", "true")
            .env("BOXOFFICE_LOG__LEVEL", "warn")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {}", binary()))?;
        let stdout = process
            .stdout
            .take()
            .context("the server's stdout is not piped")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let start_time = started.elapsed();
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .context("the server did not print its address; see its log above")?
            .to_owned();
        Ok(Self {
            process,
            address,
            start_time,
            _folder: None,
        })
    }

    /// Resident memory, in bytes.
    pub fn memory_bytes(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("/proc/PID/status has no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// CPU time used so far, in seconds.
    pub fn cpu_secs(&self) -> anyhow::Result<f64> {
        cpu_secs(self.process.id())
    }
}

/// CPU time that a process and its ended children have used so far, in seconds.
pub fn cpu_secs(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The fields follow the process's name, which may contain spaces.
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let mut ticks = 0.0;
    for field in &fields[11..15] {
        ticks += field.parse::<f64>()?;
    }
    Ok(ticks / 100.0)
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

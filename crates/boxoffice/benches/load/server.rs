//! The program under load: the release binary in a process and a folder of its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use serde_json::json;
use tempfile::TempDir;

use crate::client::Client;

pub struct Server {
    process: Child,
    pub address: String,
    /// From the start of the process to the line that says it listens.
    pub start_time: Duration,
    _folder: Option<TempDir>,
}

impl Server {
    pub fn start() -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let mut server = Self::start_in(folder.path())?;
        server._folder = Some(folder);
        Ok(server)
    }

    pub fn start_in(folder: &Path) -> anyhow::Result<Self> {
        let started = Instant::now();
        // The one that this bench was built with has failpoints in it, which cost a little.
        let binary =
            std::env::var("MEASURED_BINARY").unwrap_or(env!("CARGO_BIN_EXE_boxoffice").to_owned());
        let mut process = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder)
            .env("BOXOFFICE_HTTP__BENCH_ROUTE", "true")
            .env("BOXOFFICE_LOG__LEVEL", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .context("the binary cannot be started")?;
        let stdout = process.stdout.take().context("the server has no output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let start_time = started.elapsed();
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .context("the server did not start")?
            .to_owned();
        Ok(Self {
            process,
            address,
            start_time,
            _folder: None,
        })
    }

    pub async fn client(&self) -> anyhow::Result<Client> {
        Client::connect(&self.address).await
    }

    /// Registers an event and returns its id once it is on sale.
    pub async fn event_on_sale(&self, quantity: i64, price: i64) -> anyhow::Result<i64> {
        let mut client = self.client().await?;
        let event = json!({ "name": "show", "ticketQuantity": quantity, "price": price });
        let event = client.post_json("/event", &event, 201).await?;
        let id = event["id"].as_i64().context("the event has no id")?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while client.get(&format!("/ticketing/event/{id}")).await?.0 != 200 {
            anyhow::ensure!(Instant::now() < deadline, "the event did not come on sale");
        }
        Ok(id)
    }

    /// Resident memory, in bytes.
    pub fn memory_bytes(&self) -> anyhow::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .context("no VmRSS")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse()?;
        Ok(kib * 1024)
    }

    /// Processor time used so far, in seconds.
    pub fn cpu_secs(&self) -> anyhow::Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks / 100.0)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

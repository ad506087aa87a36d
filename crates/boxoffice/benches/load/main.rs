//! Measures the program as its users meet it: the release binary over HTTP on loopback, everything on one machine.
//!
//! `cargo bench -p boxoffice --bench load -- [reservations] [purchases] [latency] [restart]` (all where none is named).
//! `MEASURED_BINARY` names another binary to measure, such as one that `cargo build --release` made.
//! Every run is bounded in requests or seconds, and ends the server that it started. docs/benchmarks.md holds results.

mod client;
mod purchases;
mod reservations;
mod restart;
mod server;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let wants = |name: &str| asked.is_empty() || asked.iter().any(|argument| argument == name);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    runtime.block_on(async {
        if wants("reservations") {
            reservations::run().await?;
        }
        if wants("purchases") {
            purchases::run_peak().await?;
        }
        if wants("latency") {
            purchases::run_latency().await?;
        }
        if wants("restart") {
            restart::run().await?;
        }
        Ok(())
    })
}

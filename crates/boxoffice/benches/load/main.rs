//! Load benchmarks of the release binary over HTTP on loopback, everything on one machine.
//!
//! `cargo bench -p boxoffice --bench load -- [reservations] [purchases] [latency] [restart]` (default: all) measures one
//! process on a data folder. `engines=1,2,4` measures that many processes with all services over PostgreSQL, Redis and
//! Kafka instead, `apart=1,2` that many processes of each service; both need a binary with the feature `kafka`.
//! `MEASURED_BINARY` names another binary to measure, such as the output of `cargo build --release`.
//! Each run is bounded in requests or seconds, and stops the processes that it started. Results: docs/benchmarks.md.

mod client;
mod deployment;
mod engines;
mod purchases;
mod reservations;
mod restart;
mod server;

use anyhow::{Context, bail};

use crate::deployment::Topology;

fn main() -> anyhow::Result<()> {
    let (mut parts, mut places) = (Vec::new(), Vec::new());
    for word in std::env::args().skip(1).filter(|it| !it.starts_with('-')) {
        match word.split_once('=') {
            Some(("engines", counts)) => places.extend(numbers(counts)?.map(Topology::Engines)),
            Some(("apart", counts)) => places.extend(numbers(counts)?.map(Topology::Apart)),
            Some((name, _)) => bail!("unknown argument {name}=: use engines= or apart="),
            None => parts.push(word),
        }
    }
    if places.is_empty() {
        places.push(Topology::Folder);
    }
    let wants = |name: &str| parts.is_empty() || parts.iter().any(|part| part == name);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(async {
        for topology in places {
            if wants("reservations") {
                reservations::run(topology).await?;
            }
            if wants("purchases") {
                purchases::run_peak(topology).await?;
            }
            if wants("latency") {
                purchases::run_latency(topology).await?;
            }
            if wants("restart") && topology == Topology::Folder {
                restart::run().await?;
            }
        }
        Ok(())
    })
}

/// A comma-separated list of numbers.
fn numbers(text: &str) -> anyhow::Result<impl Iterator<Item = usize>> {
    let numbers = text.split(',').map(str::parse);
    let numbers: Result<Vec<usize>, _> = numbers.collect();
    Ok(numbers
        .with_context(|| format!("{text:?} is not a comma-separated list of numbers"))?
        .into_iter())
}

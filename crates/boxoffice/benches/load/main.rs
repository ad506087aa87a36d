//! Measures the program as its users meet it: the release binary over HTTP on loopback, everything on one machine.
//!
//! `cargo bench -p boxoffice --bench load -- [reservations] [purchases] [latency] [restart]` (all where none is named)
//! measures everything in one process on a folder. With `engines=1,2,4` it measures so many processes with all services
//! over PostgreSQL, Redis and Kafka instead, with `apart=1,2` so many of each service; both need a binary with the
//! feature `kafka`.
//! `MEASURED_BINARY` names another binary to measure, such as one that `cargo build --release` made.
//! Every run is bounded in requests or seconds, and ends what it started. docs/benchmarks.md holds results.

mod client;
mod engines;
mod purchases;
mod reservations;
mod restart;
mod server;
mod site;

use anyhow::{Context, bail};

use crate::site::Over;

fn main() -> anyhow::Result<()> {
    let (mut parts, mut places) = (Vec::new(), Vec::new());
    for word in std::env::args().skip(1).filter(|it| !it.starts_with('-')) {
        match word.split_once('=') {
            Some(("engines", counts)) => places.extend(numbers(counts)?.map(Over::Engines)),
            Some(("apart", counts)) => places.extend(numbers(counts)?.map(Over::Apart)),
            Some((name, _)) => bail!("there is no {name}=: there are engines= and apart="),
            None => parts.push(word),
        }
    }
    if places.is_empty() {
        places.push(Over::Folder);
    }
    let wants = |name: &str| parts.is_empty() || parts.iter().any(|part| part == name);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    runtime.block_on(async {
        for over in places {
            if wants("reservations") {
                reservations::run(over).await?;
            }
            if wants("purchases") {
                purchases::run_peak(over).await?;
            }
            if wants("latency") {
                purchases::run_latency(over).await?;
            }
            if wants("restart") && over == Over::Folder {
                restart::run().await?;
            }
        }
        Ok(())
    })
}

/// Numbers with commas between.
fn numbers(text: &str) -> anyhow::Result<impl Iterator<Item = usize>> {
    let numbers = text.split(',').map(str::parse);
    let numbers: Result<Vec<usize>, _> = numbers.collect();
    Ok(numbers
        .with_context(|| format!("{text:?} is no list of numbers"))?
        .into_iter())
}

//! Durable reservations per second beside a route that does nothing, measured in turns.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;

use crate::{
    client::Client,
    deployment::{Deployment, Topology, cpu_each},
};

const CONNECTIONS: usize = 64;
const ROUND_SECS: u64 = 5;
const ROUNDS: usize = 5;

pub async fn run(topology: Topology) -> anyhow::Result<()> {
    let deployment = Deployment::open(topology)?;
    let event = deployment.event_on_sale(10_000_000, 50_000).await?;
    let users = Arc::new(AtomicI64::new(1));
    println!(
        "\nReservations over {topology:?}\n\n| round | echo/s | reservations/s | ratio | processor time, each: echo | reservation |"
    );
    println!("|---|---|---|---|---|---|");
    measure(&deployment, "/bench/echo", event, &users, 2).await?;
    measure(&deployment, "/ticketing/reserve", event, &users, 2).await?;
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let (echo, echo_cpu) =
            measure(&deployment, "/bench/echo", event, &users, ROUND_SECS).await?;
        let (reserved, reserved_cpu) =
            measure(&deployment, "/ticketing/reserve", event, &users, ROUND_SECS).await?;
        println!(
            "| {round} | {echo:.0} | {reserved:.0} | {:.2} | {echo_cpu} | {reserved_cpu} |",
            reserved / echo
        );
        ratios.push(reserved / echo);
    }
    ratios.sort_by(f64::total_cmp);
    println!(
        "\nmedian ratio {:.2} at {CONNECTIONS} connections",
        ratios[ROUNDS / 2]
    );
    Ok(())
}

/// Requests per second over all connections, and the CPU time of each process per request.
async fn measure(
    deployment: &Deployment,
    path: &'static str,
    event: i64,
    users: &Arc<AtomicI64>,
    secs: u64,
) -> anyhow::Result<(f64, String)> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(deployment.client());
    }
    let cpu_before = deployment.cpu_secs()?;
    let started = Instant::now();
    let deadline = started + Duration::from_secs(secs);
    let loops = clients
        .into_iter()
        .map(|client| tokio::spawn(ask(client, path, event, Arc::clone(users), deadline)));
    let mut requests = 0;
    for one in loops.collect::<Vec<_>>() {
        requests += one.await??;
    }
    let elapsed = started.elapsed().as_secs_f64();
    let cpu = cpu_each(&cpu_before, &deployment.cpu_secs()?, f64::from(requests));
    Ok((f64::from(requests) / elapsed, cpu))
}

async fn ask(
    mut client: Client,
    path: &'static str,
    event: i64,
    users: Arc<AtomicI64>,
    deadline: Instant,
) -> anyhow::Result<u32> {
    let mut requests = 0;
    while Instant::now() < deadline {
        let user = users.fetch_add(1, Ordering::Relaxed);
        let (status, answer) = client
            .post(path, &format!("{{\"eventId\":{event},\"userId\":{user}}}"))
            .await?;
        ensure!(
            status == 200,
            "{path} was answered {status}: {}",
            String::from_utf8_lossy(&answer)
        );
        requests += 1;
    }
    Ok(requests)
}

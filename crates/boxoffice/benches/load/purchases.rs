//! Whole purchases: reserve, process, poll until COMPLETED, pay at the gateway's sandbox, ticket issued.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::{
    client::Client,
    deployment::{Deployment, Topology, cpu_each},
};

const PRICE: i64 = 50_000;
/// Overridden by `PEAK_PURCHASES` and `PEAK_BUYERS`.
const PEAK_PURCHASES_DEFAULT: i64 = 20_000;
const PEAK_BUYERS_DEFAULT: usize = 128;
/// Made before the measurement: the broker's JVM compiles its code while it runs.
const WARM_UP_PURCHASES: i64 = 4_000;
const UNLOADED_PURCHASES: i64 = 500;
/// Half of the peak of the last full run. Overridden by `HALF_PEAK_PER_SEC`.
const HALF_PEAK_PER_SEC_DEFAULT: f64 = 750.0;
const HALF_PEAK_SECS: f64 = 10.0;
/// A purchase that takes longer has failed.
const PURCHASE_SECS_MAX: u64 = 60;

/// How often a buyer polls for COMPLETED.
#[derive(Clone, Copy)]
enum PollInterval {
    /// From 1 ms, doubled up to 4 ms: measures the latency of one buyer alone.
    Alone,
    /// From 1 ms, doubled up to 40 ms: measures the latency of many buyers.
    Eager,
    /// From 20 ms, doubled up to 160 ms: as a considerate client polls.
    Patient,
}

pub async fn run_peak(topology: Topology) -> anyhow::Result<()> {
    let purchases = from_environment("PEAK_PURCHASES").unwrap_or(PEAK_PURCHASES_DEFAULT);
    let buyers = from_environment("PEAK_BUYERS").unwrap_or(PEAK_BUYERS_DEFAULT);
    let deployment = Deployment::open(topology)?;
    let event = deployment.event_on_sale(purchases, PRICE).await?;
    let warm_up = deployment.event_on_sale(WARM_UP_PURCHASES, PRICE).await?;
    register_users(&deployment, purchases.max(WARM_UP_PURCHASES)).await?;
    run_buyers(
        &deployment,
        warm_up,
        WARM_UP_PURCHASES,
        buyers,
        PollInterval::Patient,
    )
    .await?;
    let cpu_before = deployment.cpu_secs()?;
    let started = Instant::now();
    let times = run_buyers(&deployment, event, purchases, buyers, PollInterval::Patient).await?;
    until_sold(&deployment, event, purchases).await?;
    let elapsed = started.elapsed().as_secs_f64();
    let cpu = cpu_each(&cpu_before, &deployment.cpu_secs()?, purchases as f64);
    println!("\n{purchases} whole purchases by {buyers} buyers at a time, over {topology:?}:");
    println!("- {:.0} purchases a second", purchases as f64 / elapsed);
    println!("- process to COMPLETED: {}", percentiles(times));
    println!("- processor time each: {cpu}");
    Ok(())
}

pub async fn run_latency(topology: Topology) -> anyhow::Result<()> {
    let deployment = Deployment::open(topology)?;
    let unloaded = deployment.event_on_sale(UNLOADED_PURCHASES, PRICE).await?;
    let per_sec = from_environment("HALF_PEAK_PER_SEC").unwrap_or(HALF_PEAK_PER_SEC_DEFAULT);
    let purchases = (per_sec * HALF_PEAK_SECS) as i64;
    let loaded = deployment.event_on_sale(purchases, PRICE).await?;
    register_users(&deployment, purchases.max(UNLOADED_PURCHASES)).await?;
    let times = run_buyers(
        &deployment,
        unloaded,
        UNLOADED_PURCHASES,
        1,
        PollInterval::Alone,
    )
    .await?;
    println!(
        "\nprocess to COMPLETED over {topology:?}, unloaded (one buyer at a time, {UNLOADED_PURCHASES} purchases): {}",
        percentiles(times)
    );
    let times = paced(&deployment, loaded, purchases, per_sec).await?;
    println!(
        "process to COMPLETED at {per_sec:.0} purchases a second ({purchases} purchases): {}",
        percentiles(times)
    );
    Ok(())
}

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

async fn register_users(deployment: &Deployment, users: i64) -> anyhow::Result<()> {
    let next = Arc::new(AtomicI64::new(1));
    let mut loops = Vec::new();
    for _ in 0..64 {
        let (mut client, next) = (deployment.client(), Arc::clone(&next));
        loops.push(tokio::spawn(async move {
            loop {
                let id = next.fetch_add(1, Ordering::Relaxed);
                if id > users {
                    return anyhow::Ok(());
                }
                let user = json!({ "id": id, "name": format!("buyer {id}"), "status": "ACTIVE", "points": 1_000 });
                client.post_json("/user", &user, 201).await?;
            }
        }));
    }
    for one in loops {
        one.await??;
    }
    Ok(())
}

/// Makes `purchases` purchases, each by another user, `buyers` at a time. Returns the times from process to COMPLETED.
async fn run_buyers(
    deployment: &Deployment,
    event: i64,
    purchases: i64,
    buyers: usize,
    interval: PollInterval,
) -> anyhow::Result<Vec<Duration>> {
    let next = Arc::new(AtomicI64::new(1));
    let mut loops = Vec::new();
    for _ in 0..buyers {
        let (mut client, next) = (deployment.client(), Arc::clone(&next));
        loops.push(tokio::spawn(async move {
            let mut times = Vec::new();
            loop {
                let user = next.fetch_add(1, Ordering::Relaxed);
                if user > purchases {
                    return anyhow::Ok(times);
                }
                times.push(buy(&mut client, event, user, interval).await?);
            }
        }));
    }
    let mut times = Vec::new();
    for one in loops {
        times.extend(one.await??);
    }
    Ok(times)
}

/// Starts purchases at a steady rate, whether or not the earlier ones have ended (open loop).
async fn paced(
    deployment: &Deployment,
    event: i64,
    purchases: i64,
    per_sec: f64,
) -> anyhow::Result<Vec<Duration>> {
    let in_flight = Arc::new(AtomicU64::new(0));
    let idle: Arc<tokio::sync::Mutex<Vec<Client>>> = Arc::default();
    let started = Instant::now();
    let mut running = Vec::new();
    for user in 1..=purchases {
        let due = started + Duration::from_secs_f64((user - 1) as f64 / per_sec);
        tokio::time::sleep_until(due.into()).await;
        let spare = idle.lock().await.pop();
        let mut client = match spare {
            Some(client) => client,
            None => deployment.client(),
        };
        ensure!(
            in_flight.fetch_add(1, Ordering::Relaxed) < 4_000,
            "the server does not keep up: 4000 purchases are in flight"
        );
        let (idle, in_flight) = (Arc::clone(&idle), Arc::clone(&in_flight));
        running.push(tokio::spawn(async move {
            let time = buy(&mut client, event, user, PollInterval::Eager).await;
            idle.lock().await.push(client);
            in_flight.fetch_sub(1, Ordering::Relaxed);
            time
        }));
    }
    let mut times = Vec::new();
    for one in running {
        times.push(one.await??);
    }
    Ok(times)
}

/// Makes one purchase up to the gateway's approval. Returns the time from the process request to COMPLETED.
async fn buy(
    client: &mut Client,
    event: i64,
    user: i64,
    interval: PollInterval,
) -> anyhow::Result<Duration> {
    let reservation = json!({ "eventId": event, "userId": user });
    let reserved = client
        .post_json("/ticketing/reserve", &reservation, 200)
        .await?;
    let ticket = reserved["ticketId"]
        .as_str()
        .context("no ticketId")?
        .to_owned();
    let process = json!({ "ticketId": ticket, "eventId": event, "userId": user, "totalAmount": PRICE, "point": 100 });
    let started = Instant::now();
    client
        .post_json("/ticketing/process", &process, 202)
        .await?;
    let purchase = follow(client, &ticket, started, interval).await?;
    let time = started.elapsed();
    let payment = json!({
        "paymentId": purchase["paymentId"], "pgPaymentId": format!("pg-{ticket}"), "amount": purchase["finalAmount"]
    });
    let paid = client
        .post_json("/payment/confirmed", &payment, 200)
        .await?;
    ensure!(
        paid["succeeded"] == true,
        "the payment was declined: {paid}"
    );
    Ok(time)
}

async fn follow(
    client: &mut Client,
    ticket: &str,
    started: Instant,
    interval: PollInterval,
) -> anyhow::Result<Value> {
    let path = format!("/ticketing/process/{ticket}");
    let (first, longest) = match interval {
        PollInterval::Alone => (1, 4),
        PollInterval::Eager => (1, 40),
        PollInterval::Patient => (20, 160),
    };
    let mut pause = Duration::from_millis(first);
    tokio::time::sleep(pause).await;
    loop {
        let purchase = client.get_json(&path).await?;
        match purchase["sagaState"].as_str() {
            Some("COMPLETED") => return Ok(purchase),
            Some("STARTED") => {}
            _ => bail!("the purchase was compensated: {purchase}"),
        }
        ensure!(
            started.elapsed().as_secs() < PURCHASE_SECS_MAX,
            "the purchase did not end within {PURCHASE_SECS_MAX} s: {purchase}"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(longest));
    }
}

async fn until_sold(deployment: &Deployment, event: i64, tickets: i64) -> anyhow::Result<()> {
    let mut client = deployment.client();
    let deadline = Instant::now() + Duration::from_secs(PURCHASE_SECS_MAX);
    while client
        .get_json(&format!("/ticketing/event/{event}"))
        .await?["sold"]
        != tickets
    {
        ensure!(
            Instant::now() < deadline,
            "not all tickets were issued within {PURCHASE_SECS_MAX} s"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    format!(
        "p50 {:.1} ms, p99 {:.1} ms, most {:.1} ms",
        at(0.5),
        at(0.99),
        at(1.0)
    )
}

//! Whole purchases: reserve, process, follow until COMPLETED, pay at the sandbox of the gateway, ticket issued.

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
    site::{Over, Site, each},
};

const PRICE: i64 = 50_000;
/// Unless the environment (`PEAK_PURCHASES`, `PEAK_BUYERS`) names another number.
const PEAK_PURCHASES_DEFAULT: i64 = 20_000;
const PEAK_BUYERS_DEFAULT: usize = 128;
/// Before the clock starts: a broker compiles its code while it runs.
const WARM_UP_PURCHASES: i64 = 4_000;
const UNLOADED_PURCHASES: i64 = 500;
/// Half of the peak that the last full run reached, unless the environment names another.
const HALF_PEAK_PER_SEC_DEFAULT: f64 = 750.0;
const HALF_PEAK_SECS: f64 = 10.0;
/// A purchase that takes longer has failed.
const PURCHASE_SECS_MAX: u64 = 60;

/// How soon, and then how often, a buyer looks whether the purchase is COMPLETED.
#[derive(Clone, Copy)]
enum Pace {
    /// After 1 ms, then after twice as long each time, up to 4 ms: for measuring the time of one buyer alone.
    Alone,
    /// The same up to 40 ms: for measuring the time of many.
    Eager,
    /// After 20 ms, then after twice as long each time, up to 160 ms: as a client that cares for its server.
    Patient,
}

pub async fn run_peak(over: Over) -> anyhow::Result<()> {
    let purchases = from_environment("PEAK_PURCHASES").unwrap_or(PEAK_PURCHASES_DEFAULT);
    let buyers = from_environment("PEAK_BUYERS").unwrap_or(PEAK_BUYERS_DEFAULT);
    let site = Site::open(over)?;
    let event = site.event_on_sale(purchases, PRICE).await?;
    let warm_up = site.event_on_sale(WARM_UP_PURCHASES, PRICE).await?;
    register_users(&site, purchases.max(WARM_UP_PURCHASES)).await?;
    storm(&site, warm_up, WARM_UP_PURCHASES, buyers, Pace::Patient).await?;
    let cpu_before = site.cpu_secs()?;
    let started = Instant::now();
    let times = storm(&site, event, purchases, buyers, Pace::Patient).await?;
    until_sold(&site, event, purchases).await?;
    let elapsed = started.elapsed().as_secs_f64();
    let cpu = each(&cpu_before, &site.cpu_secs()?, purchases as f64);
    println!("\n{purchases} whole purchases by {buyers} buyers at a time, over {over:?}:");
    println!("- {:.0} purchases a second", purchases as f64 / elapsed);
    println!("- process to COMPLETED: {}", percentiles(times));
    println!("- processor time each: {cpu}");
    Ok(())
}

pub async fn run_latency(over: Over) -> anyhow::Result<()> {
    let site = Site::open(over)?;
    let unloaded = site.event_on_sale(UNLOADED_PURCHASES, PRICE).await?;
    let per_sec = from_environment("HALF_PEAK_PER_SEC").unwrap_or(HALF_PEAK_PER_SEC_DEFAULT);
    let purchases = (per_sec * HALF_PEAK_SECS) as i64;
    let loaded = site.event_on_sale(purchases, PRICE).await?;
    register_users(&site, purchases.max(UNLOADED_PURCHASES)).await?;
    let times = storm(&site, unloaded, UNLOADED_PURCHASES, 1, Pace::Alone).await?;
    println!(
        "\nprocess to COMPLETED over {over:?}, unloaded (one buyer at a time, {UNLOADED_PURCHASES} purchases): {}",
        percentiles(times)
    );
    let times = paced(&site, loaded, purchases, per_sec).await?;
    println!(
        "process to COMPLETED at {per_sec:.0} purchases a second ({purchases} purchases): {}",
        percentiles(times)
    );
    Ok(())
}

fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok()?.parse().ok()
}

async fn register_users(site: &Site, users: i64) -> anyhow::Result<()> {
    let next = Arc::new(AtomicI64::new(1));
    let mut loops = Vec::new();
    for _ in 0..64 {
        let (mut client, next) = (site.client(), Arc::clone(&next));
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

/// So many purchases, each by a user of its own, by so many buyers at a time; the times from process to COMPLETED.
async fn storm(
    site: &Site,
    event: i64,
    purchases: i64,
    buyers: usize,
    pace: Pace,
) -> anyhow::Result<Vec<Duration>> {
    let next = Arc::new(AtomicI64::new(1));
    let mut loops = Vec::new();
    for _ in 0..buyers {
        let (mut client, next) = (site.client(), Arc::clone(&next));
        loops.push(tokio::spawn(async move {
            let mut times = Vec::new();
            loop {
                let user = next.fetch_add(1, Ordering::Relaxed);
                if user > purchases {
                    return anyhow::Ok(times);
                }
                times.push(buy(&mut client, event, user, pace).await?);
            }
        }));
    }
    let mut times = Vec::new();
    for one in loops {
        times.extend(one.await??);
    }
    Ok(times)
}

/// Purchases that begin at a steady rate, whether or not the earlier ones have ended.
async fn paced(
    site: &Site,
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
            None => site.client(),
        };
        ensure!(
            in_flight.fetch_add(1, Ordering::Relaxed) < 4_000,
            "the server does not keep up"
        );
        let (idle, in_flight) = (Arc::clone(&idle), Arc::clone(&in_flight));
        running.push(tokio::spawn(async move {
            let time = buy(&mut client, event, user, Pace::Eager).await;
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

/// One purchase up to the gateway's approval; the time from the request to process until COMPLETED was seen.
async fn buy(client: &mut Client, event: i64, user: i64, pace: Pace) -> anyhow::Result<Duration> {
    let wish = json!({ "eventId": event, "userId": user });
    let reserved = client.post_json("/ticketing/reserve", &wish, 200).await?;
    let ticket = reserved["ticketId"]
        .as_str()
        .context("no ticketId")?
        .to_owned();
    let process = json!({ "ticketId": ticket, "eventId": event, "userId": user, "totalAmount": PRICE, "point": 100 });
    let started = Instant::now();
    client
        .post_json("/ticketing/process", &process, 202)
        .await?;
    let purchase = follow(client, &ticket, started, pace).await?;
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
    pace: Pace,
) -> anyhow::Result<Value> {
    let path = format!("/ticketing/process/{ticket}");
    let (first, longest) = match pace {
        Pace::Alone => (1, 4),
        Pace::Eager => (1, 40),
        Pace::Patient => (20, 160),
    };
    let mut pause = Duration::from_millis(first);
    tokio::time::sleep(pause).await;
    loop {
        let purchase = client.get_json(&path).await?;
        match purchase["sagaState"].as_str() {
            Some("COMPLETED") => return Ok(purchase),
            Some("STARTED") => {}
            _ => bail!("the purchase came to nothing: {purchase}"),
        }
        ensure!(
            started.elapsed().as_secs() < PURCHASE_SECS_MAX,
            "the purchase does not end: {purchase}"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(longest));
    }
}

async fn until_sold(site: &Site, event: i64, tickets: i64) -> anyhow::Result<()> {
    let mut client = site.client();
    let deadline = Instant::now() + Duration::from_secs(PURCHASE_SECS_MAX);
    while client
        .get_json(&format!("/ticketing/event/{event}"))
        .await?["sold"]
        != tickets
    {
        ensure!(Instant::now() < deadline, "not all tickets were issued");
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

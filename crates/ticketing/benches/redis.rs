//! Reservations a second through Redis, by callers that each wait for their answer, beside `redis-benchmark` running
//! the same script alone. `cargo bench -p ticketing --bench redis -- [CALLERS] [SECONDS]`
#![expect(clippy::unwrap_used, reason = "a measurement that fails says nothing")]

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use contract::{EventId, TicketId, UserId};
use messaging::{Clock, Commit, Metrics, Random, Store};
use ticketing::{
    RedisSettings, Reservations,
    model::Allocation,
    redis_server::RedisServer,
    reservations::{ClaimId, Deadlines, RedisHold, ReserveRequest},
};

#[path = "../tests/common/redis.rs"]
mod redis_place;

const TTL_MILLIS: i64 = 1_890_000;
const QUANTITY: i64 = 100_000_000;
/// For `redis-benchmark`: one request a call, and as many as a batch of this program has with 64 callers.
const WISHES_PER_CALL: [usize; 2] = [1, 64];

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|it| it.parse().ok());
    let callers: usize = numbers.next().unwrap_or(64);
    let seconds = numbers.next().unwrap_or(5) as u64;
    let settings = redis_place::settings();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (granted, latencies) = measure(
            &settings,
            EventId(1),
            QUANTITY,
            callers,
            Duration::from_secs(seconds),
        )
        .await;
        report("granted", callers, granted, seconds, latencies);
        let (refused, latencies) = measure(
            &settings,
            EventId(2),
            0,
            callers,
            Duration::from_secs(seconds),
        )
        .await;
        report("sold out", callers, refused, seconds, latencies);
        redis_place::empty(&settings).await;
    });
    for requests in WISHES_PER_CALL {
        run_redis_benchmark(&runtime, &settings, callers, requests);
    }
    runtime.block_on(redis_place::empty(&settings));
}

fn report(what: &str, callers: usize, done: i64, seconds: u64, mut latencies: Vec<u64>) {
    latencies.sort_unstable();
    let at = |share: usize| latencies[(latencies.len() - 1) * share / 100];
    println!(
        "{what}: {} a second by {callers} callers; p50 {} us, p99 {} us",
        done / i64::try_from(seconds).unwrap(),
        at(50),
        at(99)
    );
}

async fn measure(
    settings: &RedisSettings,
    event_id: EventId,
    quantity: i64,
    callers: usize,
    time: Duration,
) -> (i64, Vec<u64>) {
    let folder = tempfile::TempDir::new().unwrap();
    let tables = [messaging::TABLES, ticketing::TABLES].concat();
    let store = Store::open_embedded(folder.path(), &tables, Metrics::unregistered()).unwrap();
    let server = RedisServer::connect(settings).await.unwrap();
    let hold = RedisHold {
        claim_millis_min: TTL_MILLIS,
        grace_millis: 90_000,
    };
    let reservations = Reservations::on_redis(server, store, Clock::System, hold);
    reservations
        .set_sale(&sale(event_id, quantity))
        .await
        .unwrap();
    let users = Arc::new(AtomicI64::new(0));
    let ends = Instant::now() + time;
    let tasks = (0..callers).map(|_| {
        let (reservations, users) = (reservations.clone(), Arc::clone(&users));
        tokio::spawn(call(reservations, event_id, users, ends))
    });
    let mut latencies = Vec::new();
    for task in futures::future::join_all(tasks).await {
        latencies.extend(task.unwrap());
    }
    (i64::try_from(latencies.len()).unwrap(), latencies)
}

/// Each request is a new user's.
async fn call(
    reservations: Reservations,
    event_id: EventId,
    users: Arc<AtomicI64>,
    ends: Instant,
) -> Vec<u64> {
    let mut latencies = Vec::new();
    while Instant::now() < ends {
        let now = Clock::System.now();
        let lapses_at = now.plus_millis(TTL_MILLIS);
        let request = ReserveRequest {
            claim: ClaimId {
                event_id,
                user_id: UserId(users.fetch_add(1, Ordering::Relaxed)),
                ticket_id: TicketId(Random::System.uuid(now)),
            },
            deadlines: Deadlines {
                expires_at: lapses_at,
                lapses_at,
            },
            also: Commit::new(),
        };
        let began = Instant::now();
        let _ = reservations.reserve(request, now).await;
        latencies.push(u64::try_from(began.elapsed().as_micros()).unwrap());
    }
    latencies
}

fn sale(event_id: EventId, quantity: i64) -> Allocation {
    Allocation {
        event_id,
        quantity,
        lowered_to: None,
        sold: 0,
        price: None,
        sale_opens_at: None,
        sale_closes_at: None,
        event_version: 1,
        version: 0,
    }
}

/// The same script on the same server, called by `redis-benchmark` with random users.
fn run_redis_benchmark(
    runtime: &tokio::runtime::Runtime,
    settings: &RedisSettings,
    callers: usize,
    requests: usize,
) {
    let script = redis::Script::new(concat!(
        include_str!("../src/reservations/redis/scripts/shared.lua"),
        include_str!("../src/reservations/redis/scripts/reserve.lua")
    ));
    let url = settings.url.trim_start_matches("redis://:");
    let (password, address) = url.split_once('@').unwrap_or(("", url));
    let (host, port) = address.split_once(':').unwrap();
    runtime.block_on(async {
        let client = redis::Client::open(settings.url.as_str()).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        script.load_async(&mut connection).await.unwrap();
        let mut set = redis::cmd("HSET");
        set.arg(format!("{}:{{9}}:sale", settings.prefix))
            .arg("quantity")
            .arg(QUANTITY);
        let _: i64 = set.query_async(&mut connection).await.unwrap();
    });
    let calls = 400_000 / requests.max(4) * 4;
    let mut benchmark = Command::new("redis-benchmark");
    benchmark
        .args(["-h", host, "-p", port, "-q", "-r", "1000000000"])
        .args(["-a", password].iter().filter(|_| !password.is_empty()))
        .args(["-c", &callers.to_string(), "-n", &calls.to_string()])
        .args(["EVALSHA", script.get_hash(), "6"]);
    for part in [
        "sale",
        "payment:waiting",
        "completed",
        "lapses",
        "lapsing",
        "rebuild",
    ] {
        benchmark.arg(format!("{}:{{9}}:{part}", settings.prefix));
    }
    for _ in 0..requests {
        benchmark.args([
            "__rand_int__",
            "00000000-0000-7000-8000-__rand_int__",
            "1700000000000",
            "1700001800000",
            "1700001890000",
        ]);
    }
    let output = benchmark.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let mut last = text
        .split(['\r', '\n'])
        .filter(|line| line.contains("per second"));
    let figures = last.next_back().unwrap_or_default();
    // The script's call stands in front, up to the last colon.
    let figures = figures
        .rsplit_once(": ")
        .map_or(figures, |(_, figures)| figures);
    println!(
        "redis-benchmark, {requests} requests a call, calls: {figures}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

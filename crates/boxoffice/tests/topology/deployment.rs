//! Two processes of each service over schemas, topics and keys of this test, each with its own proxies to the engines.
//! A supervisor restarts every process that exits. Dropping the deployment kills all processes.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use messaging::{KafkaSettings, MessageTable, PostgresSettings, Random};
use tempfile::TempDir;
use test_support::api;
use ticketing::RedisSettings;

use crate::{
    engines::{Engines, KAFKA_ROUTES},
    gateway::{SECRET, TestGateway},
    process::{Process, command, program, spawn, supervise},
    proxy::Proxy,
};

/// The test fails if an awaited condition takes longer than this after the last fault.
pub const TIMEOUT: Duration = Duration::from_secs(150);
/// How often a condition is polled.
pub const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The services of a process, their schema, and the number of such processes.
const PROCESSES: &[(&str, &str, usize)] = &[
    ("event", "event", 1),
    ("user,dead-letter", "user", 2),
    ("ticketing-api", "ticketing", 2),
    ("ticketing-worker", "ticketing", 2),
    ("payment-api", "payment", 2),
    ("payment-worker", "payment", 2),
];
pub const SCHEMAS: [&str; 4] = ["event", "user", "ticketing", "payment"];
/// Long enough for a purchase without faults, short enough to wait for.
pub const HOLD_TTL_SECS: u64 = 25;
/// Timeouts as short as a machine that runs everything can keep.
const SETTINGS: &[(&str, &str)] = &[
    ("STORE__BACKEND", "postgres"),
    ("STORE__POSTGRES__CONNECTIONS_MAX", "3"),
    ("BUS__BACKEND", "kafka"),
    ("BUS__KAFKA__PARTITIONS", "4"),
    ("BUS__KAFKA__SESSION_TIMEOUT_MILLIS", "6000"),
    ("BUS__KAFKA__RELAY_AFTER_MILLIS", "2000"),
    ("BUS__KAFKA__RELAY_LEASE_MILLIS", "5000"),
    ("TICKETING__RESERVATIONS", "redis"),
    ("MESSAGING__INBOX_RETENTION_SECS", "120000"),
    ("MESSAGING__DEAD_LETTER_RETRY_INTERVAL_MILLIS", "1000"),
    ("PAYMENT__SANDBOX", "false"),
    ("PAYMENT__GATEWAY__SECRET_KEY", SECRET),
    ("PAYMENT__GATEWAY__REQUEST_TIMEOUT_MILLIS", "3000"),
    ("PAYMENT__SETTLE_AFTER_MILLIS", "4000"),
    ("PAYMENT__RETRY_MILLIS_MAX", "2000"),
    ("PAYMENT__GIVE_UP_AFTER_MILLIS", "5000"),
    ("TICKETING__HOLD_GRACE_SECS", "8"),
    ("LOG__LEVEL", "info"),
];
static DEPLOYMENTS: AtomicU32 = AtomicU32::new(0);

/// What a proxy leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Postgres,
    Redis,
    Kafka,
    Gateway,
}

pub struct Deployment {
    pub engines: &'static Engines,
    pub gateway: TestGateway,
    pub processes: Vec<Arc<Process>>,
    name: String,
    folder: Option<TempDir>,
    faults_changed: Mutex<ActiveFaults>,
    redis_lost: Mutex<Option<Instant>>,
    /// Forwards the gateway's webhooks to a `payment-api` process that listens.
    _webhook_proxy: Proxy,
    supervisor: tokio::task::JoinHandle<()>,
}

/// Number of active faults, and when it last changed.
struct ActiveFaults {
    faults: usize,
    since: Instant,
}

impl Deployment {
    /// Starts all processes and waits until they listen.
    pub async fn open() -> Self {
        let _ = api::client();
        let engines = tokio::task::spawn_blocking(Engines::get).await.unwrap();
        let number = DEPLOYMENTS.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}_{number}_", std::process::id());
        let (gateway, folder) = (TestGateway::open().await, tempfile::tempdir().unwrap());
        // One for all processes: payments belong to the gateway's address, and a process with another one is refused.
        let gateway_route = Arc::new(route(gateway.address));
        let mut processes = Vec::new();
        for (services, schema, count) in PROCESSES {
            for number in 1..=*count {
                let name_of_it = format!("{services}-{number}");
                let folder = folder.path().join(&name_of_it);
                fs::create_dir(&folder).unwrap();
                let kafka = Arc::clone(&engines.kafka_routes[processes.len() % KAFKA_ROUTES]);
                let routes = routes(services, engines, &gateway_route, kafka);
                let settings = settings(engines, &routes, &name, schema);
                if number == 1 {
                    // An earlier program's schema is there when this one migrates.
                    for program in [program(2), program(1)] {
                        let migrated = command(&program, &settings).arg("migrate").output();
                        let migrated = migrated.unwrap();
                        assert!(migrated.status.success(), "{migrated:?}");
                    }
                }
                let program = program(number);
                let running = Mutex::new(spawn(&program, services, &folder, &settings, ""));
                processes.push(Arc::new(Process {
                    name: name_of_it,
                    program,
                    services,
                    folder,
                    settings,
                    routes,
                    failpoints: Mutex::default(),
                    running,
                }));
            }
        }
        let webhook_proxy = webhook_proxy(&gateway, &processes);
        let supervisor = tokio::spawn(supervise(processes.clone()));
        let deployment = Self {
            engines,
            gateway,
            processes,
            name,
            folder: Some(folder),
            faults_changed: Mutex::new(ActiveFaults {
                faults: 0,
                since: Instant::now(),
            }),
            redis_lost: Mutex::default(),
            _webhook_proxy: webhook_proxy,
            supervisor,
        };
        deployment.all_listen().await;
        deployment
    }

    pub async fn all_listen(&self) {
        let begun = Instant::now();
        let mut poll = tokio::time::interval(POLL_INTERVAL);
        while self.processes.iter().any(|it| it.url().is_none()) {
            poll.tick().await;
            if self.may_wait(begun) {
                continue;
            }
            let silent = self.processes.iter().filter(|it| it.url().is_none());
            let silent: Vec<_> = silent.map(|it| &it.name).collect();
            panic!("these processes never listened: {silent:?}");
        }
    }

    /// A fault has begun or ended.
    pub fn faults_changed(&self, is_beginning: bool) {
        let mut faults_changed = self.faults_changed.lock().unwrap();
        faults_changed.faults = match is_beginning {
            true => faults_changed.faults + 1,
            false => faults_changed.faults - 1,
        };
        faults_changed.since = Instant::now();
    }

    /// Redis crashes now, and restarts empty.
    pub fn redis_is_lost(&self) {
        *self.redis_lost.lock().unwrap() = Some(Instant::now());
    }

    pub fn was_redis_lost_since(&self, moment: Instant) -> bool {
        let lost = *self.redis_lost.lock().unwrap();
        lost.is_some_and(|lost| lost >= moment)
    }

    /// Whether to wait longer for a condition: the timeout begins when the last fault has ended.
    pub fn may_wait(&self, since: Instant) -> bool {
        let faults_changed = self.faults_changed.lock().unwrap();
        faults_changed.faults > 0 || since.max(faults_changed.since).elapsed() < TIMEOUT
    }

    /// The URL of a random listening process of these services.
    pub fn any(&self, services: &str) -> Option<String> {
        self.one(services, Random::System.below(u64::MAX))
    }

    /// The URL of the listening process of these services that this number selects.
    pub fn one(&self, services: &str, number: u64) -> Option<String> {
        let those = self.processes.iter().filter(|it| it.services == services);
        let urls: Vec<_> = those.filter_map(|it| it.url()).collect();
        let number = number % urls.len().max(1) as u64;
        urls.get(usize::try_from(number).unwrap()).cloned()
    }

    pub fn postgres(&self, schema: &str) -> PostgresSettings {
        PostgresSettings {
            url: self.engines.postgres.address.clone(),
            schema: format!("{}{schema}", self.name),
            messages: MessageTable::Outbox,
            connections_max: 2,
            wait_secs_max: 10,
            program: boxoffice::backends::PROGRAM,
        }
    }

    pub fn redis(&self) -> RedisSettings {
        RedisSettings {
            url: self.engines.redis.address.clone(),
            prefix: self.name.clone(),
            call_timeout_millis: 10_000,
            ..RedisSettings::default()
        }
    }

    pub fn kafka(&self) -> KafkaSettings {
        KafkaSettings {
            brokers: self.engines.kafka.address.clone(),
            prefix: self.name.clone(),
            partitions: 4,
            ..KafkaSettings::default()
        }
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        self.supervisor.abort();
        for process in &self.processes {
            process.end();
        }
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("the logs are kept: {}", folder.keep().display());
        }
    }
}

fn route(target: SocketAddr) -> Proxy {
    Proxy::open(move || Some(target))
}

/// One proxy to each engine that the process uses.
fn routes(
    services: &str,
    engines: &Engines,
    gateway: &Arc<Proxy>,
    kafka: Arc<Proxy>,
) -> Vec<(Target, Arc<Proxy>)> {
    let mut routes = vec![
        (Target::Postgres, Arc::new(route(engines.postgres.socket()))),
        (Target::Kafka, kafka),
    ];
    if services.starts_with("ticketing") {
        routes.push((Target::Redis, Arc::new(route(engines.redis.socket()))));
    }
    if services.starts_with("payment") {
        routes.push((Target::Gateway, Arc::clone(gateway)));
    }
    routes
}

/// One address for the gateway, which leads to a process that listens.
fn webhook_proxy(gateway: &TestGateway, processes: &[Arc<Process>]) -> Proxy {
    let those = processes.iter().filter(|it| it.services == "payment-api");
    let those: Vec<_> = those.cloned().collect();
    let webhook_proxy = Proxy::open(move || {
        let url = those.iter().find_map(|it| it.url())?;
        url.strip_prefix("http://")?.parse().ok()
    });
    gateway.send_webhooks_to(&format!(
        "http://{}/payment/webhook/toss",
        webhook_proxy.address
    ));
    webhook_proxy
}

fn settings(
    engines: &Engines,
    routes: &[(Target, Arc<Proxy>)],
    name: &str,
    schema: &str,
) -> Vec<(String, String)> {
    let mut own = vec![
        ("STORE__POSTGRES__SCHEMA", format!("{name}{schema}")),
        ("BUS__KAFKA__PREFIX", name.to_owned()),
        ("TICKETING__REDIS__PREFIX", name.to_owned()),
    ];
    for (target, route) in routes {
        own.push(match target {
            Target::Postgres => (
                "STORE__POSTGRES__URL",
                engines.postgres.address_through(route.address),
            ),
            Target::Redis => (
                "TICKETING__REDIS__URL",
                engines.redis.address_through(route.address),
            ),
            Target::Kafka => ("BUS__KAFKA__BROKERS", route.address.to_string()),
            Target::Gateway => (
                "PAYMENT__GATEWAY__BASE_URL",
                format!("http://{}", route.address),
            ),
        });
    }
    if routes.iter().all(|(target, _)| *target != Target::Redis) {
        // A process that does not use Redis still needs an address.
        own.push(("TICKETING__REDIS__URL", engines.redis.address.clone()));
    }
    own.push(("TICKETING__HOLD_TTL_SECS", HOLD_TTL_SECS.to_string()));
    let fixed = SETTINGS
        .iter()
        .map(|(key, value)| (*key, (*value).to_owned()));
    let all = fixed.chain(own);
    all.map(|(key, value)| (format!("BOXOFFICE_{key}"), value))
        .collect()
}

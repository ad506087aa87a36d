//! The processes: two of each service, over schemas, topics and keys of their own, each by roads of its own to the engines.
//! Whatever ends is started again, as any supervisor does it; it dies with this.

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
use ticketing::RedisSettings;

use crate::{
    engines::{Engines, PLACES},
    gateway::{Gateway, SECRET},
    process::{Process, command, spawn, supervise},
    proxy::Proxy,
};

/// What must come does so within this after the last trouble, or the test fails.
pub const PATIENCE: Duration = Duration::from_secs(150);
/// How often something is looked at until it is as wanted.
pub const LOOK: Duration = Duration::from_millis(100);
/// The services of a process, the schema they share, and how many such processes there are.
const CAST: &[(&str, &str, usize)] = &[
    ("event", "event", 1),
    ("user,dead-letter", "user", 2),
    ("ticketing-api", "ticketing", 2),
    ("ticketing-worker", "ticketing", 2),
    ("payment-api", "payment", 2),
    ("payment-worker", "payment", 2),
];
pub const SCHEMAS: [&str; 4] = ["event", "user", "ticketing", "payment"];
/// What takes time, made short, as far as a machine that is busy with everything at once can keep it.
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
    // Long enough for whoever is served at once, short enough to wait for.
    ("TICKETING__HOLD_TTL_SECS", "25"),
    ("TICKETING__HOLD_GRACE_SECS", "8"),
    ("LOG__LEVEL", "info"),
];
static DEPLOYMENTS: AtomicU32 = AtomicU32::new(0);

/// What a road leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    Postgres,
    Redis,
    Kafka,
    Gateway,
}

pub struct Deployment {
    pub engines: &'static Engines,
    pub gateway: Gateway,
    pub processes: Vec<Arc<Process>>,
    name: String,
    folder: Option<TempDir>,
    trouble: Mutex<Trouble>,
    /// By which the gateway tells of payments, to any process that hears of them.
    _door: Proxy,
    supervisor: tokio::task::JoinHandle<()>,
}

/// How many faults are under way, and since when there are as many.
struct Trouble {
    faults: usize,
    since: Instant,
}

impl Deployment {
    /// Everything, listening.
    pub async fn open() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let engines = tokio::task::spawn_blocking(Engines::get).await.unwrap();
        let number = DEPLOYMENTS.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}_{number}_", std::process::id());
        let (gateway, folder) = (Gateway::open().await, tempfile::tempdir().unwrap());
        // One for all: payments belong to the gateway's address, and a process that names another is refused.
        let gateway_road = Arc::new(road(gateway.address));
        let mut processes = Vec::new();
        for (services, schema, count) in CAST {
            for place in 1..=*count {
                let name_of_it = format!("{services}-{place}");
                let folder = folder.path().join(&name_of_it);
                fs::create_dir(&folder).unwrap();
                let kafka = Arc::clone(&engines.kafka_roads[processes.len() % PLACES]);
                let roads = roads(services, engines, &gateway_road, kafka);
                let settings = settings(engines, &roads, &name, schema);
                if place == 1 {
                    let migrated = command(&settings).arg("migrate").output().unwrap();
                    assert!(migrated.status.success(), "{migrated:?}");
                }
                let running = Mutex::new(spawn(services, &folder, &settings, ""));
                processes.push(Arc::new(Process {
                    name: name_of_it,
                    services,
                    folder,
                    settings,
                    roads,
                    failpoints: Mutex::default(),
                    running,
                }));
            }
        }
        let door = door(&gateway, &processes);
        let supervisor = tokio::spawn(supervise(processes.clone()));
        let deployment = Self {
            engines,
            gateway,
            processes,
            name,
            folder: Some(folder),
            trouble: Mutex::new(Trouble {
                faults: 0,
                since: Instant::now(),
            }),
            _door: door,
            supervisor,
        };
        deployment.all_listen().await;
        deployment
    }

    pub async fn all_listen(&self) {
        let begun = Instant::now();
        let mut look = tokio::time::interval(LOOK);
        while self.processes.iter().any(|it| it.url().is_none()) {
            look.tick().await;
            if self.is_worth_waiting(begun) {
                continue;
            }
            let silent = self.processes.iter().filter(|it| it.url().is_none());
            let silent: Vec<_> = silent.map(|it| &it.name).collect();
            panic!("they never listen: {silent:?}");
        }
    }

    /// One more fault has begun, or one has ended.
    pub fn trouble(&self, is_beginning: bool) {
        let mut trouble = self.trouble.lock().unwrap();
        trouble.faults = match is_beginning {
            true => trouble.faults + 1,
            false => trouble.faults - 1,
        };
        trouble.since = Instant::now();
    }

    /// Whether what did not come by now may come yet: engines take as long to come back as the machine lets them.
    pub fn is_worth_waiting(&self, since: Instant) -> bool {
        let trouble = self.trouble.lock().unwrap();
        trouble.faults > 0 || since.max(trouble.since).elapsed() < PATIENCE
    }

    /// Some process of these services that listens.
    pub fn any(&self, services: &str) -> Option<String> {
        self.one(services, Random::System.below(u64::MAX))
    }

    /// The process of these services that this number chooses: of those that listen, other numbers choose others.
    pub fn one(&self, services: &str, number: u64) -> Option<String> {
        let those = self.processes.iter().filter(|it| it.services == services);
        let urls: Vec<_> = those.filter_map(|it| it.url()).collect();
        let place = number % urls.len().max(1) as u64;
        urls.get(usize::try_from(place).unwrap()).cloned()
    }

    pub fn postgres(&self, schema: &str) -> PostgresSettings {
        PostgresSettings {
            url: self.engines.postgres.address.clone(),
            schema: format!("{}{schema}", self.name),
            messages: MessageTable::Outbox,
            connections_max: 2,
            wait_secs_max: 10,
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

fn road(goal: SocketAddr) -> Proxy {
    Proxy::open(move || Some(goal))
}

/// A process has a road to each engine that it uses.
fn roads(
    services: &str,
    engines: &Engines,
    gateway: &Arc<Proxy>,
    kafka: Arc<Proxy>,
) -> Vec<(Goal, Arc<Proxy>)> {
    let mut roads = vec![
        (Goal::Postgres, Arc::new(road(engines.postgres.socket()))),
        (Goal::Kafka, kafka),
    ];
    if services.starts_with("ticketing") {
        roads.push((Goal::Redis, Arc::new(road(engines.redis.socket()))));
    }
    if services.starts_with("payment") {
        roads.push((Goal::Gateway, Arc::clone(gateway)));
    }
    roads
}

/// The gateway knows one address; behind it is whoever listens.
fn door(gateway: &Gateway, processes: &[Arc<Process>]) -> Proxy {
    let those = processes.iter().filter(|it| it.services == "payment-api");
    let those: Vec<_> = those.cloned().collect();
    let door = Proxy::open(move || {
        let url = those.iter().find_map(|it| it.url())?;
        url.strip_prefix("http://")?.parse().ok()
    });
    gateway.tell(&format!("http://{}/payment/webhook/toss", door.address));
    door
}

fn settings(
    engines: &Engines,
    roads: &[(Goal, Arc<Proxy>)],
    name: &str,
    schema: &str,
) -> Vec<(String, String)> {
    let mut own = vec![
        ("STORE__POSTGRES__SCHEMA", format!("{name}{schema}")),
        ("BUS__KAFKA__PREFIX", name.to_owned()),
        ("TICKETING__REDIS__PREFIX", name.to_owned()),
    ];
    for (goal, road) in roads {
        own.push(match goal {
            Goal::Postgres => ("STORE__POSTGRES__URL", engines.postgres.address_by(road)),
            Goal::Redis => ("TICKETING__REDIS__URL", engines.redis.address_by(road)),
            Goal::Kafka => ("BUS__KAFKA__BROKERS", road.address.to_string()),
            Goal::Gateway => (
                "PAYMENT__GATEWAY__BASE_URL",
                format!("http://{}", road.address),
            ),
        });
    }
    if roads.iter().all(|(goal, _)| *goal != Goal::Redis) {
        // Who never asks Redis must have an address.
        own.push(("TICKETING__REDIS__URL", engines.redis.address.clone()));
    }
    let fixed = SETTINGS
        .iter()
        .map(|(key, value)| (*key, (*value).to_owned()));
    let all = fixed.chain(own);
    all.map(|(key, value)| (format!("BOXOFFICE_{key}"), value))
        .collect()
}

//! Kafka for the tests: the broker that `BOXOFFICE_TEST_KAFKA` names, or one that `scripts/kafka` starts, once for each
//! test binary; it goes when this process goes. Each place has topics and groups of its own.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use contract::{
    Payload,
    dead_letter::{DeadLetter, DeadLetterResolved},
    ticketing::SagaTimeout,
};
use messaging::{
    Bus, Kafka, KafkaSettings, MessageTable, Metrics, Postgres, PostgresSettings, Store, StoreError,
};

use super::{Deposit, Noise, postgres::Schema, tables};

/// Every topic that the suites use.
pub const TOPICS: &[&str] = &[
    Deposit::TOPIC,
    Noise::TOPIC,
    DeadLetter::TOPIC,
    DeadLetterResolved::TOPIC,
    SagaTimeout::TOPIC,
    "trip.request",
    "trip.cancel",
    "trip.answer",
];
/// Longer than any retention here.
pub const INBOX_SECS: i64 = 10_000;

struct Server {
    address: String,
    _process: Option<Child>,
}

static SERVER: OnceLock<Server> = OnceLock::new();
static PREFIXES: AtomicU32 = AtomicU32::new(0);
/// Which bus belongs to which store: the suites hand around stores only.
static BUSES: Mutex<Vec<(Weak<Postgres>, Weak<Kafka>)>> = Mutex::new(Vec::new());

fn start() -> Server {
    if let Ok(address) = std::env::var("BOXOFFICE_TEST_KAFKA") {
        return Server {
            address,
            _process: None,
        };
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kafka");
    let mut process = Command::new(script)
        .arg("run")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("scripts/kafka can be run");
    let mut address = String::new();
    let output = process.stdout.take().expect("the output is a pipe");
    BufReader::new(output).read_line(&mut address).unwrap();
    let address = address.trim().to_owned();
    assert!(address.contains(':'), "scripts/kafka starts no broker");
    Server {
        address,
        _process: Some(process),
    }
}

/// A schema and topics that nobody else uses.
pub struct Brokers {
    pub schema: Schema,
    pub settings: KafkaSettings,
    opened: Mutex<Option<Arc<Kafka>>>,
}

impl Brokers {
    pub fn new() -> Self {
        let number = PREFIXES.fetch_add(1, Ordering::Relaxed);
        let random = messaging::Random::System.below(1 << 30);
        let mut schema = Schema::new();
        schema.settings.messages = MessageTable::Outbox;
        schema.settings.connections_max = 3;
        let settings = KafkaSettings {
            brokers: SERVER.get_or_init(start).address.clone(),
            prefix: format!("t{random}-{number}."),
            partitions: 2,
            retention_secs: 3_600,
            commit_interval_millis: 10,
            session_timeout_millis: 6_000,
            ..KafkaSettings::default()
        };
        Self {
            schema,
            settings,
            opened: Mutex::default(),
        }
    }

    pub fn store_settings(&self) -> &PostgresSettings {
        &self.schema.settings
    }

    /// A store that publishes nothing by itself.
    pub async fn open_silent(&self) -> Store {
        Postgres::migrate(self.store_settings(), &tables())
            .await
            .unwrap();
        let metrics = Metrics::unregistered();
        Store::open_postgres(self.store_settings(), &tables(), metrics)
            .await
            .unwrap()
    }

    /// Lets a store publish, and lets [`bus`] find its bus.
    pub async fn connect(&self, store: &Store) -> Arc<Kafka> {
        let settings = self.settings.clone();
        let kafka = Kafka::open(settings, store, TOPICS, INBOX_SECS)
            .await
            .unwrap();
        let Store::Postgres(postgres) = store else {
            unreachable!("it was opened here")
        };
        let pair = (Arc::downgrade(postgres), Arc::downgrade(&kafka));
        BUSES.lock().unwrap().push(pair);
        kafka
    }

    pub async fn try_open(&self, metrics: Arc<Metrics>) -> Result<Store, StoreError> {
        Postgres::migrate(self.store_settings(), &tables()).await?;
        let store = Store::open_postgres(self.store_settings(), &tables(), metrics).await?;
        let kafka = self.connect(&store).await;
        *self.opened.lock().unwrap() = Some(kafka);
        Ok(store)
    }
}

/// The bus that a store publishes on: its own log, where it was not told of another.
pub fn bus(store: &Store) -> Bus {
    let Store::Postgres(wanted) = store else {
        return Bus::Local(store.clone());
    };
    let buses = BUSES.lock().unwrap();
    let found = buses.iter().rev().find_map(|(postgres, kafka)| {
        let same = Weak::as_ptr(postgres) == Arc::as_ptr(wanted) && postgres.strong_count() > 0;
        if same { kafka.upgrade() } else { None }
    });
    found.map_or_else(|| Bus::Local(store.clone()), Bus::Kafka)
}

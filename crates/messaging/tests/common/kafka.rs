//! Kafka for the tests: the broker of `BOXOFFICE_TEST_KAFKA`, or one that `scripts/kafka` starts for each test binary, which
//! stops with this process. Each test has its own topics and groups.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, OnceLock, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use messaging::{
    Bus, Kafka, KafkaSettings, MessageTable, Metrics, Payload, Postgres, PostgresSettings, Store,
    StoreError,
    dead_letters::{DeadLetter, DeadLetterResolved},
    kafka_settings::KafkaSecurity,
};
use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, ResourceSpecifier},
    client::DefaultClientContext,
    consumer::{Consumer as _, StreamConsumer},
    error::RDKafkaErrorCode,
    message::{Header, OwnedHeaders, OwnedMessage},
    producer::{BaseProducer, FutureProducer, FutureRecord, Producer as _},
};

use super::{Deposit, Noise, postgres::Schema, tables};

/// Every topic that the suites use.
pub const TOPICS: &[&str] = &[
    Deposit::TOPIC,
    Noise::TOPIC,
    DeadLetter::TOPIC,
    DeadLetterResolved::TOPIC,
    "trip.timeout",
    "flight.book.request",
    "flight.book.response",
    "flight.cancel.request",
    "flight.cancel.response",
    "hotel.book.request",
    "hotel.book.response",
    "hotel.cancel.request",
    "hotel.cancel.response",
];
/// Longer than the retention of all topics of the tests.
pub const INBOX_SECS: i64 = 10_000;

/// How long a request of the cleanup may take.
const ANSWER: Duration = Duration::from_secs(20);

struct Server {
    address: String,
    _process: Option<Child>,
}

static SERVER: OnceLock<Server> = OnceLock::new();
static GUARDED: OnceLock<(Server, Guarded)> = OnceLock::new();
static PREFIXES: AtomicU32 = AtomicU32::new(0);
/// The bus of each store: the suites pass stores only.
static BUSES: Mutex<Vec<(Weak<Postgres>, Weak<Kafka>)>> = Mutex::new(Vec::new());

/// The addresses of a broker that authenticates its clients, and the credentials.
#[derive(Debug, Clone)]
pub struct Guarded {
    /// The listener without authentication.
    pub plain: String,
    /// By password.
    pub sasl_ssl: String,
    /// By certificate.
    pub ssl: String,
    pub folder: String,
    pub user: String,
    pub password: String,
}

/// Starts a broker; returns its process and the first lines of its output.
fn run(arguments: &[&str], lines: usize) -> (Child, Vec<String>) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/kafka");
    let mut process = Command::new(script)
        .arg("run")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("scripts/kafka can be run");
    let output = process.stdout.take().expect("the output is a pipe");
    let said = BufReader::new(output).lines().take(lines);
    let said: Vec<String> = said.map(Result::unwrap).collect();
    assert_eq!(said.len(), lines, "scripts/kafka starts no broker");
    (process, said)
}

fn start() -> Server {
    if let Ok(address) = std::env::var("BOXOFFICE_TEST_KAFKA") {
        return Server {
            address,
            _process: None,
        };
    }
    let (process, mut said) = run(&[], 1);
    Server {
        address: said.remove(0),
        _process: Some(process),
    }
}

/// A second broker, started at the first call in each test binary.
pub fn guarded() -> &'static Guarded {
    let start = || {
        let (process, said) = run(&["--tls"], 2);
        let [sasl_ssl, ssl, folder, user, password] = said[1].split(' ').collect::<Vec<_>>()[..]
        else {
            panic!("scripts/kafka prints something else: {said:?}")
        };
        let guarded = Guarded {
            plain: said[0].clone(),
            sasl_ssl: sasl_ssl.to_owned(),
            ssl: ssl.to_owned(),
            folder: folder.to_owned(),
            user: user.to_owned(),
            password: password.to_owned(),
        };
        let server = Server {
            address: said[0].clone(),
            _process: Some(process),
        };
        (server, guarded)
    };
    &GUARDED.get_or_init(start).1
}

impl Guarded {
    pub fn file(&self, name: &str) -> Option<String> {
        Some(format!("{}/{name}", self.folder))
    }
}

/// A schema and topics of one test.
pub struct Brokers {
    pub schema: Schema,
    pub settings: KafkaSettings,
    opened: Mutex<Option<Arc<Kafka>>>,
    /// Whether topics may exist.
    connected: AtomicBool,
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
            connected: AtomicBool::new(false),
        }
    }

    /// Uses another broker, with authentication.
    pub fn at(brokers: &str, security: KafkaSecurity) -> Self {
        let mut place = Self::new();
        place.settings.brokers = brokers.to_owned();
        place.settings.security = security;
        place
    }

    pub fn store_settings(&self) -> &PostgresSettings {
        &self.schema.settings
    }

    /// Opens a store without a bus: nothing publishes its messages.
    pub async fn open_silent(&self) -> Store {
        Postgres::migrate(self.store_settings(), &tables())
            .await
            .unwrap();
        let metrics = Metrics::unregistered();
        Store::open_postgres(self.store_settings(), &tables(), metrics)
            .await
            .unwrap()
    }

    /// Opens the bus of a store, which [`bus`] then finds.
    pub async fn connect(&self, store: &Store) -> Arc<Kafka> {
        self.connected.store(true, Ordering::Relaxed);
        let settings = self.settings.clone();
        let kafka = Kafka::open(settings, store, TOPICS, &[], INBOX_SECS)
            .await
            .unwrap();
        let Store::Postgres(postgres) = store else {
            unreachable!("it was opened here")
        };
        let pair = (Arc::downgrade(postgres), Arc::downgrade(&kafka));
        BUSES.lock().unwrap().push(pair);
        kafka
    }

    /// The topics of this test at a broker.
    pub fn topics_at(&self, brokers: &str) -> Vec<String> {
        let client: BaseProducer = self.client(brokers).create().unwrap();
        let all = client.client().fetch_metadata(None, ANSWER).unwrap();
        let names = all.topics().iter().map(|topic| topic.name().to_owned());
        let prefix = self.settings.prefix.as_str();
        names.filter(|name| name.starts_with(prefix)).collect()
    }

    /// The state of a consumer group and how many members it has.
    pub fn group(&self, name: &str) -> (String, usize) {
        let client: BaseProducer = self.client(&self.settings.brokers).create().unwrap();
        let name = format!("{}{name}", self.settings.prefix);
        let told = client.client().fetch_group_list(Some(&name), ANSWER);
        let Ok(told) = told else {
            return Default::default();
        };
        let groups = told.groups();
        let group = groups
            .first()
            .map(|it| (it.state().to_owned(), it.members().len()));
        group.unwrap_or_default()
    }

    /// For a test that creates topics.
    pub fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.connected.store(true, Ordering::Relaxed);
        self.client(&self.settings.brokers).create().unwrap()
    }

    /// Deletes a topic, and returns when the broker has forgotten it.
    pub async fn delete_topic(&self, topic: &str) {
        let name = format!("{}{topic}", self.settings.prefix);
        let admin = self.admin();
        let removed = admin.delete_topics(&[&name], &AdminOptions::new()).await;
        assert!(matches!(removed.unwrap()[..], [Ok(_)]));
        super::eventually("the broker has forgotten the topic", async || {
            !self.topics_at(&self.settings.brokers).contains(&name)
        })
        .await;
    }

    /// Sends a record as a foreign producer.
    pub async fn send(&self, topic: &str, key: &[u8], headers: &[(&str, &[u8])], payload: &[u8]) {
        let name = format!("{}{topic}", self.settings.prefix);
        let client: FutureProducer = self.client(&self.settings.brokers).create().unwrap();
        let mut all = OwnedHeaders::new();
        for (key, value) in headers {
            let value = Some(*value);
            all = all.insert(Header { key, value });
        }
        let record = FutureRecord::to(&name)
            .key(key)
            .headers(all)
            .payload(payload);
        client.send(record, ANSWER).await.unwrap();
    }

    /// The first record of a topic, as the broker stores it.
    pub async fn first_record(&self, topic: &str) -> OwnedMessage {
        let mut client = self.client(&self.settings.brokers);
        client.set("group.id", format!("{}first", self.settings.prefix));
        client.set("auto.offset.reset", "earliest");
        // One that was created just now is looked for again soon, not after five minutes.
        client.set("topic.metadata.refresh.interval.ms", "500");
        let consumer: StreamConsumer = client.create().unwrap();
        let name = format!("{}{topic}", self.settings.prefix);
        consumer.subscribe(&[&name]).unwrap();
        let record = async {
            loop {
                match consumer.recv().await {
                    Ok(record) => return record.detach(),
                    // A topic that was created just now is not known to every broker.
                    Err(error)
                        if error.rdkafka_error_code()
                            == Some(RDKafkaErrorCode::UnknownTopicOrPartition) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        };
        super::within("a record arrives", record).await
    }

    /// A client with the security of the settings.
    fn client(&self, brokers: &str) -> ClientConfig {
        let mut client = ClientConfig::new();
        let security = &self.settings.security;
        client.set("bootstrap.servers", brokers);
        let options = [
            ("security.protocol", &security.protocol),
            ("ssl.ca.location", &security.ssl_ca_location),
            (
                "ssl.certificate.location",
                &security.ssl_certificate_location,
            ),
            ("ssl.key.location", &security.ssl_key_location),
            ("sasl.mechanism", &security.sasl_mechanism),
            ("sasl.username", &security.sasl_username),
            ("sasl.password", &security.sasl_password),
        ];
        for (name, value) in options {
            if let Some(value) = value {
                client.set(name, value);
            }
        }
        client
    }

    /// A topic's configuration; `None` if the broker does not know the topic yet.
    pub async fn configured(&self, topic: &str, key: &str) -> Option<String> {
        let name = format!("{}{topic}", self.settings.prefix);
        let asked = [ResourceSpecifier::Topic(&name)];
        let told = self
            .admin()
            .describe_configs(&asked, &AdminOptions::new())
            .await;
        let config = told.unwrap().remove(0).ok()?;
        config.get(key)?.value.clone()
    }

    /// Keeps a bus open until the end of the test.
    pub fn keep(&self, kafka: &Arc<Kafka>) {
        *self.opened.lock().unwrap() = Some(Arc::clone(kafka));
    }

    pub async fn try_open(&self, metrics: Arc<Metrics>) -> Result<Store, StoreError> {
        Postgres::migrate(self.store_settings(), &tables()).await?;
        let store = Store::open_postgres(self.store_settings(), &tables(), metrics).await?;
        let kafka = self.connect(&store).await;
        *self.opened.lock().unwrap() = Some(kafka);
        Ok(store)
    }
}

impl Drop for Brokers {
    /// Deletes its topics, which would slow the broker down for the following tests.
    fn drop(&mut self) {
        self.opened.lock().unwrap().take();
        let settings = &self.settings;
        let brokers = settings
            .dead_letter_brokers
            .iter()
            .chain([&settings.brokers]);
        for brokers in brokers {
            // A client that the broker rejects has created no topics there.
            let Ok(admin) = self
                .client(brokers)
                .create::<AdminClient<DefaultClientContext>>()
            else {
                continue;
            };
            let names: Vec<String> = TOPICS
                .iter()
                .map(|it| settings.prefix.clone() + it)
                .collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let options = AdminOptions::new().request_timeout(Some(ANSWER));
            let deleting = async { admin.delete_topics(&names, &options).await.is_ok() };
            wait_for(deleting);
        }
    }
}

/// Runs on its own thread, since the caller may be an asynchronous task.
fn wait_for<T: Send>(work: impl Future<Output = T> + Send) -> T {
    let waiting = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(work)
    };
    std::thread::scope(|scope| scope.spawn(waiting).join().unwrap())
}

/// The bus of a store: the one that `connect` opened, or else its own log.
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

//! Boxoffice without one of its services, and a foreign process in its place.

use std::{
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use boxoffice::{
    app::App,
    backends::{self, BusBackend, StoreBackend},
    config::{Config, Flags},
};
use messaging::{Clock, KafkaSettings, MessageIdentity, PostgresSettings, Random};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::{Polling, api, engines, eventually};
use ticketing::{ReservationsBackend, redis_server::RedisSettings};

/// The machine may be busy.
const POLLING: Polling = Polling {
    interval: Duration::from_millis(100),
    timeout: Duration::from_secs(120),
};
/// Points that each purchase uses.
pub const POINTS: i64 = 100;
pub const PRICE: i64 = 50_000;

pub struct ForeignDeployment {
    app: App,
    client: Client,
    foreign: ForeignService,
    config: Config,
    _folder: TempDir,
}

/// The foreign service's process.
struct ForeignService {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl ForeignDeployment {
    /// Starts these services of Boxoffice and the script in place of the missing one.
    pub async fn open(services: &str, script: &'static str) -> Self {
        let client = api::client();
        let folder = tempfile::tempdir().unwrap();
        let flags = Flags {
            data: Some(folder.path().to_owned()),
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            services: None,
        };
        let mut config = Config::load(None, [], &flags).unwrap();
        config.services = services.parse().unwrap();
        let name = use_engines(&mut config).await;
        let (clock, random) = (Clock::System, Random::System);
        let app = App::start(config.clone(), clock, random).await.unwrap();
        let brokers = config.bus.kafka.brokers.clone();
        let foreign = move || ForeignService::start(script, &brokers, &format!("{name}."));
        let foreign = tokio::task::spawn_blocking(foreign).await.unwrap();
        Self {
            app,
            client,
            foreign,
            config,
            _folder: folder,
        }
    }

    /// Stops everything. No message may have become a dead letter.
    pub async fn close(self) {
        let (_, letters) = self.call(Method::GET, "/dead-letter", Value::Null).await;
        assert_eq!(letters["items"], json!([]));
        self.app.stop().await;
        let settings = &self.config.store.postgres;
        let (client, connection) = tokio_postgres::connect(&settings.url, tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        let drop = format!("DROP SCHEMA {} CASCADE", settings.schema);
        client.batch_execute(&drop).await.unwrap();
    }

    pub async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let request = self.client.request(method, self.app.url() + path);
        let request = match body {
            Value::Null => request,
            body => request.json(&body),
        };
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let body = response.json().await.unwrap_or(Value::Null);
        (status, body)
    }

    pub async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(Method::POST, path, body).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// Polls the JSON at a path until it is as wanted.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(POLLING, path, async || {
            let body = self.call(Method::GET, path, Value::Null).await.1;
            if wanted(&body) { Ok(body) } else { Err(body) }
        })
        .await
    }

    /// Sends a command to the foreign service.
    pub fn ask_foreign(&mut self, command: &str) -> Value {
        let ForeignService { input, output, .. } = &mut self.foreign;
        writeln!(input, "{command}").unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{command}: {line:?}"))
    }

    /// An event with one ticket that is on sale.
    pub async fn event(&self) -> i64 {
        let show = json!({"name": "show", "ticketQuantity": 1, "price": PRICE});
        let id = self.post("/event", show).await["id"].as_i64().unwrap();
        self.stock(id, 1).await;
        id
    }

    /// Waits until this number of tickets is available.
    pub async fn stock(&self, event: i64, available: i64) {
        let path = format!("/ticketing/event/{event}");
        self.until(&path, |it| it["available"] == available).await;
    }

    /// Reserves and processes; returns the purchase at its end.
    pub async fn purchase(&self, event: i64, user: i64, amount: i64) -> Value {
        let body = json!({"eventId": event, "userId": user});
        let reserved = self.post("/ticketing/reserve", body).await;
        let ticket = reserved["ticketId"].as_str().unwrap();
        let body = json!({"ticketId": ticket, "eventId": event, "userId": user,
            "totalAmount": amount, "point": POINTS});
        self.post("/ticketing/process", body).await;
        let path = format!("/ticketing/process/{ticket}");
        let is_over =
            |it: &Value| it["sagaState"] == "COMPLETED" || it["sagaState"] == "COMPENSATED";
        self.until(&path, is_over).await
    }

    /// Cancels a ticket and waits until it is cancelled and refunded.
    pub async fn cancel(&self, ticket: &str) {
        self.post(&format!("/ticket/{ticket}/cancel"), json!({}))
            .await;
        let path = format!("/ticket/{ticket}/cancel");
        self.until(&path, |it| it["sagaState"] == "COMPLETED").await;
        let path = format!("/ticketing/process/{ticket}");
        self.until(&path, |it| it["ticketStatus"] == "CANCELLED")
            .await;
    }
}

impl ForeignService {
    /// Blocks until it is ready.
    fn start(script: &str, brokers: &str, prefix: &str) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let python = Command::new(here.join("../../scripts/foreign"));
        let python = { python }.stderr(Stdio::inherit()).output().unwrap();
        let python = String::from_utf8(python.stdout).unwrap();
        let mut process = Command::new(python.trim())
            .arg(here.join("tests/foreign/services").join(script))
            .args([brokers, prefix])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/foreign prints a Python");
        let input = process.stdin.take().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready");
        Self {
            process,
            input,
            output,
        }
    }
}

impl Drop for ForeignService {
    fn drop(&mut self) {
        // Fails only if it has already exited.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Configures PostgreSQL, Redis and Kafka with unique names; returns the name.
async fn use_engines(config: &mut Config) -> String {
    let name = engines::unique_name("foreign");
    config.store.backend = StoreBackend::Postgres;
    config.store.postgres = PostgresSettings {
        url: engines::postgres_url().to_owned(),
        schema: name.clone(),
        ..PostgresSettings::default()
    };
    config.ticketing.reservations = ReservationsBackend::Redis;
    config.ticketing.redis = RedisSettings {
        url: engines::redis_url().to_owned(),
        prefix: name.clone(),
        ..RedisSettings::default()
    };
    config.bus.backend = BusBackend::Kafka;
    config.bus.kafka = KafkaSettings {
        brokers: engines::kafka_brokers().to_owned(),
        prefix: format!("{name}."),
        partitions: 2,
        message_identity: MessageIdentity::Uuid,
        zone: "+09:00".to_owned(),
        ..KafkaSettings::default()
    };
    backends::migrate(config).await.unwrap();
    name
}

//! What a distributed house stands on: a schema of PostgreSQL, and topics and groups of Kafka. One server of each serves
//! all stories of this process, and goes with it.
//!
//! Schema, topics and groups are a house's own while it stands. When it is at rest they are emptied and handed on to the
//! next house: making them takes longer than most stories. A trigger writes down what is published: a row of the outbox
//! goes as soon as the brokers have it, and stories ask what was said and whether everybody has heard it.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use boxoffice::{
    audit::books::subscriptions,
    backends::{self, BusBackend, StoreBackend},
    config::Config,
};
use messaging::{Bus, KafkaSettings, PostgresSettings, Random};
use tokio_postgres::{Client, NoTls};

use crate::{deployment::Said, house::PATIENCE, postgres_place};

/// So long that nothing goes while a story is told: its clock and the brokers' have nothing to do with each other.
const RETENTION_SECS: i64 = 1_000_000_000;
const INBOX_SECS: i64 = 2 * RETENTION_SECS;
/// Between two questions to the brokers.
const LOOK: Duration = Duration::from_millis(10);
/// Empties every table but those that are the same for every house.
const EMPTY: &str = "
    DO $$ DECLARE name text; BEGIN
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = current_schema() LOOP
            IF name NOT IN ('migration', 'reads') THEN EXECUTE format('DELETE FROM %I', name); END IF;
        END LOOP;
    END $$";
/// Who reads what, what was published, and how it gets there.
const LOG: &str = "
    CREATE TABLE reads (consumer text NOT NULL, topic text NOT NULL);
    CREATE TABLE said (\"offset\" bigint PRIMARY KEY, id text NOT NULL, topic text NOT NULL, key text NOT NULL, reissue json);
    CREATE FUNCTION note_said() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO said VALUES (NEW.\"offset\", NEW.id, NEW.topic, NEW.key, NEW.reissue::json);
        RETURN NULL;
    END $$;
    CREATE TRIGGER said AFTER INSERT ON message FOR EACH ROW EXECUTE FUNCTION note_said();";
/// What the brokers do not have yet, and what a group that reads it has not marked as handled.
const UNDER_WAY: &str = "
    SELECT 'unpublished: ' || id FROM message
    UNION ALL
    SELECT reads.consumer || ': ' || said.id FROM said JOIN reads USING (topic)
    WHERE (reissue IS NULL OR reissue ->> 'group' = reads.consumer) AND NOT EXISTS (
        SELECT FROM inbox WHERE inbox.consumer = reads.consumer
        AND message_id IN (said.id, reissue ->> 'dead_letter' || ':handled'))";

struct Broker {
    address: String,
    /// Holds the server's standard input open as long as this process lives.
    _process: Option<Child>,
}

static BROKER: OnceLock<Broker> = OnceLock::new();
static PLOTS: AtomicU32 = AtomicU32::new(0);
/// The names of plots that nobody stands on.
static FREE: Mutex<Vec<String>> = Mutex::new(Vec::new());

pub struct Distributed {
    /// Of the schema; in front of topics and groups.
    plot: String,
    /// Beside the house's own connections.
    client: Client,
}

impl Distributed {
    pub async fn open(config: &mut Config) -> Self {
        let free = FREE.lock().unwrap().pop();
        let (is_new, plot) = (free.is_none(), free.unwrap_or_else(new_name));
        configure(config, &plot);
        if is_new {
            backends::migrate(config).await.unwrap();
        }
        let connecting = tokio_postgres::connect(postgres_place::url(), NoTls);
        let (client, connection) = connecting.await.unwrap();
        tokio::spawn(connection);
        let distributed = Self { plot, client };
        let path = format!("SET search_path TO {}", distributed.plot);
        distributed.run(&path).await;
        if is_new {
            distributed.listen().await;
        }
        distributed
    }

    /// What is published is written down from now on.
    async fn listen(&self) {
        self.run(LOG).await;
        for (group, topics) in subscriptions() {
            let text = "INSERT INTO reads SELECT $1, unnest($2::text[])";
            self.client.execute(text, &[&group, &topics]).await.unwrap();
        }
    }

    /// Who has yet to handle what.
    pub async fn under_way(&self) -> Vec<String> {
        let rows = self.client.query(UNDER_WAY, &[]).await.unwrap();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// Everything that was published, in the order of its commits.
    pub async fn all_said(&self) -> Vec<Said> {
        let text = "SELECT id, topic, key FROM said ORDER BY \"offset\"";
        let rows = self.client.query(text, &[]).await.unwrap();
        let said = |row: &tokio_postgres::Row| Said {
            id: row.get(0),
            topic: row.get(1),
            key: row.get(2),
        };
        rows.iter().map(said).collect()
    }

    /// Does something to the schema that no program does.
    pub async fn run(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap();
    }

    /// Waits until the brokers know of everything so far that it was handled; returns how much that is.
    pub async fn is_heard(&self, bus: &Bus) -> usize {
        let said = self.all_said().await.len();
        let hearing = async {
            let groups = subscriptions().into_iter();
            let heard = groups.map(async |(group, topics)| {
                let mut look = tokio::time::interval(LOOK);
                while !bus.is_drained(group, topics).await.unwrap() {
                    look.tick().await;
                }
            });
            futures::future::join_all(heard).await;
        };
        let heard = tokio::time::timeout(PATIENCE, hearing).await;
        heard.expect("the brokers were never told");
        said
    }

    /// Nothing is left of the house, and the next one may stand here. Where something was said since everything was
    /// heard nobody may, and where a house fails: the brokers might say it again.
    pub async fn close(self, heard: usize) {
        if self.all_said().await.len() == heard {
            self.run(EMPTY).await;
            FREE.lock().unwrap().push(self.plot);
        }
    }
}

/// That nobody else has at servers which may be everybody's.
fn new_name() -> String {
    let number = PLOTS.fetch_add(1, Ordering::Relaxed);
    format!("house_{}_{number}", Random::System.below(1 << 30))
}

fn configure(config: &mut Config, plot: &str) {
    config.store.backend = StoreBackend::Postgres;
    config.store.postgres = PostgresSettings {
        url: postgres_place::url().to_owned(),
        schema: plot.to_owned(),
        connections_max: 2,
        ..PostgresSettings::default()
    };
    config.bus.backend = BusBackend::Kafka;
    config.bus.kafka = KafkaSettings {
        brokers: BROKER.get_or_init(start).address.clone(),
        prefix: format!("{plot}."),
        partitions: 2,
        retention_secs: RETENTION_SECS,
        commit_interval_millis: 10,
        session_timeout_millis: 6_000,
        ..KafkaSettings::default()
    };
    config.messaging.inbox_retention_secs = Some(INBOX_SECS);
}

fn start() -> Broker {
    if let Ok(address) = std::env::var("BOXOFFICE_TEST_KAFKA") {
        return Broker {
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
    Broker {
        address,
        _process: Some(process),
    }
}

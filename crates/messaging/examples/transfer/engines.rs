//! The store and the bus that the command line chooses: SQLite, or PostgreSQL, or PostgreSQL and Kafka.

use messaging::{Bus, MessageTable, Metrics, Postgres, PostgresSettings, Record, Store, Table};

pub fn argument(name: &str) -> Option<String> {
    std::env::args().skip_while(|it| it != name).nth(1)
}

pub async fn open(run: &str) -> (Store, Bus) {
    let kafka = argument("--kafka");
    let store = match argument("--postgres") {
        Some(url) => postgres(url, run, kafka.is_some()).await,
        None => {
            let folder = std::env::temp_dir().join(format!("transfer-{run}"));
            Store::open_embedded(&folder, &tables(), Metrics::unregistered()).unwrap()
        }
    };
    let bus = match kafka {
        Some(brokers) => open_kafka(brokers, run, &store).await,
        None => Bus::Local(store.clone()),
    };
    (store, bus)
}

fn tables() -> Vec<&'static Table> {
    [messaging::TABLES, &[crate::Balance::TABLE]].concat()
}

async fn postgres(url: String, run: &str, is_outbox: bool) -> Store {
    let settings = PostgresSettings {
        url,
        schema: format!("transfer_{run}"),
        messages: match is_outbox {
            true => MessageTable::Outbox,
            false => MessageTable::Log,
        },
        ..PostgresSettings::default()
    };
    let tables = tables();
    Postgres::migrate(&settings, &tables).await.unwrap();
    let opened = Store::open_postgres(&settings, &tables, Metrics::unregistered());
    opened.await.unwrap()
}

/// A runner's relay publishes what the killed process has committed and not published.
#[cfg(feature = "kafka")]
async fn open_kafka(brokers: String, run: &str, store: &Store) -> Bus {
    use messaging::{
        Consumer, Kafka, KafkaSettings, dead_letters::DeadLetterConsumer,
        housekeeping::CleaningSettings,
    };

    let settings = KafkaSettings {
        brokers,
        prefix: format!("transfer-{run}."),
        retention_secs: 1_000,
        session_timeout_millis: 6_000,
        relay_after_millis: 500,
        relay_lease_millis: 3_000,
        ..KafkaSettings::default()
    };
    let letters = DeadLetterConsumer::default();
    let groups = [
        (crate::NORTH.group(), crate::NORTH.topics()),
        (crate::SOUTH.group(), crate::SOUTH.topics()),
        (crate::Transfers.group(), crate::Transfers.topics()),
        (letters.group(), letters.topics()),
    ];
    let topics: Vec<_> = groups.iter().flat_map(|it| it.1).copied().collect();
    let inbox_secs = CleaningSettings::default().inbox_retention_secs;
    let opened = Kafka::open(settings, store, &topics, &groups, inbox_secs);
    Bus::Kafka(opened.await.unwrap())
}

#[cfg(not(feature = "kafka"))]
fn open_kafka(_: String, _: &str, _: &Store) -> std::future::Ready<Bus> {
    panic!("--kafka needs --features kafka");
}

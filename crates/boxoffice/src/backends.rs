//! The engines that a process runs over: where records are kept, and how messages travel. Chosen by configuration
//! alone, matched here only.

use std::sync::Arc;

use anyhow::{Context, bail};
use messaging::{
    Bus, MessageTable, Metrics, Postgres, PostgresSettings, Snapshot, Store, StoreError,
};
use serde::Deserialize;

use crate::{app::tables, config::Config};

/// Where records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreBackend {
    /// In the data folder.
    #[default]
    Sqlite,
    Postgres,
}

/// How messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BusBackend {
    /// As rows of the store: one process.
    #[default]
    Local,
    /// Between processes. Needs PostgreSQL, and a program built with the feature `kafka`.
    Kafka,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    pub backend: StoreBackend,
    pub postgres: PostgresSettings,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusSettings {
    pub backend: BusBackend,
    #[cfg(feature = "kafka")]
    pub kafka: messaging::KafkaSettings,
    /// Understood by a program that was built with the feature `kafka`.
    #[cfg(not(feature = "kafka"))]
    pub kafka: Ignored,
}

/// A section that this program does not read.
#[cfg(not(feature = "kafka"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ignored;

#[cfg(not(feature = "kafka"))]
impl<'de> Deserialize<'de> for Ignored {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// What the message table of this process is: the bus itself, or what another bus has yet to take.
fn postgres_settings(config: &Config) -> PostgresSettings {
    PostgresSettings {
        messages: match config.bus.backend {
            BusBackend::Local => MessageTable::Log,
            BusBackend::Kafka => MessageTable::Outbox,
        },
        ..config.store.postgres.clone()
    }
}

/// Opens the store that the settings name.
///
/// # Errors
/// Where it cannot be had; for PostgreSQL also where `boxoffice migrate` has not run.
pub async fn open_store(config: &Config, metrics: Arc<Metrics>) -> Result<Store, StoreError> {
    match config.store.backend {
        StoreBackend::Sqlite => Store::open_embedded(&config.data, &tables(), metrics),
        StoreBackend::Postgres => {
            Store::open_postgres(&postgres_settings(config), &tables(), metrics).await
        }
    }
}

/// As [`open_store`], for a command that has nothing to do where there is no store yet.
///
/// # Errors
/// Where there is no data folder, or it is in use; else as [`open_store`].
pub async fn open_existing(config: &Config) -> anyhow::Result<Store> {
    must_exist(config)?;
    let opened = open_store(config, Metrics::unregistered()).await;
    opened.context("the store cannot be opened")
}

/// # Errors
/// Where the settings name a data folder that is not there.
pub fn must_exist(config: &Config) -> anyhow::Result<()> {
    if config.store.backend == StoreBackend::Sqlite && !config.data.is_dir() {
        bail!("there is no data folder {}", config.data.display());
    }
    Ok(())
}

/// One moment of the store that the settings name, beside whoever uses it.
///
/// # Errors
/// Where it cannot be read.
pub fn snapshot(config: &Config) -> Result<Snapshot, StoreError> {
    match config.store.backend {
        StoreBackend::Sqlite => Snapshot::open(&config.data),
        StoreBackend::Postgres => Snapshot::open_postgres(&postgres_settings(config)),
    }
}

/// Brings the tables up to date; returns what was done.
///
/// # Errors
/// Where the server cannot be reached, or a table cannot become what it should be.
pub async fn migrate(config: &Config) -> anyhow::Result<Vec<String>> {
    match config.store.backend {
        StoreBackend::Sqlite => {
            bail!(
                "the embedded store is brought up to date when it is opened: there is nothing to do"
            )
        }
        StoreBackend::Postgres => Postgres::migrate(&postgres_settings(config), &tables())
            .await
            .context("the setting store.postgres"),
    }
}

/// Opens the bus over a store.
///
/// # Errors
/// Where the brokers cannot be had, or their topics are not what the settings say.
#[cfg_attr(
    not(feature = "kafka"),
    expect(
        clippy::unused_async,
        reason = "the brokers are asked where there are any"
    )
)]
pub async fn open_bus(config: &Config, store: &Store) -> anyhow::Result<Bus> {
    match config.bus.backend {
        BusBackend::Local => Ok(Bus::Local(store.clone())),
        #[cfg(feature = "kafka")]
        BusBackend::Kafka => {
            let groups = crate::audit::books::subscriptions();
            let settings = messaging::KafkaSettings {
                payload_rules: contract::topic::PAYLOAD_RULES,
                ..config.bus.kafka.clone()
            };
            let opened = messaging::Kafka::open(
                settings,
                store,
                contract::topic::ALL,
                &groups,
                config.inbox_retention_secs(),
            );
            Ok(Bus::Kafka(opened.await.context("the setting bus.kafka")?))
        }
        #[cfg(not(feature = "kafka"))]
        BusBackend::Kafka => bail!(
            "the setting bus.backend is kafka, and this program was built without it: cargo build --features kafka"
        ),
    }
}

/// Publishes what was committed so far, and nothing more.
pub async fn close_bus(bus: Bus) {
    match bus {
        Bus::Local(_) => {}
        #[cfg(feature = "kafka")]
        Bus::Kafka(kafka) => kafka.close().await,
    }
}

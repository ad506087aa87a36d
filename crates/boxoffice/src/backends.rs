//! The engines that a process runs over, chosen by configuration alone.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context, anyhow, bail};
use messaging::{
    Bus, DataFolder, Engines, KafkaSettings, Metrics, PostgresSettings, Program, Snapshot, Store,
    StoreError,
};
use serde::Deserialize;

use crate::{app::tables, audit::books::subscriptions, config::Config};

/// Where records are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreBackend {
    /// In the data folder.
    Sqlite,
    Postgres,
}

/// How messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BusBackend {
    /// As rows of the store: one process.
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

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusSettings {
    pub backend: BusBackend,
    pub kafka: KafkaSettings,
}

/// The engines that the settings name.
fn engines(config: &Config) -> Engines {
    let postgres = || PostgresSettings {
        program: PROGRAM,
        ..config.store.postgres.clone()
    };
    let kafka = || KafkaSettings {
        payload_rules: contract::topic::PAYLOAD_RULES,
        program: PROGRAM,
        ..config.bus.kafka.clone()
    };
    match (config.store.backend, config.bus.backend) {
        (StoreBackend::Sqlite, _) => Engines::Embedded(data_folder(&config.data)),
        (StoreBackend::Postgres, BusBackend::Local) => Engines::Postgres(postgres()),
        (StoreBackend::Postgres, BusBackend::Kafka) => {
            Engines::Kafka(postgres(), Box::new(kafka()))
        }
    }
}

/// Opens the store that the settings name.
///
/// # Errors
/// If it cannot be opened; for PostgreSQL also if `boxoffice migrate` has not run.
pub async fn open_store(config: &Config, metrics: Arc<Metrics>) -> Result<Store, StoreError> {
    engines(config).open_store(&tables(), metrics).await
}

/// What the library says and names on behalf of this program.
pub const PROGRAM: Program = Program {
    name: "boxoffice",
    folder_advice: "name another with --data or BOXOFFICE_DATA",
    migrate_advice: "run `boxoffice migrate`",
};

/// A data folder of this program.
#[must_use]
pub fn data_folder(path: &Path) -> DataFolder {
    DataFolder {
        path: path.to_owned(),
        program: PROGRAM,
    }
}

/// Like [`open_store`], for a command that has nothing to do if there is no store yet.
///
/// # Errors
/// If there is no data folder, or it is in use; otherwise see [`open_store`].
pub async fn open_existing(config: &Config) -> anyhow::Result<Store> {
    must_exist(config)?;
    let opened = open_store(config, Metrics::unregistered()).await;
    opened.context("the store cannot be opened")
}

/// # Errors
/// If the settings name a data folder that does not exist.
pub fn must_exist(config: &Config) -> anyhow::Result<()> {
    if config.store.backend == StoreBackend::Sqlite && !config.data.is_dir() {
        bail!("there is no data folder {}", config.data.display());
    }
    Ok(())
}

/// # Errors
/// If the folder cannot be created.
pub fn create_folder(data: &Path) -> anyhow::Result<()> {
    let reason = |error| anyhow!(messaging::sqlite::no_folder(&data_folder(data), &error));
    fs::create_dir_all(data).map_err(reason)
}

/// A snapshot of the store that the settings name; the store may be in use.
///
/// # Errors
/// If it cannot be read.
pub fn snapshot(config: &Config) -> Result<Snapshot, StoreError> {
    engines(config).snapshot()
}

/// Brings the tables up to date; returns what was done.
///
/// # Errors
/// If the server cannot be reached, or a table cannot be brought up to date.
pub async fn migrate(config: &Config) -> anyhow::Result<Vec<String>> {
    if config.store.backend == StoreBackend::Sqlite {
        bail!("the embedded store is brought up to date when it is opened: there is nothing to do");
    }
    let migrated = engines(config).migrate(&tables()).await;
    migrated.context("the setting store.postgres")
}

/// Opens the bus over a store.
///
/// # Errors
/// If the brokers cannot be reached, or their topics differ from the settings.
pub async fn open_bus(config: &Config, store: &Store) -> anyhow::Result<Bus> {
    if config.bus.backend == BusBackend::Kafka && !cfg!(feature = "kafka") {
        bail!(
            "the setting bus.backend is kafka, and this program was built without it: cargo build --features kafka"
        );
    }
    let (topics, groups) = (contract::topic::ALL, subscriptions());
    let opened = engines(config)
        .open_bus(store, topics, &groups, config.inbox_retention_secs())
        .await;
    opened.context("the setting bus.kafka")
}

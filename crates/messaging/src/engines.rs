//! The engines that a program runs over: where its records are kept, and how its messages travel. A closed choice, made
//! once; what follows from it, such as the role of the message table, is decided here. State: none.

use std::{path::Path, sync::Arc};

use crate::{
    Bus, DataFolder, Group, KafkaSettings, MessageTable, Metrics, Postgres, PostgresSettings,
    Snapshot, Store, StoreError, Table, bus::OpenError, dead_letters,
    housekeeping::CleaningSettings,
};

/// A store and a bus that work together.
#[derive(Debug, Clone)]
pub enum Engines {
    /// SQLite in this folder, which is also the bus: one process.
    Embedded(DataFolder),
    /// A schema of a PostgreSQL database, which is also the bus: one process.
    Postgres(PostgresSettings),
    /// PostgreSQL, and Kafka as the bus: any number of processes. Without the feature `kafka` only the store can be opened.
    Kafka(PostgresSettings, Box<KafkaSettings>),
}

impl Engines {
    #[must_use]
    pub fn embedded(folder: &(impl AsRef<Path> + ?Sized)) -> Self {
        Self::Embedded(folder.into())
    }

    /// The schema `name` of a database, with default settings.
    #[must_use]
    pub fn postgres(url: impl Into<String>, name: &str) -> Self {
        Self::Postgres(PostgresSettings {
            url: url.into(),
            schema: name.to_owned(),
            ..PostgresSettings::default()
        })
    }

    /// The schema `name` of a database, and topics and groups at these brokers that begin with `name` and a dot, with
    /// default settings.
    #[must_use]
    pub fn kafka(url: impl Into<String>, brokers: impl Into<String>, name: &str) -> Self {
        let kafka = KafkaSettings {
            brokers: brokers.into(),
            prefix: format!("{name}."),
            ..KafkaSettings::default()
        };
        let postgres = PostgresSettings {
            url: url.into(),
            schema: name.to_owned(),
            ..PostgresSettings::default()
        };
        Self::Kafka(postgres, Box::new(kafka))
    }

    /// For a program of one's own, with the default [`CleaningSettings`]: brings the tables up to date and opens store and
    /// bus, with these tables and consumer groups and the library's own. A topic that no group reads is not created.
    ///
    /// # Errors
    /// [`OpenError`] if an engine cannot be reached or used.
    pub async fn open(
        &self,
        tables: &[&'static Table],
        groups: &[Group],
    ) -> Result<(Store, Bus), OpenError> {
        let tables = [crate::TABLES, tables].concat();
        self.migrate(&tables).await?;
        let store = self.open_store(&tables, Metrics::unregistered()).await?;
        let groups = [groups, &[dead_letters::GROUP]].concat();
        let mut topics: Vec<_> = groups.iter().flat_map(|it| it.topics).copied().collect();
        topics.sort_unstable();
        topics.dedup();
        let inbox_secs = CleaningSettings::default().inbox_retention_secs;
        let bus = self.open_bus(&store, &topics, &groups, inbox_secs).await?;
        Ok((store, bus))
    }

    /// Brings the tables up to date; returns what was done. The embedded store does so when it is opened.
    ///
    /// # Errors
    /// As [`Postgres::migrate`].
    pub async fn migrate(&self, tables: &[&'static Table]) -> Result<Vec<String>, StoreError> {
        match self {
            Self::Embedded(_) => Ok(Vec::new()),
            Self::Postgres(settings) | Self::Kafka(settings, _) => {
                Postgres::migrate(settings, tables).await
            }
        }
    }

    /// Opens the store, with all tables of the program and [`TABLES`](crate::TABLES).
    ///
    /// # Errors
    /// As [`Store::open_embedded`] and [`Store::open_postgres`].
    pub async fn open_store(
        &self,
        tables: &[&'static Table],
        metrics: Arc<Metrics>,
    ) -> Result<Store, StoreError> {
        let (settings, messages) = match self {
            Self::Embedded(folder) => return Store::open_embedded(folder.clone(), tables, metrics),
            Self::Postgres(settings) => (settings, MessageTable::Log),
            Self::Kafka(settings, _) => (settings, MessageTable::Outbox),
        };
        let settings = PostgresSettings {
            messages,
            ..settings.clone()
        };
        Store::open_postgres(&settings, tables, metrics).await
    }

    /// Opens the bus over this store, with every topic and every group of the deployment.
    ///
    /// # Errors
    /// [`OpenError`], as `Kafka::open`; also if this program was built without the feature `kafka`.
    #[cfg_attr(
        not(feature = "kafka"),
        expect(unused_variables, clippy::unused_async, reason = "only Kafka is asked")
    )]
    pub async fn open_bus(
        &self,
        store: &Store,
        topics: &[&'static str],
        groups: &[Group],
        inbox_retention_secs: i64,
    ) -> Result<Bus, OpenError> {
        match self {
            Self::Embedded(_) | Self::Postgres(_) => Ok(Bus::Local(store.clone())),
            #[cfg(feature = "kafka")]
            Self::Kafka(_, settings) => {
                let settings = KafkaSettings::clone(settings);
                let opened =
                    crate::Kafka::open(settings, store, topics, groups, inbox_retention_secs);
                opened.await.map(Bus::Kafka)
            }
            #[cfg(not(feature = "kafka"))]
            Self::Kafka(..) => Err(OpenError::kafka(
                "this program was built without the feature `kafka`",
            )),
        }
    }

    /// The store as of now; it may be in use. This blocks its thread.
    ///
    /// # Errors
    /// As [`Snapshot::open`] and [`Snapshot::open_postgres`].
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        match self {
            Self::Embedded(folder) => Snapshot::open(folder.clone()),
            Self::Postgres(settings) | Self::Kafka(settings, _) => {
                Snapshot::open_postgres(settings)
            }
        }
    }
}

//! A deployment on PostgreSQL over a connection that can be cut, for the tests of both backends.

use std::time::Duration;

use messaging::{CommitError, Metrics, Postgres, PostgresSettings, Store, StoreError, Table};
use tempfile::TempDir;
use ticketing::reservations::Error;

use crate::{
    backend::Backend,
    line::Line,
    postgres::{self, Schema},
    suite::{Deployment, TTL_MILLIS},
};

/// A test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A fresh schema, reached over a connection that can be cut. Calls do not wait for a reconnect.
pub struct CuttableSchema {
    _schema: Schema,
    pub line: Line,
    pub settings: PostgresSettings,
}

impl CuttableSchema {
    pub async fn new() -> Self {
        let schema = Schema::new();
        let line = Line::lay(postgres::url()).await;
        let settings = PostgresSettings {
            url: line.url.clone(),
            wait_secs_max: 0,
            ..schema.settings.clone()
        };
        Self {
            _schema: schema,
            line,
            settings,
        }
    }
}

fn tables() -> Vec<&'static Table> {
    [messaging::TABLES, ticketing::TABLES].concat()
}

pub async fn open(settings: &PostgresSettings) -> Store {
    let opened = Store::open_postgres(settings, &tables(), Metrics::unregistered()).await;
    opened.unwrap()
}

pub async fn deploy(settings: &PostgresSettings, quantity: i64) -> Deployment {
    Postgres::migrate(settings, &tables()).await.unwrap();
    let (folder, store) = (TempDir::new().unwrap(), open(settings).await);
    Deployment::over(folder, store, Backend::new(TTL_MILLIS), quantity).await
}

pub fn is_unknown(error: &Error) -> bool {
    matches!(
        error,
        Error::Commit(CommitError::Store(StoreError::Unknown(_)))
    )
}

//! A PostgreSQL schema over a connection that can be cut. Calls do not wait for a reconnect.

use std::time::Duration;

use messaging::{Metrics, PostgresSettings, Store, Table};

use crate::{
    line::Line,
    postgres::{self, Schema},
};

/// A test that waits longer has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

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

pub async fn open(settings: &PostgresSettings, tables: &[&'static Table]) -> Store {
    let opened = Store::open_postgres(settings, tables, Metrics::unregistered()).await;
    opened.unwrap()
}

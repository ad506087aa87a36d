//! What an operator says about a PostgreSQL store.

use serde::Deserialize;

/// Where the store is, and how it is used.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresSettings {
    /// `postgres://user:password@host:port/database?sslmode=…`. `sslmode` is `disable`, `prefer`, `require` (encrypted,
    /// the server is not verified, as with libpq) or `verify-full` (the certificate must be valid for the host).
    /// `sslrootcert=FILE` names the authorities (PEM) to trust in place of the public ones.
    pub url: String,
    /// The schema that holds this service's tables; it is made by the migration. Lower case letters, digits and `_`.
    pub schema: String,
    /// Reading connections. The writer has one more of its own.
    pub connections_max: usize,
    /// What the message table is to this process.
    pub messages: MessageTable,
    /// How long a commit waits for a server that is away before its caller is told: that it was not applied, or that
    /// this is not known yet.
    pub wait_secs_max: u64,
}

/// What the message table is to the process that opens the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MessageTable {
    /// The bus itself ([`crate::Bus::Local`]): one process at a time reads and writes it.
    Log,
    /// Rows that another bus has yet to take ([`super::Postgres::pending`]); any number of processes write it.
    Outbox,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            schema: "boxoffice".to_owned(),
            connections_max: 8,
            messages: MessageTable::Log,
            wait_secs_max: 30,
        }
    }
}

/// The URL holds a password.
impl std::fmt::Debug for PostgresSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PostgresSettings")
            .field("schema", &self.schema)
            .field("connections_max", &self.connections_max)
            .field("messages", &self.messages)
            .field("wait_secs_max", &self.wait_secs_max)
            .finish_non_exhaustive()
    }
}

//! Settings of a PostgreSQL store.

use serde::Deserialize;

use crate::Program;

/// The location of the store, and how this process uses it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresSettings {
    /// `postgres://user:password@host:port/database?sslmode=…`. `sslmode` is `disable`, `prefer`, `require` (encrypted,
    /// the server is not verified, as with libpq) or `verify-full` (the certificate must be valid for the host).
    /// `sslrootcert=FILE` names the authorities (PEM) to trust in place of the public ones.
    pub url: String,
    /// The schema that holds this service's tables; the migration creates it. Lower case letters, digits and `_`.
    pub schema: String,
    /// Reading connections. The writer has one more of its own.
    pub connections_max: usize,
    /// The role of the message table.
    pub messages: MessageTable,
    /// Set by the program, not by an operator.
    #[serde(skip)]
    pub program: Program,
    /// How long a commit waits for an unreachable server before it fails: as not applied, or as not known yet.
    pub wait_secs_max: u64,
}

/// The role of the message table for the process that opens the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MessageTable {
    /// The bus itself ([`crate::Bus::Local`]): one process at a time reads and writes it.
    Log,
    /// Rows that another bus has yet to publish ([`super::Postgres::pending`]); any number of processes write it.
    Outbox,
}

impl Default for PostgresSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            schema: "messaging".to_owned(),
            program: Program::default(),
            connections_max: 8,
            messages: MessageTable::Log,
            wait_secs_max: 30,
        }
    }
}

/// Omits the URL, which holds a password.
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

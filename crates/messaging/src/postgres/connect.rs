//! Connections: one way in for the writer, the readers, the migration and the audit. State: none.

use std::{path::PathBuf, str::FromStr, time::Duration};

use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_postgres::{
    Client, Config, Error, NoTls, SimpleQueryMessage, config::SslMode, error::SqlState,
};

use super::{PostgresSettings, tls::Tls};
use crate::StoreError;

/// Times that two sessions are asked which connection of the server they have.
const SESSION_CHECKS: u32 = 3;
/// What a pooler that shares connections between sessions is refused with.
pub(super) const SHARED_SESSIONS: &str = "PostgreSQL is reached through a pooler that shares its connections between \
    sessions (PgBouncer: pool_mode = transaction or statement), and statements could go to another schema's tables: \
    connect to the server itself, or set pool_mode = session";
const CONNECT_SECS_MAX: u64 = 5;
/// Bytes that nobody acknowledges for this long mean that the server is gone.
const UNACKNOWLEDGED_SECS_MAX: u64 = 10;
const NAME_CHARS_MAX: usize = 63;

/// What every session needs. It must be the session's own: see [`Connector::is_shared`].
fn session_settings(schema: &str) -> String {
    // A process that was stopped in the middle of a transaction holds its locks no longer than this.
    format!(
        "SET search_path TO \"{schema}\"; SET idle_in_transaction_session_timeout = '10s'; \
         SET client_min_messages = warning"
    )
}

/// What a session is better off with, where the server knows it. A plan is made once and kept: it must not be one
/// that read a table whole because that was empty when the plan was made. Where nothing else can be done it is read
/// whole all the same, at a price that would have the statement compiled each time it runs, for a tenth of a second.
/// The keepalives end the session of a client that went without a word, and free what it had locked.
const GOOD_SETTINGS: [&str; 7] = [
    "SET jit = off",
    "SET enable_seqscan = off",
    "SET enable_hashjoin = off",
    "SET enable_mergejoin = off",
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 2",
    "SET tcp_keepalives_count = 3",
];

/// Opens connections to one schema.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    tls: Option<Tls>,
    schema: String,
}

impl Connector {
    pub(super) fn new(settings: &PostgresSettings) -> Result<Self, StoreError> {
        if !is_plain_name(&settings.schema) {
            return Err(StoreError::Unavailable(format!(
                "{:?} is no name for a schema: lower case letters, digits and _ only",
                settings.schema
            )));
        }
        let (url, mode, authorities) = split_tls(&settings.url);
        // The text of the error never repeats the URL, which holds a password.
        let mut config = Config::from_str(&url).map_err(|error| {
            StoreError::Unavailable(format!(
                "the URL of PostgreSQL cannot be read: {}",
                describe(&error)
            ))
        })?;
        config
            .application_name("boxoffice")
            .connect_timeout(Duration::from_secs(CONNECT_SECS_MAX))
            .keepalives_idle(Duration::from_secs(UNACKNOWLEDGED_SECS_MAX))
            .tcp_user_timeout(Duration::from_secs(UNACKNOWLEDGED_SECS_MAX));
        let no_tls = |error: String| StoreError::Unavailable(format!("TLS: {error}"));
        let unverified = || Tls::unverified().map_err(|error| no_tls(error.to_string()));
        let (ssl_mode, tls) = match mode.as_deref() {
            Some("disable") => (SslMode::Disable, None),
            None | Some("prefer") => (SslMode::Prefer, Some(unverified()?)),
            Some("require") => (SslMode::Require, Some(unverified()?)),
            Some("verify-full") => {
                let tls = Tls::verified(authorities.as_deref()).map_err(no_tls)?;
                (SslMode::Require, Some(tls))
            }
            Some(other) => {
                return Err(StoreError::Unavailable(format!(
                    "sslmode={other} is not known: disable, prefer, require or verify-full"
                )));
            }
        };
        config.ssl_mode(ssl_mode);
        let schema = settings.schema.clone();
        Ok(Self {
            config,
            tls,
            schema,
        })
    }

    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// A session in the schema. The connection is driven by a task of the runtime that this is called on.
    pub(super) async fn session(&self) -> Result<(Client, JoinHandle<()>), Error> {
        let (client, driver) = match &self.tls {
            None => {
                let (client, connection) = self.config.connect(NoTls).await?;
                (client, tokio::spawn(drive(connection)))
            }
            Some(tls) => {
                let (client, connection) = self.config.connect(tls.clone()).await?;
                (client, tokio::spawn(drive(connection)))
            }
        };
        client
            .batch_execute(&session_settings(&self.schema))
            .await?;
        if let Err(error) = client.batch_execute(&GOOD_SETTINGS.join("; ")).await {
            if error.as_db_error().is_none() {
                return Err(error);
            }
            // A server that speaks the protocol and lacks some of them takes the others.
            for setting in GOOD_SETTINGS {
                let taken = client.batch_execute(setting).await;
                taken.or_else(|error| error.as_db_error().map(|_| ()).ok_or(error))?;
            }
        }
        Ok((client, driver))
    }

    /// A session as for [`Connector::session`], which is refused if it shares its connection.
    pub(super) async fn own_session(&self) -> Result<(Client, JoinHandle<()>), StoreError> {
        let session = self.session().await.map_err(|error| unavailable(&error))?;
        match self.is_shared(&session.0).await {
            Ok(false) => Ok(session),
            Ok(true) => Err(StoreError::Unavailable(SHARED_SESSIONS.to_owned())),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// Whether a pooler gives this session's transactions to connections that other sessions have too. Settings of the
    /// session, prepared statements and advisory locks are then another's, or nobody's. A pooler shows by this: a
    /// session does not keep its connection, or another session is given the same one. Statements by the simple
    /// protocol: a prepared one is among what would be lost.
    pub(super) async fn is_shared(&self, session: &Client) -> Result<bool, Error> {
        let (other, _driver) = self.session().await?;
        for _ in 0..SESSION_CHECKS {
            let first = backend(session).await?;
            let second = backend(session).await?;
            let of_other = backend(&other).await?;
            if first != second || (first.is_some() && first == of_other) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Which connection of the server answers; `None` if the server does not tell its connections apart.
async fn backend(client: &Client) -> Result<Option<i64>, Error> {
    let answers = client.simple_query("SELECT pg_backend_pid()").await?;
    let told = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    });
    Ok(told.filter(|pid| *pid > 0))
}

impl deadpool_postgres::Connect for Connector {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        Box::pin(self.session())
    }
}

/// How its end is told: by the errors of whoever uses it.
async fn drive(connection: impl Future<Output = Result<(), Error>>) {
    if let Err(error) = connection.await {
        tracing::debug!(error = describe(&error), "a connection to PostgreSQL ended");
    }
}

fn is_plain_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    !name.is_empty()
        && name.len() <= NAME_CHARS_MAX
        && !name.starts_with(|first: char| first.is_ascii_digit())
        && name.bytes().all(plain)
}

/// Takes `sslmode` and `sslrootcert` out of a URL: the driver knows neither verification nor files.
fn split_tls(url: &str) -> (String, Option<String>, Option<PathBuf>) {
    let Some((front, query)) = url.split_once('?') else {
        return (url.to_owned(), None, None);
    };
    let (mut mode, mut authorities, mut kept) = (None, None, Vec::new());
    for parameter in query.split('&') {
        match parameter.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value.to_owned()),
            Some(("sslrootcert", value)) => authorities = Some(PathBuf::from(value)),
            Some(_) | None => kept.push(parameter),
        }
    }
    let query = kept.join("&");
    let mark = if query.is_empty() { "" } else { "?" };
    (format!("{front}{mark}{query}"), mode, authorities)
}

/// An error in one line: what the server said, or what the line broke with.
pub(super) fn describe(error: &Error) -> String {
    match error.as_db_error() {
        Some(told) => {
            // The details of a broken rule repeat the row.
            let is_about_row = ["22", "23"].contains(&&told.code().code()[..2]);
            let detail = told.detail().filter(|_| !is_about_row);
            let detail = detail.map_or_else(String::new, |detail| format!(": {detail}"));
            format!("{}{detail} ({})", told.message(), told.code().code())
        }
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(inner) = source {
                text = format!("{text}: {inner}");
                source = inner.source();
            }
            text
        }
    }
}

/// An error of a read.
pub(super) fn unavailable(error: &Error) -> StoreError {
    StoreError::Unavailable(describe(error))
}

/// Whether the same may succeed on another connection, or a moment later.
pub(super) fn may_pass(error: &Error) -> bool {
    match error.code() {
        None => true,
        Some(code) => {
            is_collision(error)
                || *code == SqlState::READ_ONLY_SQL_TRANSACTION
                || ["08", "53", "57", "58"].contains(&&code.code()[..2])
        }
    }
}

/// Whether two transactions stood in one another's way, and this one was undone for it.
pub(super) fn is_collision(error: &Error) -> bool {
    let collisions = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
    ];
    error.code().is_some_and(|code| collisions.contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_does_not_know_is_taken_out_of_the_url() {
        let url = "postgres://u:p@h:1/d?sslmode=verify-full&connect_timeout=3&sslrootcert=/ca.pem";
        let (kept, mode, authorities) = split_tls(url);
        assert_eq!(kept, "postgres://u:p@h:1/d?connect_timeout=3");
        assert_eq!(mode.as_deref(), Some("verify-full"));
        assert_eq!(authorities, Some(PathBuf::from("/ca.pem")));
    }

    #[test]
    fn a_schema_has_a_name_that_needs_no_quotes() {
        for (name, is_plain) in [
            ("ticketing_2", true),
            ("2b", false),
            ("a\"b", false),
            ("", false),
        ] {
            assert_eq!(is_plain_name(name), is_plain, "{name}");
        }
    }

    #[test]
    fn the_password_stays_out_of_errors_and_debug() {
        let settings = PostgresSettings {
            url: "postgres://u:secret@h:port/d".to_owned(),
            ..PostgresSettings::default()
        };
        let error = Connector::new(&settings).err().expect("no such port");
        assert!(
            !format!("{error} {settings:?}").contains("secret"),
            "{error}"
        );
    }
}

//! Opens connections for the writer, the readers, the migration and the audit. State: none.

use std::{path::PathBuf, str::FromStr, time::Duration};

use futures::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_postgres::{
    Client, Config, Error, NoTls, SimpleQueryMessage, config::SslMode, error::SqlState,
};

use super::{PostgresSettings, tls::Tls};
use crate::{Program, StoreError};

/// How often two sessions are asked for their server process, to recognise a pooler.
const SESSION_CHECKS: u32 = 3;
/// The error for a pooler that shares connections between sessions.
pub(super) const SHARED_SESSIONS: &str = "cannot use PostgreSQL through a pooler that shares its connections between \
    sessions (PgBouncer: pool_mode = transaction or statement), because statements could reach another schema's \
    tables; connect to the server itself, or set pool_mode = session";
const CONNECT_SECS_MAX: u64 = 5;
/// The server counts as failed if it does not acknowledge sent bytes for this long.
const UNACKNOWLEDGED_SECS_MAX: u64 = 10;
const NAME_CHARS_MAX: usize = 63;

/// Settings that every session needs and must not share: see [`Connector::is_shared`].
fn session_settings(schema: &str) -> String {
    // A process that stops during a transaction holds its locks no longer than this.
    format!(
        "SET search_path TO \"{schema}\"; SET idle_in_transaction_session_timeout = '10s'; \
         SET client_min_messages = warning"
    )
}

/// Settings that help if the server knows them. The server keeps a plan once made, so that it must not choose a
/// sequential scan because the table was empty at that time. If it has no other choice it still scans, at an estimated
/// cost that would start JIT compilation (0.1 s) in each run. The keepalives end the session of a client that vanished,
/// and free its locks.
const OPTIONAL_SETTINGS: [&str; 7] = [
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
    program: Program,
}

impl Connector {
    pub(super) fn new(settings: &PostgresSettings) -> Result<Self, StoreError> {
        if !is_plain_name(&settings.schema) {
            return Err(StoreError::Unavailable(format!(
                "{:?} is no valid schema name: use lower case letters, digits and _",
                settings.schema
            )));
        }
        let (url, mode, authorities) = split_tls(&settings.url);
        // The error text does not repeat the URL, which holds a password.
        let mut config = Config::from_str(&url).map_err(|error| {
            StoreError::Unavailable(format!(
                "cannot parse the URL of PostgreSQL: {}",
                describe(&error)
            ))
        })?;
        config
            .application_name(settings.program.name)
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
                    "sslmode={other} is not facts: disable, prefer, require or verify-full"
                )));
            }
        };
        config.ssl_mode(ssl_mode);
        let schema = settings.schema.clone();
        Ok(Self {
            config,
            tls,
            schema,
            program: settings.program,
        })
    }

    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    pub(super) fn program(&self) -> Program {
        self.program
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Opens a session in the schema. A task of the current runtime drives its connection.
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
        if let Err(error) = client.batch_execute(&OPTIONAL_SETTINGS.join("; ")).await {
            if error.as_db_error().is_none() {
                return Err(error);
            }
            // A server that lacks some of them gets the others.
            for setting in OPTIONAL_SETTINGS {
                let taken = client.batch_execute(setting).await;
                taken.or_else(|error| error.as_db_error().map(|_| ()).ok_or(error))?;
            }
        }
        Ok((client, driver))
    }

    /// As [`Connector::session`]; fails if the session shares its connection.
    pub(super) async fn own_session(&self) -> Result<(Client, JoinHandle<()>), StoreError> {
        let session = self.session().await.map_err(|error| unavailable(&error))?;
        match self.is_shared(&session.0).await {
            Ok(false) => Ok(session),
            Ok(true) => Err(StoreError::Unavailable(SHARED_SESSIONS.to_owned())),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// Whether a pooler gives this session's transactions to connections that other sessions use too. Session settings,
    /// prepared statements and advisory locks would then be lost or shared. The signs of such a pooler: a session changes
    /// its server process, or another session gets the same one. Uses the simple protocol, because prepared statements
    /// are among what would be lost.
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

/// The server process that answers; `None` if the server does not number them.
async fn backend(client: &Client) -> Result<Option<i64>, Error> {
    let answers = client.simple_query("SELECT pg_backend_pid()").await?;
    let pid = answers.iter().find_map(|answer| match answer {
        SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    });
    Ok(pid.filter(|pid| *pid > 0))
}

impl deadpool_postgres::Connect for Connector {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        Box::pin(self.session())
    }
}

/// The users of the connection report its end by their errors.
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

/// Takes `sslmode` and `sslrootcert` out of a URL: the driver supports neither verification nor files.
fn split_tls(url: &str) -> (String, Option<String>, Option<PathBuf>) {
    let Some((front, query)) = url.split_once('?') else {
        return (url.to_owned(), None, None);
    };
    let (mut mode, mut authorities, mut others) = (None, None, Vec::new());
    for parameter in query.split('&') {
        match parameter.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value.to_owned()),
            Some(("sslrootcert", value)) => authorities = Some(PathBuf::from(value)),
            Some(_) | None => others.push(parameter),
        }
    }
    let query = others.join("&");
    let separator = if query.is_empty() { "" } else { "?" };
    (format!("{front}{separator}{query}"), mode, authorities)
}

/// An error in one line: the server's message, or the chain of causes.
pub(super) fn describe(error: &Error) -> String {
    match error.as_db_error() {
        Some(error) => {
            // The detail of a broken constraint repeats the row.
            let is_about_row = ["22", "23"].contains(&&error.code().code()[..2]);
            let detail = error.detail().filter(|_| !is_about_row);
            let detail = detail.map_or_else(String::new, |detail| format!(": {detail}"));
            format!("{}{detail} ({})", error.message(), error.code().code())
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

/// Whether the same statement may succeed on another connection or a moment later.
pub(super) fn is_transient(error: &Error) -> bool {
    match error.code() {
        None => true,
        Some(code) => {
            is_contention(error)
                || *code == SqlState::READ_ONLY_SQL_TRANSACTION
                || ["08", "53", "57", "58"].contains(&&code.code()[..2])
        }
    }
}

/// Whether the server rolled this transaction back because of another one.
pub(super) fn is_contention(error: &Error) -> bool {
    let contention = [
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::LOCK_NOT_AVAILABLE,
    ];
    error.code().is_some_and(|code| contention.contains(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_parameters_that_the_driver_does_not_support_are_taken_out_of_the_url() {
        let url = "postgres://u:p@h:1/d?sslmode=verify-full&connect_timeout=3&sslrootcert=/ca.pem";
        let (kept, mode, authorities) = split_tls(url);
        assert_eq!(kept, "postgres://u:p@h:1/d?connect_timeout=3");
        assert_eq!(mode.as_deref(), Some("verify-full"));
        assert_eq!(authorities, Some(PathBuf::from("/ca.pem")));
    }

    #[test]
    fn a_schema_name_that_needs_quotes_is_rejected() {
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

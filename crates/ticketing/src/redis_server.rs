//! A Redis server (7.0 and later, or Valkey): its settings, and calls with a timeout. Owns one shared connection, which
//! reconnects by itself; a call on a broken connection fails and may be retried.

use std::{fmt, fs, path::PathBuf, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use messaging::StoreError;
use redis::{
    Client, Cmd, FromRedisValue, IntoConnectionInfo, Pipeline, ProtocolVersion, RedisError,
    RedisFuture, RedisResult, ScriptInvocation, TlsCertificates, Value,
    aio::{ConnectionLike, ConnectionManager, ConnectionManagerConfig},
};
use serde::Deserialize;

/// The oldest version that has every command used here and is tested.
const MAJOR_VERSION_MIN: u32 = 7;
/// The longest pause between two attempts to reconnect.
const RECONNECT_MILLIS_MAX: u64 = 500;

/// The address of the server, and its timeouts.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisSettings {
    /// `redis://user:password@host:port/database`; `rediss://` for TLS.
    pub url: String,
    /// Overrides the URL.
    pub username: Option<String>,
    pub password: Option<String>,
    /// A PEM file of certificate authorities, instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// The prefix of every key.
    pub prefix: String,
    pub connect_timeout_millis: u64,
    /// The timeout of one call, including a reconnect.
    pub call_timeout_millis: u64,
    /// Executes the commands in place of a server. Set by the program, not by an operator.
    #[serde(skip)]
    pub engine: Option<OtherRedis>,
}

/// Executes commands and scripts as Redis does.
pub trait RedisEngine: Send + Sync {
    fn execute(&self, command: &Cmd) -> BoxFuture<'static, RedisResult<Value>>;
}

/// What is used in place of a server.
#[derive(Clone)]
pub struct OtherRedis(pub Arc<dyn RedisEngine>);

impl PartialEq for OtherRedis {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for OtherRedis {}

impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: String::new(),
            username: None,
            password: None,
            ca_file: None,
            prefix: "ticketing".to_owned(),
            connect_timeout_millis: 1_000,
            call_timeout_millis: 2_000,
            engine: None,
        }
    }
}

/// The URL may hold a password.
impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisSettings")
            .field("ca_file", &self.ca_file)
            .field("prefix", &self.prefix)
            .field("connect_timeout_millis", &self.connect_timeout_millis)
            .field("call_timeout_millis", &self.call_timeout_millis)
            .finish_non_exhaustive()
    }
}

/// Why a server cannot be used. Each text names the setting, and none contains a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("the setting ticketing.redis.url is not redis://… or rediss://…")]
    Url(#[source] RedisError),
    #[error("the setting ticketing.redis.{0} cannot be empty or 0")]
    Empty(&'static str),
    #[error("the setting ticketing.redis.prefix cannot have braces, blanks or control characters")]
    Prefix,
    #[error("the setting ticketing.redis.ca_file: {path} cannot be used")]
    CaFile {
        path: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("the server of ticketing.redis.url cannot be reached")]
    Unreachable(#[source] RedisError),
    #[error("the server of ticketing.redis.url is of version {0}; {MAJOR_VERSION_MIN}.0 is needed")]
    TooOld(String),
}

impl RedisSettings {
    /// Checks the settings without connecting.
    ///
    /// # Errors
    /// [`ConnectError`] naming the setting.
    pub fn validate(&self) -> Result<(), ConnectError> {
        self.client().map(|_| ())
    }

    fn client(&self) -> Result<Client, ConnectError> {
        let sizes = [
            ("url", self.url.len() as u64),
            ("prefix", self.prefix.len() as u64),
            ("connect_timeout_millis", self.connect_timeout_millis),
            ("call_timeout_millis", self.call_timeout_millis),
        ];
        if let Some((name, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(ConnectError::Empty(name));
        }
        let is_odd = |it: char| matches!(it, '{' | '}') || it.is_whitespace() || it.is_control();
        if self.prefix.contains(is_odd) {
            return Err(ConnectError::Prefix);
        }
        let known = self
            .url
            .as_str()
            .into_connection_info()
            .map_err(ConnectError::Url)?;
        // With RESP3 a broken connection is reopened before the next call.
        let mut login = known
            .redis_settings()
            .clone()
            .set_protocol(ProtocolVersion::RESP3);
        if let Some(username) = &self.username {
            login = login.set_username(username);
        }
        if let Some(password) = &self.password {
            login = login.set_password(password);
        }
        let known = known.set_redis_settings(login);
        let Some(path) = &self.ca_file else {
            return Client::open(known).map_err(ConnectError::Url);
        };
        let unusable = |source| ConnectError::CaFile {
            path: path.display().to_string(),
            source,
        };
        let authorities = fs::read(path).map_err(|error| unusable(error.into()))?;
        let certificates = TlsCertificates {
            client_tls: None,
            root_cert: Some(authorities),
        };
        Client::build_with_tls(known, certificates).map_err(|error| unusable(error.into()))
    }
}

/// A server; clones share its connection.
#[derive(Clone)]
pub struct RedisServer {
    connection: Connection,
    call_timeout: Duration,
    prefix: Arc<str>,
}

#[derive(Clone)]
enum Connection {
    Managed(ConnectionManager),
    Other(OtherRedis),
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Managed(manager) => manager.req_packed_command(command),
            Self::Other(engine) => engine.0.execute(command),
        }
    }

    /// Nothing here sends a pipeline.
    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Managed(manager) => manager.req_packed_commands(pipeline, offset, count),
            Self::Other(_) => Box::pin(async { Ok(Vec::new()) }),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Managed(manager) => manager.get_db(),
            Self::Other(_) => 0,
        }
    }
}

impl RedisServer {
    /// # Errors
    /// [`ConnectError`] if a setting is invalid, or the server cannot be reached or is too old.
    pub async fn connect(settings: &RedisSettings) -> Result<Self, ConnectError> {
        let server = Self {
            connection: Self::open(settings).await?,
            call_timeout: Duration::from_millis(settings.call_timeout_millis),
            prefix: settings.prefix.as_str().into(),
        };
        server.check().await?;
        Ok(server)
    }

    async fn open(settings: &RedisSettings) -> Result<Connection, ConnectError> {
        if let Some(engine) = &settings.engine {
            return Ok(Connection::Other(engine.clone()));
        }
        let client = settings.client()?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_millis(settings.connect_timeout_millis)))
            .set_response_timeout(Some(Duration::from_millis(settings.call_timeout_millis)))
            .set_max_delay(Duration::from_millis(RECONNECT_MILLIS_MAX));
        ConnectionManager::new_with_config(client, config)
            .await
            .map(Connection::Managed)
            .map_err(ConnectError::Unreachable)
    }

    async fn check(&self) -> Result<(), ConnectError> {
        let mut connection = self.connection.clone();
        let info: String = redis::cmd("INFO")
            .query_async(&mut connection)
            .await
            .map_err(ConnectError::Unreachable)?;
        let field = |name: &str| {
            let mut lines = info.lines();
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.unwrap_or_default().to_owned()
        };
        // Valkey reports the version of Redis that it is compatible with.
        let version = field("redis_version");
        let major = version.split('.').next().unwrap_or_default();
        if major.parse::<u32>().unwrap_or(0) < MAJOR_VERSION_MIN {
            return Err(ConnectError::TooOld(version));
        }
        let policy = field("maxmemory_policy");
        if policy.starts_with("allkeys") {
            tracing::warn!(
                policy,
                "Redis may drop reservations when its memory is full; set maxmemory-policy to noeviction"
            );
        }
        Ok(())
    }

    /// The key with this deployment's prefix.
    #[must_use]
    pub fn key(&self, rest: impl fmt::Display) -> String {
        format!("{}:{rest}", self.prefix)
    }

    /// Calls a script, and loads it first if the server does not have it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]; the call may have been executed.
    pub async fn call<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection.clone();
        let called = script.invoke_async(&mut connection);
        in_time(self.call_timeout, called).await
    }

    /// # Errors
    /// As [`call`](Self::call).
    pub async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let mut connection = self.connection.clone();
        in_time(self.call_timeout, command.query_async(&mut connection)).await
    }
}

async fn in_time<T>(
    limit: Duration,
    call: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, StoreError> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(StoreError::Unavailable(format!("redis: {error}"))),
        Err(_) => Err(StoreError::Unavailable(
            "redis did not answer within the call timeout".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_setting_is_refused_by_its_name_and_without_its_secret() {
        let good = RedisSettings {
            url: "rediss://me:hush@localhost:6380/1".to_owned(),
            ..RedisSettings::default()
        };
        assert!(good.validate().is_ok());
        assert!(!format!("{good:?}").contains("hush"));
        let bad = [
            ("url", RedisSettings::default()),
            (
                "url",
                RedisSettings {
                    url: "http://:hush@x".to_owned(),
                    ..good.clone()
                },
            ),
            (
                "prefix",
                RedisSettings {
                    prefix: "a{b".to_owned(),
                    ..good.clone()
                },
            ),
            (
                "call_timeout_millis",
                RedisSettings {
                    call_timeout_millis: 0,
                    ..good.clone()
                },
            ),
            (
                "ca_file",
                RedisSettings {
                    ca_file: Some("/nowhere".into()),
                    ..good
                },
            ),
        ];
        for (name, settings) in bad {
            let text = settings.validate().unwrap_err().to_string();
            assert!(text.contains(&format!("ticketing.redis.{name}")), "{text}");
            assert!(!text.contains("hush"));
        }
    }
}

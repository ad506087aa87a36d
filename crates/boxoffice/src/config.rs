//! Settings, in layers: `default.toml` (compiled in, with comments), a file, the environment, flags; a later layer wins.
//!
//! An unknown setting or an invalid value is an error at start that names the setting. State: none.
//!
//! - [`valid`]: bounds, and settings that depend on each other

#[cfg(test)]
mod tests;
mod valid;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use config::{ConfigError, Environment, File, FileFormat};
use messaging::{DeadLetterSettings, housekeeping::CleaningSettings};
use serde::Deserialize;

use crate::{
    backends::{BusBackend, BusSettings, StoreSettings},
    services::Services,
};

/// The commented defaults.
pub const DEFAULT_TOML: &str = include_str!("default.toml");
/// The prefix of variables that are settings; [`is_setting`] lists the exceptions.
const ENV_PREFIX: &str = "BOXOFFICE";

/// The default retention of the inbox on the embedded bus.
const LOCAL_INBOX_SECS: i64 = 3_600;

/// All settings.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: SocketAddr,
    pub data: PathBuf,
    pub services: Services,
    pub store: StoreSettings,
    pub bus: BusSettings,
    pub http: HttpSettings,
    pub log: LogSettings,
    pub messaging: MessagingSettings,
    pub user: user::Settings,
    pub payment: payment::Settings,
    pub ticketing: ticketing::Settings,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    pub hosts: String,
    pub in_flight_max: usize,
    pub request_timeout_millis: u64,
    pub shutdown_timeout_millis: u64,
    pub idempotency_retention_secs: i64,
    pub bench_route: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogSettings {
    pub format: LogFormat,
    pub level: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessagingSettings {
    /// If absent, [`Config::inbox_retention_secs`] chooses.
    pub inbox_retention_secs: Option<i64>,
    pub dead_letter_retry_count_max: u32,
    pub dead_letter_retry_interval_millis: u64,
    pub dead_letter_retention_secs: i64,
}

/// The settings of the command line, which override all others.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub data: Option<PathBuf>,
    pub listen: Option<SocketAddr>,
    pub services: Option<Services>,
}

impl MessagingSettings {
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetterSettings {
        DeadLetterSettings {
            max_retry_count: self.dead_letter_retry_count_max,
            retry_interval_millis: self.dead_letter_retry_interval_millis,
        }
    }
}

impl Config {
    /// Merges the layers. `environment` is a parameter so that tests can pass their own.
    ///
    /// # Errors
    /// If a file cannot be read, a setting is unknown, or a value is invalid; the text names the setting.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &Flags,
    ) -> anyhow::Result<Self> {
        let variables = environment
            .into_iter()
            .filter(|(name, _)| is_setting(name))
            .collect();
        let mut layers =
            config::Config::builder().add_source(File::from_str(DEFAULT_TOML, FileFormat::Toml));
        if let Some(path) = file {
            layers = layers.add_source(File::from(path).format(FileFormat::Toml));
        }
        let layers = layers
            .add_source(
                Environment::with_prefix(ENV_PREFIX)
                    .prefix_separator("_")
                    .separator("__")
                    .source(Some(variables)),
            )
            .set_override_option(
                "data",
                flags.data.as_ref().map(|path| path.display().to_string()),
            )?
            .set_override_option("listen", flags.listen.map(|address| address.to_string()))?
            .set_override_option("services", flags.services.as_ref().map(Services::to_string))?
            .build()
            .map_err(unreadable)?;
        let config: Self = layers
            .clone()
            .try_deserialize()
            .context("cannot use the settings")?;
        valid::validate_limits(&layers)?;
        config.validate()?;
        Ok(config)
    }

    /// How long the inbox remembers a handled message. Default: an hour on the embedded bus, which never redelivers; with
    /// Kafka, as long as the broker may redeliver, which follows from the topics' retention.
    #[must_use]
    pub fn inbox_retention_secs(&self) -> i64 {
        let needed = match self.bus.backend {
            BusBackend::Kafka => self.bus.kafka.inbox_secs_min(),
            BusBackend::Local => LOCAL_INBOX_SECS,
        };
        self.messaging.inbox_retention_secs.unwrap_or(needed)
    }

    #[must_use]
    pub fn cleaning(&self) -> CleaningSettings {
        CleaningSettings {
            inbox_retention_secs: self.inbox_retention_secs(),
        }
    }
}

/// `BOXOFFICE_CONFIG` names the file of settings; `BOXOFFICE_TEST_…` are the addresses of the tests' engines.
fn is_setting(variable: &str) -> bool {
    variable != "BOXOFFICE_CONFIG" && !variable.starts_with("BOXOFFICE_TEST_")
}

/// Explains why a file cannot be parsed, without quoting the line: it may contain a password.
fn unreadable(error: ConfigError) -> anyhow::Error {
    let ConfigError::FileParse { uri, cause } = error else {
        return anyhow::Error::new(error).context("cannot read the settings");
    };
    let text = cause.to_string();
    let is_quoted = |line: &&str| {
        let text = line.trim_start_matches(|it: char| it == ' ' || it.is_ascii_digit());
        text.starts_with('|')
    };
    let reason: Vec<&str> = text.lines().filter(|line| !is_quoted(line)).collect();
    let file = uri.unwrap_or_default();
    anyhow::anyhow!("cannot parse the settings in {file}: {}", reason.join(": "))
}

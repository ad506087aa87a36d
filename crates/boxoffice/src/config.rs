//! Settings: `default.toml` (compiled in, every setting explained), under a file, under the environment, under flags.
//!
//! A setting that nobody knows, and a value that cannot be, stop the program at its start with the setting's name.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use config::{Environment, File, FileFormat};
use messaging::{DeadLetterSettings, housekeeping::CleaningSettings};
use serde::Deserialize;

/// The commented defaults.
pub const DEFAULT_TOML: &str = include_str!("default.toml");
/// Variables with this in front are settings, all but those in [`NOT_SETTINGS`].
const ENV_PREFIX: &str = "BOXOFFICE";
/// Names the file itself, so it cannot stand in one.
const NOT_SETTINGS: &[&str] = &["BOXOFFICE_CONFIG"];

/// Everything that can be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: SocketAddr,
    pub data: PathBuf,
    pub http: HttpSettings,
    pub log: LogSettings,
    pub messaging: MessagingSettings,
    pub payment: payment::Settings,
    pub ticketing: ticketing::Settings,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpSettings {
    pub in_flight_max: usize,
    pub request_timeout_millis: u64,
    pub shutdown_timeout_millis: u64,
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
    pub inbox_retention_secs: i64,
    pub dead_letter_retry_count_max: u32,
    pub dead_letter_retry_interval_millis: u64,
}

/// What the command line says over everything else.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub data: Option<PathBuf>,
    pub listen: Option<SocketAddr>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            in_flight_max: 4096,
            request_timeout_millis: 60_000,
            shutdown_timeout_millis: 30_000,
            bench_route: false,
        }
    }
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}

impl Default for MessagingSettings {
    fn default() -> Self {
        let dead_letters = DeadLetterSettings::default();
        Self {
            inbox_retention_secs: 3_600,
            dead_letter_retry_count_max: dead_letters.max_retry_count,
            dead_letter_retry_interval_millis: dead_letters.retry_interval_millis,
        }
    }
}

impl MessagingSettings {
    #[must_use]
    pub fn dead_letters(&self) -> DeadLetterSettings {
        DeadLetterSettings {
            max_retry_count: self.dead_letter_retry_count_max,
            retry_interval_millis: self.dead_letter_retry_interval_millis,
        }
    }

    #[must_use]
    pub fn cleaning(&self) -> CleaningSettings {
        CleaningSettings {
            inbox_retention_secs: self.inbox_retention_secs,
        }
    }
}

impl Config {
    /// The layers, one over the other. `environment` is handed in, so that a test has one of its own.
    ///
    /// # Errors
    /// Where a file cannot be read, a setting is unknown, or a value cannot be; the text names the setting.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: &Flags,
    ) -> anyhow::Result<Self> {
        let variables = environment
            .into_iter()
            .filter(|(name, _)| !NOT_SETTINGS.contains(&name.as_str()))
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
            .build()
            .context("the settings cannot be read")?;
        let config: Self = layers
            .try_deserialize()
            .context("the settings cannot be used")?;
        config.validate()?;
        Ok(config)
    }

    /// What a type cannot say.
    fn validate(&self) -> anyhow::Result<()> {
        self.validate_limits()?;
        let gateway_millis = self.payment.gateway.request_timeout_millis;
        if self.http.request_timeout_millis <= gateway_millis {
            bail!(
                "the setting http.request_timeout_millis must be more than \
                 payment.gateway.request_timeout_millis ({gateway_millis})"
            );
        }
        let grace_millis = self.ticketing.hold_grace_secs.saturating_mul(1000);
        if grace_millis <= i64::try_from(gateway_millis).unwrap_or(i64::MAX) {
            bail!(
                "the setting ticketing.hold_grace_secs must be longer than \
                 payment.gateway.request_timeout_millis ({gateway_millis})"
            );
        }
        if let Err(error) = self.log.level.parse::<tracing_subscriber::EnvFilter>() {
            bail!(
                "the setting log.level cannot be {:?}: {error}",
                self.log.level
            );
        }
        Ok(())
    }

    fn validate_limits(&self) -> anyhow::Result<()> {
        let positive = |value: i64| u64::try_from(value).unwrap_or(0);
        let at_least_one = [
            ("http.in_flight_max", self.http.in_flight_max as u64),
            (
                "http.request_timeout_millis",
                self.http.request_timeout_millis,
            ),
            (
                "http.shutdown_timeout_millis",
                self.http.shutdown_timeout_millis,
            ),
            (
                "messaging.inbox_retention_secs",
                positive(self.messaging.inbox_retention_secs),
            ),
            (
                "messaging.dead_letter_retry_interval_millis",
                self.messaging.dead_letter_retry_interval_millis,
            ),
            (
                "ticketing.hold_ttl_secs",
                positive(self.ticketing.hold_ttl_secs),
            ),
        ];
        if let Some((name, _)) = at_least_one.iter().find(|(_, value)| *value == 0) {
            bail!("the setting {name} must be at least 1");
        }
        Ok(())
    }
}

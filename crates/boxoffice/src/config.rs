//! Settings: `default.toml` (compiled in, every setting explained), under a file, under the environment, under flags.
//!
//! A setting that nobody knows, and a value that cannot be, stop the program at its start with the setting's name.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use config::{ConfigError, Environment, File, FileFormat};
use messaging::{DeadLetterSettings, housekeeping::CleaningSettings};
use serde::Deserialize;

use crate::{
    backends::{BusBackend, BusSettings, StoreBackend, StoreSettings},
    services::Services,
};

/// The commented defaults.
pub const DEFAULT_TOML: &str = include_str!("default.toml");
/// Variables with this in front are settings, all but those in [`NOT_SETTINGS`].
const ENV_PREFIX: &str = "BOXOFFICE";
/// Names the file itself, so it cannot stand in one.
const NOT_SETTINGS: &[&str] = &["BOXOFFICE_CONFIG"];

/// How long handled messages are remembered on the embedded bus.
const LOCAL_INBOX_SECS: i64 = 3_600;

/// Everything that can be set.
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
    /// Absent: what the bus needs, see [`Config::inbox_retention_secs`].
    pub inbox_retention_secs: Option<i64>,
    pub dead_letter_retry_count_max: u32,
    pub dead_letter_retry_interval_millis: u64,
    pub dead_letter_retention_secs: i64,
}

/// What the command line says over everything else.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub data: Option<PathBuf>,
    pub listen: Option<SocketAddr>,
    pub services: Option<Services>,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            in_flight_max: 4096,
            request_timeout_millis: 60_000,
            shutdown_timeout_millis: 30_000,
            idempotency_retention_secs: 86_400,
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
            inbox_retention_secs: None,
            dead_letter_retry_count_max: dead_letters.max_retry_count,
            dead_letter_retry_interval_millis: dead_letters.retry_interval_millis,
            dead_letter_retention_secs: 604_800,
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
            .set_override_option("services", flags.services.as_ref().map(Services::to_string))?
            .build()
            .map_err(unreadable)?;
        let config: Self = layers
            .try_deserialize()
            .context("the settings cannot be used")?;
        config.validate()?;
        Ok(config)
    }

    /// How long a handled message is remembered. Where nothing is said, an hour on the embedded bus, which hands out
    /// nothing twice by itself; with Kafka as long as its topics may deliver a message again, whatever their retention is
    /// set to: a fixed default would be wrong with each other retention.
    #[must_use]
    pub fn inbox_retention_secs(&self) -> i64 {
        let needed = match self.bus.backend {
            #[cfg(feature = "kafka")]
            BusBackend::Kafka => self.bus.kafka.inbox_secs_min(),
            #[cfg(not(feature = "kafka"))]
            BusBackend::Kafka => LOCAL_INBOX_SECS,
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

    /// What a type cannot say.
    fn validate(&self) -> anyhow::Result<()> {
        self.validate_limits()?;
        self.validate_engines()?;
        let gateway_millis = self.payment.gateway.request_timeout_millis;
        if self.http.request_timeout_millis <= gateway_millis {
            bail!(
                "the setting http.request_timeout_millis must be more than \
                 payment.gateway.request_timeout_millis ({gateway_millis})"
            );
        }
        let grace_millis = self.ticketing.hold_grace_secs.saturating_mul(1000);
        let together = gateway_millis.saturating_add(self.payment.gateway.connect_timeout_millis);
        if grace_millis <= i64::try_from(together).unwrap_or(i64::MAX) {
            bail!(
                "the setting ticketing.hold_grace_secs must be longer than \
                 payment.gateway.connect_timeout_millis and request_timeout_millis together ({together})"
            );
        }
        self.ticketing.validate()?;
        if let Err(error) = self.log.level.parse::<tracing_subscriber::EnvFilter>() {
            bail!(
                "the setting log.level cannot be {:?}: {error}",
                self.log.level
            );
        }
        Ok(())
    }

    /// Which engines go together.
    fn validate_engines(&self) -> anyhow::Result<()> {
        let is_shared = self.bus.backend == BusBackend::Kafka;
        if is_shared && self.store.backend != StoreBackend::Postgres {
            bail!("the setting bus.backend is kafka: store.backend must be postgres");
        }
        let is_local = self.ticketing.reservations == ticketing::ReservationsBackend::Local;
        if is_shared && is_local {
            bail!("the setting bus.backend is kafka: ticketing.reservations must be redis");
        }
        if !self.services.is_all() && !is_shared {
            bail!(
                "the setting services is {}: bus.backend must be kafka",
                self.services
            );
        }
        if self.store.backend == StoreBackend::Postgres && self.store.postgres.url.is_empty() {
            bail!("the setting store.postgres.url is missing");
        }
        match self.bus.backend {
            #[cfg(feature = "kafka")]
            BusBackend::Kafka => self.validate_kafka(),
            // A program that was built without it says so when it opens the bus.
            #[cfg(not(feature = "kafka"))]
            BusBackend::Kafka => Ok(()),
            BusBackend::Local => Ok(()),
        }
    }

    /// Kafka's settings by themselves, and beside those that they depend on.
    #[cfg(feature = "kafka")]
    fn validate_kafka(&self) -> anyhow::Result<()> {
        let kafka = &self.bus.kafka;
        if let Err(error) = kafka.validate() {
            bail!("the setting bus.kafka.{error}");
        }
        // A batch that waits for PostgreSQL makes no attempt meanwhile, and must not be taken for one that stalled.
        let (wait, stall) = (self.store.postgres.wait_secs_max, kafka.stall_secs_max);
        if wait >= stall {
            bail!(
                "the setting store.postgres.wait_secs_max ({wait}) must be less than bus.kafka.stall_secs_max ({stall})"
            );
        }
        let (inbox, needed) = (self.inbox_retention_secs(), kafka.inbox_secs_min());
        if inbox < needed {
            bail!(
                "the setting messaging.inbox_retention_secs is {inbox}: with bus.kafka.retention_secs ({}) a message may \
                 come again after {needed} seconds",
                kafka.retention_secs
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
                positive(self.inbox_retention_secs()),
            ),
            (
                "messaging.dead_letter_retry_interval_millis",
                self.messaging.dead_letter_retry_interval_millis,
            ),
            (
                "payment.retry_millis_min",
                self.payment
                    .retry_millis_min
                    .min(self.payment.retry_millis_max),
            ),
            (
                "payment.webhook_retention_secs",
                positive(self.payment.webhook_retention_secs),
            ),
            (
                "payment.reconciliation_retention_secs",
                positive(self.payment.reconciliation_retention_secs),
            ),
            (
                "http.idempotency_retention_secs",
                positive(self.http.idempotency_retention_secs),
            ),
            (
                "messaging.dead_letter_retention_secs",
                positive(self.messaging.dead_letter_retention_secs),
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

/// Why a file cannot be read, without the line that it stumbled over: there may be a password in it.
fn unreadable(error: ConfigError) -> anyhow::Error {
    let ConfigError::FileParse { uri, cause } = error else {
        return anyhow::Error::new(error).context("the settings cannot be read");
    };
    let told = cause.to_string();
    let is_quoted = |line: &&str| {
        let text = line.trim_start_matches(|it: char| it == ' ' || it.is_ascii_digit());
        text.starts_with('|')
    };
    let told: Vec<&str> = told.lines().filter(|line| !is_quoted(line)).collect();
    let file = uri.unwrap_or_default();
    anyhow::anyhow!("the settings in {file} cannot be read: {}", told.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_toml_is_told_of_without_what_stands_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("boxoffice.toml");
        let text = "[store.postgres]\nurl = \"postgres://u:secret@h/d\" and more\n";
        std::fs::write(&path, text).unwrap();
        let flags = Flags::default();
        let error = Config::load(Some(&path), [], &flags).err().unwrap();
        let told = format!("{error:#}");
        assert!(
            told.contains("boxoffice.toml") && told.contains("line 2"),
            "{told}"
        );
        assert!(!told.contains("secret"), "{told}");
    }

    fn load(file: &str, environment: &[(&str, &str)], flags: &Flags) -> anyhow::Result<Config> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("settings");
        std::fs::write(&path, file).unwrap();
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(Some(&path), environment, flags)
    }

    /// What the caller reads, all causes in one line.
    fn refusal(file: &str, environment: &[(&str, &str)]) -> String {
        let error = load(file, environment, &Flags::default()).unwrap_err();
        format!("{error:#}")
    }

    #[test]
    fn the_commented_defaults_are_the_defaults() {
        let config = Config::load(None, [], &Flags::default()).unwrap();
        assert_eq!(config.http, HttpSettings::default());
        assert_eq!(config.log, LogSettings::default());
        assert_eq!(config.messaging, MessagingSettings::default());
        assert_eq!(config.user, user::Settings::default());
        assert_eq!(config.ticketing, ticketing::Settings::default());
        #[cfg(feature = "kafka")]
        assert_eq!(config.bus.kafka, messaging::KafkaSettings::default());
        let payment = payment::Settings::default();
        assert_eq!(format!("{:?}", config.payment), format!("{payment:?}"));
    }

    #[test]
    fn each_layer_stands_over_the_one_before() {
        let file = "listen = '127.0.0.1:2'\ndata = 'file'\n[http]\nin_flight_max = 2";
        let environment = [
            ("BOXOFFICE_LISTEN", "127.0.0.1:3"),
            ("BOXOFFICE_HTTP__IN_FLIGHT_MAX", "3"),
        ];
        let flags = Flags {
            data: None,
            listen: Some(([127, 0, 0, 1], 4).into()),
            services: None,
        };
        let ports = |config: Config| (config.listen.port(), config.http.in_flight_max, config.data);

        let none = Flags::default();
        assert_eq!(
            ports(load("", &[], &none).unwrap()),
            (8080, 4096, "data".into())
        );
        assert_eq!(
            ports(load(file, &[], &none).unwrap()),
            (2, 2, "file".into())
        );
        assert_eq!(
            ports(load(file, &environment, &none).unwrap()),
            (3, 3, "file".into())
        );
        assert_eq!(
            ports(load(file, &environment, &flags).unwrap()),
            (4, 3, "file".into())
        );
    }

    #[test]
    fn every_section_can_be_set_from_the_environment() {
        let environment = [
            ("BOXOFFICE_CONFIG", "names the file, and is no setting"),
            ("BOXOFFICE_DATA", "1234"),
            ("BOXOFFICE_LOG__FORMAT", "json"),
            ("BOXOFFICE_HTTP__BENCH_ROUTE", "true"),
            ("BOXOFFICE_MESSAGING__INBOX_RETENTION_SECS", "7"),
            ("BOXOFFICE_USER__FRAUD__AMOUNT_MAX", "5000"),
            ("BOXOFFICE_PAYMENT__GATEWAY__SECRET_KEY", "1234"),
            ("BOXOFFICE_TICKETING__HOLD_TTL_SECS", "60"),
            ("PATH", "/bin"),
        ];
        let config = load("", &environment, &Flags::default()).unwrap();
        assert_eq!(config.data, Path::new("1234"));
        assert_eq!(config.log.format, LogFormat::Json);
        assert!(config.http.bench_route);
        assert_eq!(config.inbox_retention_secs(), 7);
        assert_eq!(
            config.user.fraud.amount_max.map(contract::Money::get),
            Some(5000)
        );
        assert_eq!(
            config.payment.gateway.secret_key,
            payment::gateway::SecretKey::new("1234")
        );
        assert_eq!(config.ticketing.hold_ttl_secs, 60);
    }

    #[test]
    fn an_unknown_setting_is_refused_by_its_name() {
        for (file, name) in [
            ("colour = 'red'", "colour"),
            ("[http]\ncolour = 'red'", "colour"),
            ("[colour]\nred = 1", "colour"),
            ("[user.fraud]\ncolour = 1", "colour"),
            ("[payment.gateway]\ncolour = 1", "colour"),
            ("[ticketing]\nhold_ttl_sec = 1", "hold_ttl_sec"),
        ] {
            let text = refusal(file, &[]);
            assert!(text.contains(name), "{file:?}: {text}");
        }
        let text = refusal("", &[("BOXOFFICE_HTTP__COLOUR", "red")]);
        assert!(text.contains("colour"), "{text}");
        let text = refusal("", &[("BOXOFFICE_LISTENS", "x")]);
        assert!(text.contains("listens"), "{text}");
    }

    #[test]
    fn a_value_that_cannot_be_is_refused_by_its_settings_name() {
        for (file, name) in [
            ("listen = 'nowhere'", "listen"),
            ("listen = 8080", "listen"),
            ("[http]\nin_flight_max = 'many'", "http.in_flight_max"),
            ("[http]\nin_flight_max = -1", "http.in_flight_max"),
            ("[http]\nin_flight_max = 0", "http.in_flight_max"),
            (
                "[http]\nrequest_timeout_millis = 10000",
                "http.request_timeout_millis",
            ),
            ("[log]\nformat = 'xml'", "log.format"),
            ("[log]\nlevel = 'a=b=c'", "log.level"),
            (
                "[messaging]\ninbox_retention_secs = -5",
                "messaging.inbox_retention_secs",
            ),
            ("[payment]\nsandbox = 'perhaps'", "payment.sandbox"),
            ("[ticketing]\nhold_ttl_secs = 0", "ticketing.hold_ttl_secs"),
            (
                "[ticketing]\nhold_grace_secs = 10",
                "ticketing.hold_grace_secs",
            ),
            (
                "[ticketing]\nreservations = 'elsewhere'",
                "ticketing.reservations",
            ),
            ("[ticketing]\nreservations = 'redis'", "ticketing.redis.url"),
            (
                "[ticketing]\nreservations = 'redis'\n[ticketing.redis]\nurl = 'http://x'",
                "ticketing.redis.url",
            ),
            (
                "[user.fraud]\npurchases_max = 300",
                "user.fraud.purchases_max",
            ),
            ("[user.fraud]\namount_max = -1", "user.fraud.amount_max"),
        ] {
            let text = refusal(file, &[]);
            assert!(text.contains(name), "{file:?}: {text}");
        }
        let text = refusal("", &[("BOXOFFICE_HTTP__IN_FLIGHT_MAX", "many")]);
        assert!(text.contains("http.in_flight_max"), "{text}");
        let text = refusal("nonsense", &[]);
        assert!(text.contains("settings"), "{text}");
    }

    #[test]
    fn a_secret_is_never_printed() {
        let secrets = [
            ("BOXOFFICE_PAYMENT__GATEWAY__SECRET_KEY", "live_sk_1234"),
            ("BOXOFFICE_TICKETING__RESERVATIONS", "redis"),
            (
                "BOXOFFICE_TICKETING__REDIS__URL",
                "redis://:live_sk_1234@h:1",
            ),
            ("BOXOFFICE_TICKETING__REDIS__PASSWORD", "live_sk_1234"),
        ];
        let config = load("", &secrets, &Flags::default()).unwrap();
        assert!(!format!("{config:?}").contains("live_sk_1234"));
    }

    /// Everything that turning Kafka on needs.
    #[cfg(feature = "kafka")]
    const OVER_KAFKA: &str = "[store]\nbackend = 'postgres'\n[store.postgres]\nurl = 'postgres://h/d'\n\
        [ticketing]\nreservations = 'redis'\n[ticketing.redis]\nurl = 'redis://h'\n[bus]\nbackend = 'kafka'\n";

    #[cfg(feature = "kafka")]
    #[test]
    fn kafka_needs_its_brokers_and_no_other_setting_of_its_own() {
        let file = format!("{OVER_KAFKA}[bus.kafka]\nbrokers = 'h:9092'\n");
        let config = load(&file, &[], &Flags::default()).unwrap();
        assert_eq!(config.inbox_retention_secs(), 108_600);
        // Another retention of the topics is followed by itself.
        let config = load(&(file + "retention_secs = 3600"), &[], &Flags::default()).unwrap();
        assert_eq!(config.cleaning().inbox_retention_secs, 5_100);
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn what_cannot_be_with_kafka_is_refused_by_its_settings_name() {
        for (more, name) in [
            ("", "bus.kafka.brokers"),
            ("brokers = ' '", "bus.kafka.brokers"),
            ("partitions = 0", "bus.kafka.partitions"),
            ("replication = 0", "bus.kafka.replication"),
            ("retention_secs = 0", "bus.kafka.retention_secs"),
            ("dead_letter_brokers = ''", "bus.kafka.dead_letter_brokers"),
            ("stall_secs_max = 30", "store.postgres.wait_secs_max"),
            ("revoke_millis_max = 60000", "bus.kafka.revoke_millis_max"),
            ("colour = 'red'", "colour"),
            ("[bus.kafka.security]\ncolour = 'red'", "colour"),
            (
                "[messaging]\ninbox_retention_secs = 108599",
                "messaging.inbox_retention_secs",
            ),
        ] {
            let brokers = if name == "bus.kafka.brokers" {
                ""
            } else {
                "brokers = 'h:9092'"
            };
            let file = format!("{OVER_KAFKA}[bus.kafka]\n{brokers}\n{more}");
            let text = refusal(&file, &[]);
            assert!(text.contains(name), "{more:?}: {text}");
        }
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn secrets_of_kafka_come_from_the_environment_and_are_never_printed() {
        let secrets = [
            ("BOXOFFICE_BUS__KAFKA__SECURITY__PROTOCOL", "sasl_ssl"),
            ("BOXOFFICE_BUS__KAFKA__SECURITY__SASL_PASSWORD", "20261122"),
            (
                "BOXOFFICE_BUS__KAFKA__SECURITY__SSL_KEY_PASSWORD",
                "20261122",
            ),
        ];
        let config = load("", &secrets, &Flags::default()).unwrap();
        let security = &config.bus.kafka.security;
        assert_eq!(security.sasl_password.as_deref(), Some("20261122"));
        assert_eq!(security.ssl_key_password.as_deref(), Some("20261122"));
        assert!(!format!("{config:?}").contains("20261122"));
    }
}

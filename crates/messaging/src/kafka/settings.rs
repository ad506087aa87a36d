//! What an operator says about Kafka.

use std::collections::HashMap;

use rdkafka::ClientConfig;
use serde::Deserialize;

use super::{InitialOffset, identity::MessageIdentity};
use crate::{PayloadRules, lenient::Zone};

/// How long a broker may keep a record beyond its retention: the rest of its segment, and the pause between two looks.
const RETENTION_SLACK_SECS: i64 = 600;

/// Kafka's `max.poll.interval.ms`: a consumer that waits longer is taken for dead.
const POLL_INTERVAL_MILLIS_MAX: u64 = 300_000;

/// Where the brokers are, and how they are used.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSettings {
    /// `host:port`, several with commas between.
    pub brokers: String,
    /// Brokers for dead letters alone; absent, they go to `brokers`.
    pub dead_letter_brokers: Option<String>,
    /// Stands in front of every topic and every group, so that several deployments can share the brokers.
    pub prefix: String,
    /// Of a topic that is made here. An existing one may have more, not fewer.
    pub partitions: i32,
    /// Copies of each partition of a topic that is made here.
    pub replication: i32,
    /// How long a topic that is made here keeps its records.
    pub retention_secs: i64,
    /// `ce_source` of every message: a URI that names this deployment.
    pub source: String,
    /// What names a message for services that read no headers.
    pub message_identity: MessageIdentity,
    /// Of times in messages that name no zone: `UTC`, an offset (`+09:00`), or a name (`Asia/Seoul`).
    pub zone: String,
    /// The program's own, not a setting.
    #[serde(skip)]
    pub payload_rules: PayloadRules,
    /// A consumer that was not heard of for so long gives its partitions to the others.
    pub session_timeout_millis: u32,
    /// How far the brokers' knowledge of what was handled may be behind; redelivery costs a look into the inbox.
    pub commit_interval_millis: u32,
    /// How long a revoked partition waits for the batch in hand. Less than `stall_secs_max`, and than Kafka's
    /// `max.poll.interval.ms` of five minutes.
    pub revoke_millis_max: u64,
    /// A consumer that did not poll, or a batch that made no attempt, for so long: the process must end.
    pub stall_secs_max: u64,
    /// A row that nobody published for so long is the relay's.
    pub relay_after_millis: i64,
    /// How long the relay's lease stands without renewal.
    pub relay_lease_millis: i64,
    /// Where a group that is new at the brokers begins, on topics that have records already. Absent: the process does
    /// not start there.
    pub initial_offset: Option<InitialOffset>,
    pub security: KafkaSecurity,
}

/// TLS and authentication, in librdkafka's words.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSecurity {
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`; absent: `plaintext`.
    pub protocol: Option<String>,
    /// The authorities (PEM) to trust in place of the system's.
    pub ssl_ca_location: Option<String>,
    /// This client's certificate and key (PEM), where the brokers ask for them.
    pub ssl_certificate_location: Option<String>,
    pub ssl_key_location: Option<String>,
    /// Of the key, where it is encrypted.
    pub ssl_key_password: Option<String>,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub sasl_mechanism: Option<String>,
    pub sasl_username: Option<String>,
    pub sasl_password: Option<String>,
}

/// Why a setting cannot be: its name stands in front.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} {reason}")]
pub struct InvalidSetting {
    pub name: &'static str,
    pub reason: String,
}

/// The passwords are secrets.
impl std::fmt::Debug for KafkaSecurity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaSecurity")
            .field("protocol", &self.protocol)
            .field("ssl_ca_location", &self.ssl_ca_location)
            .field("ssl_certificate_location", &self.ssl_certificate_location)
            .field("sasl_mechanism", &self.sasl_mechanism)
            .field("sasl_username", &self.sasl_username)
            .finish_non_exhaustive()
    }
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            dead_letter_brokers: None,
            prefix: String::new(),
            partitions: 8,
            replication: 1,
            retention_secs: 86_400,
            source: "/boxoffice".to_owned(),
            message_identity: MessageIdentity::default(),
            zone: "UTC".to_owned(),
            payload_rules: PayloadRules::default(),
            session_timeout_millis: 10_000,
            commit_interval_millis: 500,
            revoke_millis_max: 10_000,
            stall_secs_max: 60,
            relay_after_millis: 5_000,
            relay_lease_millis: 15_000,
            initial_offset: None,
            security: KafkaSecurity::default(),
        }
    }
}

impl KafkaSettings {
    /// Whether these settings can work at all; the brokers are not asked.
    ///
    /// # Errors
    /// The first setting that cannot be.
    pub fn validate(&self) -> Result<(), InvalidSetting> {
        let wrong = |name, reason: &str| {
            let reason = reason.to_owned();
            Err(InvalidSetting { name, reason })
        };
        if self.brokers.trim().is_empty() {
            return wrong("brokers", "is missing");
        }
        if let Some("") = self.dead_letter_brokers.as_deref().map(str::trim) {
            return wrong("dead_letter_brokers", "is empty");
        }
        if self.source.is_empty() {
            return wrong("source", "is missing");
        }
        if let Err(error) = self.zone.parse::<Zone>() {
            return wrong("zone", &format!("cannot be used: {error}"));
        }
        let at_least_one = [
            ("partitions", i64::from(self.partitions)),
            ("replication", i64::from(self.replication)),
            ("retention_secs", self.retention_secs),
            ("session_timeout_millis", self.session_timeout_millis.into()),
            ("commit_interval_millis", self.commit_interval_millis.into()),
            (
                "stall_secs_max",
                i64::try_from(self.stall_secs_max).unwrap_or(i64::MAX),
            ),
            ("relay_after_millis", self.relay_after_millis),
            ("relay_lease_millis", self.relay_lease_millis),
        ];
        if let Some((name, _)) = at_least_one.into_iter().find(|(_, value)| *value < 1) {
            return wrong(name, "must be at least 1");
        }
        let stall_millis = self.stall_secs_max.saturating_mul(1000);
        if self.revoke_millis_max >= stall_millis.min(POLL_INTERVAL_MILLIS_MAX) {
            return wrong(
                "revoke_millis_max",
                "must be less than stall_secs_max and than five minutes",
            );
        }
        Ok(())
    }

    /// The zone to name in times that name none; `None` where they are read so anyway.
    pub(super) fn foreign_zone(&self) -> Option<Zone> {
        let zone: Zone = self.zone.parse().ok()?;
        (!zone.is_utc()).then_some(zone)
    }

    /// The topic's name at the brokers.
    pub(super) fn wire_topic(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// The brokers that hold this topic.
    pub(super) fn brokers_of(&self, topic: &str) -> &str {
        match &self.dead_letter_brokers {
            Some(brokers) if super::is_dead_letter(topic) => brokers,
            _ => &self.brokers,
        }
    }

    /// The names of these topics at the brokers that hold them.
    pub(super) fn by_brokers(&self, topics: &[&str]) -> HashMap<&str, Vec<String>> {
        let mut by_brokers: HashMap<&str, Vec<String>> = HashMap::new();
        for topic in topics {
            let names = by_brokers.entry(self.brokers_of(topic)).or_default();
            names.push(self.wire_topic(topic));
        }
        by_brokers
    }

    /// A segment is removed as a whole, once its newest record is old enough.
    pub(super) fn segment_secs(&self) -> i64 {
        (self.retention_secs / 4).max(1)
    }

    /// For how long the inbox must remember a message, so that no redelivery outlives its mark.
    #[must_use]
    pub fn inbox_secs_min(&self) -> i64 {
        inbox_secs_min(self.retention_secs, self.segment_secs())
    }

    /// What every client of these brokers is told.
    pub(super) fn client(&self, brokers: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("client.id", "boxoffice")
            .set("topic.metadata.refresh.interval.ms", "60000")
            .set("reconnect.backoff.max.ms", "2000");
        let security = [
            ("security.protocol", &self.security.protocol),
            ("ssl.ca.location", &self.security.ssl_ca_location),
            (
                "ssl.certificate.location",
                &self.security.ssl_certificate_location,
            ),
            ("ssl.key.location", &self.security.ssl_key_location),
            ("ssl.key.password", &self.security.ssl_key_password),
            ("sasl.mechanism", &self.security.sasl_mechanism),
            ("sasl.username", &self.security.sasl_username),
            ("sasl.password", &self.security.sasl_password),
        ];
        for (name, value) in security {
            if let Some(value) = value {
                config.set(name, value);
            }
        }
        config
    }
}

pub(super) fn inbox_secs_min(retention_secs: i64, segment_secs: i64) -> i64 {
    retention_secs
        .saturating_add(segment_secs)
        .saturating_add(RETENTION_SLACK_SECS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> KafkaSettings {
        KafkaSettings {
            brokers: "one:9092".to_owned(),
            ..KafkaSettings::default()
        }
    }

    #[test]
    fn the_defaults_need_brokers_and_nothing_else() {
        assert_eq!(settings().validate(), Ok(()));
        let refused = KafkaSettings::default().validate().unwrap_err();
        assert_eq!(refused.to_string(), "brokers is missing");
    }

    #[test]
    fn a_setting_that_cannot_work_is_refused_by_its_name() {
        type Spoil = fn(&mut KafkaSettings);
        let spoilt: [(&str, Spoil); 10] = [
            ("zone", |it| it.zone = "Nowhere/Land".to_owned()),
            ("dead_letter_brokers", |it| {
                it.dead_letter_brokers = Some(" ".to_owned())
            }),
            ("source", |it| it.source.clear()),
            ("partitions", |it| it.partitions = 0),
            ("replication", |it| it.replication = 0),
            ("retention_secs", |it| it.retention_secs = -1),
            ("session_timeout_millis", |it| it.session_timeout_millis = 0),
            ("stall_secs_max", |it| it.stall_secs_max = 0),
            ("revoke_millis_max", |it| it.revoke_millis_max = 60_000),
            ("relay_after_millis", |it| it.relay_after_millis = 0),
        ];
        for (name, spoil) in spoilt {
            let mut settings = settings();
            spoil(&mut settings);
            assert_eq!(settings.validate().map_err(|it| it.name), Err(name));
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        let mut settings = settings();
        settings.security.sasl_password = Some("hush".to_owned());
        settings.security.ssl_key_password = Some("hush".to_owned());
        assert!(!format!("{settings:?}").contains("hush"));
        assert!(!format!("{:?}", settings.client("one:9092")).contains("hush"));
    }
}

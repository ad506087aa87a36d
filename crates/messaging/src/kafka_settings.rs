//! The settings of the Kafka bus, for programs with and without the feature `kafka`. Pure.

use serde::Deserialize;

use crate::{PayloadRules, Program, Timestamp, lenient::Zone};

/// How long brokers may retain a record beyond its retention and its segment's time: they check in intervals.
const RETENTION_SLACK_SECS: i64 = 600;

/// Kafka's default `max.poll.interval.ms`: a consumer that does not poll for longer is removed from its group.
const POLL_INTERVAL_MILLIS_MAX: u64 = 300_000;

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSettings {
    /// `host:port`, several with commas between.
    pub brokers: String,
    /// The brokers that hold the topics of dead letters; if absent, `brokers`.
    pub dead_letter_brokers: Option<String>,
    /// The prefix of every topic and group, by which several deployments share the brokers.
    pub prefix: String,
    /// Of each topic that is created. An existing topic may have more, not fewer.
    pub partitions: i32,
    /// The replication factor of each topic that is created. An existing topic may have a higher one.
    pub replication: i32,
    /// The retention of each topic that is created. An existing topic may have a longer one.
    pub retention_secs: i64,
    /// `ce_source` of every message: a URI that names this deployment.
    pub source: String,
    /// How a record identifies its message to services that read no headers.
    pub message_identity: MessageIdentity,
    /// The zone of times in messages that name none: `UTC`, an offset (`+09:00`), or a name (`Asia/Seoul`).
    pub zone: String,
    /// Set by the program, not by an operator.
    #[serde(skip)]
    pub payload_rules: PayloadRules,
    /// Set by the program, not by an operator.
    #[serde(skip)]
    pub program: Program,
    /// A consumer that sends no heartbeat for this time loses its partitions to the others.
    pub session_timeout_millis: u32,
    /// The interval of offset commits. Records after the last one are redelivered after a crash, and dropped by the inbox.
    pub commit_interval_millis: u32,
    /// How long a revocation waits for the batch in progress. Less than `stall_secs_max`, and than Kafka's
    /// `max.poll.interval.ms` of five minutes.
    pub revoke_millis_max: u64,
    /// If a consumer does not poll, or a batch is not attempted, for this time, the process must stop.
    pub stall_secs_max: u64,
    /// The relay publishes a row that is unpublished for this time.
    pub relay_after_millis: i64,
    /// The relay's lease expires after this time without a renewal.
    pub relay_lease_millis: i64,
    /// Where a group without committed offsets starts on topics that have records. If absent, the process does not start
    /// in that case.
    pub initial_offset: Option<InitialOffset>,
    pub security: KafkaSecurity,
}

/// TLS and authentication, named as in librdkafka.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KafkaSecurity {
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`; if absent, `plaintext`.
    pub protocol: Option<String>,
    /// The certificate authorities (PEM) to trust instead of the system's.
    pub ssl_ca_location: Option<String>,
    /// This client's certificate and key (PEM), if the brokers require them.
    pub ssl_certificate_location: Option<String>,
    pub ssl_key_location: Option<String>,
    /// Of the key, if it is encrypted.
    pub ssl_key_password: Option<String>,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub sasl_mechanism: Option<String>,
    pub sasl_username: Option<String>,
    pub sasl_password: Option<String>,
}

/// How a record identifies its message. The header `ce_id` always does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MessageIdentity {
    /// By that header alone; the record key is the message's key.
    #[default]
    Header,
    /// Also by a UUID, a digest of `ce_id`: it is the record key of requests and responses between services, and the
    /// `eventId` of a domain message.
    Uuid,
}

/// The offset at which a new group starts on a topic that has records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum InitialOffset {
    /// At the oldest retained record.
    Earliest,
    /// After the newest record.
    Latest,
    /// At the first record of this time or later.
    At(Timestamp),
}

impl TryFrom<String> for InitialOffset {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            time => time.parse().map(Self::At).map_err(|_| {
                format!(
                    "initial_offset is \"earliest\", \"latest\" or a time (RFC 3339), not {text:?}"
                )
            }),
        }
    }
}

/// A setting that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} {reason}")]
pub struct InvalidSetting {
    pub name: &'static str,
    pub reason: String,
}

/// Omits the passwords.
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
            source: "/messaging".to_owned(),
            program: Program::default(),
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
    /// Checks the values, without a request to the brokers.
    ///
    /// # Errors
    /// The first setting that cannot work.
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

    /// `segment.ms` of each topic that is created: brokers delete whole segments, once the newest record is old enough.
    pub(crate) fn segment_secs(&self) -> i64 {
        (self.retention_secs / 4).max(1)
    }

    /// The least inbox retention at which no redelivery outlives its inbox entry.
    #[must_use]
    pub fn inbox_secs_min(&self) -> i64 {
        inbox_secs_min(self.retention_secs, self.segment_secs())
    }
}

pub(crate) fn inbox_secs_min(retention_secs: i64, segment_secs: i64) -> i64 {
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
    fn the_defaults_need_nothing_but_brokers() {
        assert_eq!(settings().validate(), Ok(()));
        let invalid = KafkaSettings::default().validate().unwrap_err();
        assert_eq!(invalid.to_string(), "brokers is missing");
    }

    #[test]
    fn a_setting_that_cannot_work_is_rejected_by_its_name() {
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
    }
}

//! What the settings mean to the clients of the brokers. Pure.

use std::collections::HashMap;

use rdkafka::ClientConfig;

use super::KafkaSettings;
use crate::lenient::Zone;

impl KafkaSettings {
    /// The zone to add to times that name none; `None` if it is UTC, which parsing assumes.
    pub(super) fn foreign_zone(&self) -> Option<Zone> {
        let zone: Zone = self.zone.parse().ok()?;
        (!zone.is_utc()).then_some(zone)
    }

    /// The topic's name at the brokers.
    pub(super) fn broker_topic(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    pub(super) fn brokers_of(&self, topic: &str) -> &str {
        match &self.dead_letter_brokers {
            Some(brokers) if super::is_dead_letter(topic) => brokers,
            _ => &self.brokers,
        }
    }

    /// The names of these topics, grouped by the brokers that hold them.
    pub(super) fn by_brokers(&self, topics: &[&str]) -> HashMap<&str, Vec<String>> {
        let mut by_brokers: HashMap<&str, Vec<String>> = HashMap::new();
        for topic in topics {
            let names = by_brokers.entry(self.brokers_of(topic)).or_default();
            names.push(self.broker_topic(topic));
        }
        by_brokers
    }

    /// The configuration that all clients share.
    pub(super) fn client(&self, brokers: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", brokers)
            .set("client.id", self.program.name)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_of_a_client_is_never_printed() {
        let mut settings = KafkaSettings::default();
        settings.security.sasl_password = Some("hush".to_owned());
        settings.security.ssl_key_password = Some("hush".to_owned());
        assert!(!format!("{:?}", settings.client("one:9092")).contains("hush"));
    }
}

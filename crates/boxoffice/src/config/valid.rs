//! Validates what the types of the settings cannot express: bounds, and settings that depend on each other. Each error
//! names its setting. Pure.

use anyhow::bail;
use toss::KeyKind;

use super::Config;
use crate::{
    backends::{BusBackend, StoreBackend},
    http::hosts::Hosts,
};

/// Settings that must be at least 1.
const POSITIVE: [&str; 13] = [
    "http.in_flight_max",
    "http.request_timeout_millis",
    "http.shutdown_timeout_millis",
    "messaging.inbox_retention_secs",
    "messaging.dead_letter_retry_interval_millis",
    "payment.retry_millis_min",
    "payment.retry_millis_max",
    "payment.refund_give_up_secs",
    "payment.webhook_retention_secs",
    "payment.reconciliation_retention_secs",
    "http.idempotency_retention_secs",
    "messaging.dead_letter_retention_secs",
    "ticketing.hold_ttl_secs",
];

pub(super) fn validate_limits(layers: &config::Config) -> anyhow::Result<()> {
    let is_less = |name: &&str| layers.get_int(name).is_ok_and(|value| value < 1);
    if let Some(name) = POSITIVE.into_iter().find(is_less) {
        bail!("the setting {name} must be at least 1");
    }
    Ok(())
}

impl Config {
    pub(super) fn validate(&self) -> anyhow::Result<()> {
        self.validate_engines()?;
        if let Err(entry) = Hosts::read(&self.http.hosts) {
            bail!(
                "the setting http.hosts contains {entry:?}: write host or host:port, without a scheme"
            );
        }
        let gateway_millis = self.payment.gateway.request_timeout_millis;
        if self.http.request_timeout_millis <= gateway_millis {
            bail!(
                "the setting http.request_timeout_millis is {}: it must be more than \
                 payment.gateway.request_timeout_millis ({gateway_millis})",
                self.http.request_timeout_millis
            );
        }
        let grace_millis = self.ticketing.hold_grace_secs.saturating_mul(1000);
        let together = gateway_millis.saturating_add(self.payment.gateway.connect_timeout_millis);
        if grace_millis <= i64::try_from(together).unwrap_or(i64::MAX) {
            bail!(
                "the setting ticketing.hold_grace_secs is {}: it must be longer than \
                 payment.gateway.connect_timeout_millis and request_timeout_millis together ({together} ms)",
                self.ticketing.hold_grace_secs
            );
        }
        self.validate_gateway()?;
        self.ticketing.validate()?;
        if let Err(error) = self.log.level.parse::<tracing_subscriber::EnvFilter>() {
            bail!(
                "the setting log.level is {:?}, which cannot be parsed ({error}): use a level such as \"info\", or levels \
                 by module such as \"info,messaging=debug\"",
                self.log.level
            );
        }
        Ok(())
    }

    /// Rejects a live key together with the sandbox, which accepts any payment.
    fn validate_gateway(&self) -> anyhow::Result<()> {
        let payment = &self.payment;
        let keys = payment.gateway.secret_key.kind();
        if payment.sandbox && keys == KeyKind::Live {
            bail!(
                "the setting payment.sandbox is true, but payment.gateway.secret_key is a live key: the sandbox accepts any \
                 payment key and charges nobody; set payment.sandbox = false, or remove the key"
            );
        }
        if !payment.sandbox && payment.forward_test_codes && keys != KeyKind::Test {
            bail!(
                "the setting payment.forward_test_codes is true: it needs payment.sandbox = true, or a test key (test_…) in \
                 payment.gateway.secret_key"
            );
        }
        if !payment.sandbox && payment.sandbox_webhooks {
            bail!("the setting payment.sandbox_webhooks is true: it needs payment.sandbox = true");
        }
        let is_secure = payment
            .gateway
            .base_url
            .to_ascii_lowercase()
            .starts_with("https://");
        if keys == KeyKind::Live && !is_secure {
            bail!(
                "the setting payment.gateway.base_url is not https://…, but payment.gateway.secret_key is a live key, which \
                 would be sent unencrypted; use an https:// address, or a test key"
            );
        }
        Ok(())
    }

    /// Rejects combinations of engines that do not work together.
    fn validate_engines(&self) -> anyhow::Result<()> {
        let is_shared = self.bus.backend == BusBackend::Kafka;
        if is_shared && self.store.backend != StoreBackend::Postgres {
            bail!("the setting bus.backend is kafka: it needs store.backend = \"postgres\"");
        }
        let is_local = self.ticketing.reservations == ticketing::ReservationsBackend::Local;
        if is_shared && is_local {
            bail!("the setting bus.backend is kafka: it needs ticketing.reservations = \"redis\"");
        }
        if !self.services.is_all() && !is_shared {
            bail!(
                "the setting services is {}: a process with fewer than all services needs bus.backend = \"kafka\"",
                self.services
            );
        }
        if self.store.backend == StoreBackend::Postgres && self.store.postgres.url.is_empty() {
            bail!(
                "the setting store.postgres.url is missing: store.backend = \"postgres\" needs it"
            );
        }
        match self.bus.backend {
            BusBackend::Kafka if cfg!(feature = "kafka") => self.validate_kafka(),
            // `open_bus` reports that this binary has no Kafka support.
            BusBackend::Kafka | BusBackend::Local => Ok(()),
        }
    }

    /// Validates Kafka's own settings, and the settings that depend on them.
    fn validate_kafka(&self) -> anyhow::Result<()> {
        let kafka = &self.bus.kafka;
        if let Err(error) = kafka.validate() {
            bail!("the setting bus.kafka.{error}");
        }
        // A batch that waits for PostgreSQL makes no attempt; the watchdog must not take it for a stalled one.
        let (wait, stall) = (self.store.postgres.wait_secs_max, kafka.stall_secs_max);
        if wait >= stall {
            bail!(
                "the setting store.postgres.wait_secs_max ({wait}) must be less than bus.kafka.stall_secs_max ({stall})"
            );
        }
        let (inbox, needed) = (self.inbox_retention_secs(), kafka.inbox_secs_min());
        if inbox < needed {
            bail!(
                "the setting messaging.inbox_retention_secs is {inbox}: with bus.kafka.retention_secs ({}) it must be at \
                 least {needed}, because the broker may deliver a message again until then",
                kafka.retention_secs
            );
        }
        Ok(())
    }
}

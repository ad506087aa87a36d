//! The metrics of this crate. Names follow Prometheus; the registry is passed in.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct GroupLabel {
    pub group: &'static str,
}

#[derive(Debug)]
pub struct Metrics {
    pub commit_secs: Histogram,
    pub commit_size: Histogram,
    pub messages_published: Counter<u64, AtomicU64>,
    pub messages_handled: Family<GroupLabel, Counter>,
    pub messages_rejected: Family<GroupLabel, Counter>,
    pub messages_duplicate: Family<GroupLabel, Counter>,
    pub decisions_repeated: Family<GroupLabel, Counter>,
    pub lag: Family<GroupLabel, Gauge<i64, AtomicI64>>,
    pub timers_fired: Counter,
    /// Counted by the process that leads the relay.
    pub messages_parked: Counter,
    pub topics_refused: Gauge<i64, AtomicI64>,
    /// Reading statements run so far; tests check the number of statements a batch with it.
    pub store_statements: Counter,
}

/// Bucket bounds from 0.1 ms to 3.3 s, each twice the one before.
fn secs_buckets() -> impl Iterator<Item = f64> {
    (0..16).map(|power| 0.0001 * f64::from(1 << power))
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let metrics = Self {
            commit_secs: Histogram::new(secs_buckets()),
            commit_size: Histogram::new((0..11).map(|power| f64::from(1 << power))),
            messages_published: Counter::default(),
            messages_handled: Family::default(),
            messages_rejected: Family::default(),
            messages_duplicate: Family::default(),
            decisions_repeated: Family::default(),
            lag: Family::default(),
            timers_fired: Counter::default(),
            messages_parked: Counter::default(),
            topics_refused: Gauge::default(),
            store_statements: Counter::default(),
        };
        let m = &metrics;
        let help = "Time of a store transaction, fsync included";
        registry.register_with_unit("commit", help, Unit::Seconds, m.commit_secs.clone());
        let help = "Commits in one store transaction";
        registry.register("commit_batch_size", help, m.commit_size.clone());
        let help = "Messages put on the bus";
        registry.register("messages_published", help, m.messages_published.clone());
        let help = "Messages handled by a consumer group";
        registry.register("messages_handled", help, m.messages_handled.clone());
        let help = "Messages that became dead letters";
        registry.register("messages_rejected", help, m.messages_rejected.clone());
        let help = "Messages dropped because the group had seen them";
        registry.register("messages_duplicate", help, m.messages_duplicate.clone());
        let help = "Decisions taken again after a version conflict";
        registry.register("decisions_repeated", help, m.decisions_repeated.clone());
        let help = "Messages on the bus that a group has not looked at";
        registry.register("consumer_lag_messages", help, m.lag.clone());
        let help = "Timers that published their message";
        registry.register("timers_fired", help, m.timers_fired.clone());
        let help =
            "Messages that the brokers refused: each is a parked dead letter of the group outbox";
        registry.register("messages_parked", help, m.messages_parked.clone());
        let help = "Topics of which the brokers take nothing, as the leader of the relay sees it: their messages wait";
        registry.register("topics_refused", help, m.topics_refused.clone());
        let help = "Reading statements by key";
        registry.register("store_statements", help, m.store_statements.clone());
        Arc::new(metrics)
    }

    /// Metrics that are not exported.
    #[must_use]
    pub fn unregistered() -> Arc<Self> {
        Self::register(&mut Registry::default())
    }
}

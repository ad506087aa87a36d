//! The metrics of the ticketing service.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    pub outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SagaLabel {
    saga_type: String,
    state: String,
}

#[derive(Debug, Clone, Default)]
pub struct Metrics {
    sagas: Family<SagaLabel, Counter>,
    reservations: Family<OutcomeLabel, Counter>,
    tickets: Family<OutcomeLabel, Counter>,
}

impl Metrics {
    /// Creates and registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "reservations",
            "Reservations by outcome",
            metrics.reservations.clone(),
        );
        registry.register(
            "sagas",
            "Sagas that reached a state: STARTED, COMPLETED, COMPENSATED, PARKED",
            metrics.sagas.clone(),
        );
        registry.register(
            "tickets",
            "Paid tickets by outcome",
            metrics.tickets.clone(),
        );
        metrics
    }

    pub(crate) fn reservation(&self, outcome: &'static str) {
        self.reservations
            .get_or_create(&OutcomeLabel { outcome })
            .inc();
    }

    pub(crate) fn saga(&self, saga_type: &str, state: &str) {
        let (saga_type, state) = (saga_type.to_owned(), state.to_owned());
        self.sagas
            .get_or_create(&SagaLabel { saga_type, state })
            .inc();
    }

    pub(crate) fn ticket(&self, outcome: &'static str) {
        self.tickets.get_or_create(&OutcomeLabel { outcome }).inc();
    }
}

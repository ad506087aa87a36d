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
pub struct SagaLabel {
    pub saga_type: String,
    pub state: &'static str,
}

/// What became of a paid ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketOutcome {
    Issued {
        /// Its claim had expired, and was retaken for the late payment.
        is_retaken: bool,
    },
    Cancelled,
    /// The payment got no ticket and is refunded.
    GivenBack,
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

    pub(crate) fn saga(&self, reached: &SagaLabel) {
        self.sagas.get_or_create(reached).inc();
    }

    pub(crate) fn ticket(&self, outcome: TicketOutcome) {
        let outcomes: &[&'static str] = match outcome {
            TicketOutcome::Issued { is_retaken: false } => &["issued"],
            TicketOutcome::Issued { is_retaken: true } => &["issued", "retaken"],
            TicketOutcome::Cancelled => &["cancelled"],
            TicketOutcome::GivenBack => &["given_back"],
        };
        for outcome in outcomes {
            self.tickets.get_or_create(&OutcomeLabel { outcome }).inc();
        }
    }
}

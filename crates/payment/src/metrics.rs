//! The metrics of the payment service.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use crate::reconcile::{DifferenceKind, Report};

/// One label: its name and its value.
type Label = [(&'static str, &'static str); 1];

#[derive(Debug, Clone, Default)]
pub struct Metrics {
    differences: Family<Label, Gauge>,
    reconciliations: Family<Label, Counter>,
    webhooks: Family<Label, Counter>,
    refunds_parked: Counter,
    orphans: Counter,
    refunds_overdue: Gauge,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "payment_differences",
            "Differences found by the last reconciliation, by kind",
            metrics.differences.clone(),
        );
        registry.register(
            "reconciliations",
            "Reconciliations by outcome: clean, different, failed",
            metrics.reconciliations.clone(),
        );
        registry.register(
            "payment_webhooks",
            "Received webhooks by result: kept, duplicate, not_ours, wrong, failed",
            metrics.webhooks.clone(),
        );
        registry.register(
            "payment_refunds_refused",
            "Refunds that the gateway refused or that were parked, including those of orphan charges",
            metrics.refunds_parked.clone(),
        );
        registry.register(
            "payment_strays",
            "Orphan charges found",
            metrics.orphans.clone(),
        );
        registry.register(
            "payment_refunds_overdue",
            "Refunds open for longer than two hours at the last look of this process, including those of orphan charges",
            metrics.refunds_overdue.clone(),
        );
        // Each kind exists from the start, so that an alert can watch it.
        for kind in DifferenceKind::ALL {
            metrics.difference(kind).set(0);
        }
        metrics
    }

    fn difference(&self, kind: DifferenceKind) -> Gauge {
        let label = [("kind", kind.as_str())];
        self.differences.get_or_create(&label).clone()
    }

    /// `None` if it failed: then the differences of the last one still apply.
    pub(crate) fn reconciled(&self, report: Option<&Report>) {
        let outcome = match report {
            Some(report) if report.is_clean() => "clean",
            Some(_) => "different",
            None => "failed",
        };
        self.reconciliations
            .get_or_create(&[("outcome", outcome)])
            .inc();
        let Some(report) = report else { return };
        for kind in DifferenceKind::ALL {
            let count = i64::try_from(report.summary.counts.of(kind)).unwrap_or(i64::MAX);
            self.difference(kind).set(count);
        }
    }

    pub(crate) fn webhook(&self, outcome: &'static str) {
        self.webhooks.get_or_create(&[("outcome", outcome)]).inc();
    }

    pub(crate) fn refund_refused(&self) {
        self.refunds_parked.inc();
    }

    pub(crate) fn refunds_overdue(&self, count: i64) {
        self.refunds_overdue.set(count);
    }

    pub(crate) fn orphan_charge(&self) {
        self.orphans.inc();
    }
}

//! Scheduled reconciliations. Each period starts at the end of the last one, which the stored reports tell. Only the
//! backoff after a failure is in memory.

use contract::Timestamp;
use messaging::{
    BackoffPolicy, Commit, Find, Periodic, Record, Schedule, Shutdown, StoreError, Tick, periodic,
};

use super::{DAY_SECS, Error, PERIOD_DAYS_MAX, PERIOD_SECS_DEFAULT, Period, Report};

use crate::{Service, record::ReconciliationRecord, retries::Retries};

/// The interval at which a due reconciliation is noticed.
const TICK_MILLIS: i64 = 5_000;
/// The wait after a failure.
const FAILURE_BACKOFF: BackoffPolicy = BackoffPolicy {
    millis_min: 5_000,
    millis_max: 600_000,
};

/// Runs scheduled reconciliations.
#[derive(Clone)]
pub struct Reconciler {
    service: Service,
}

impl Reconciler {
    #[must_use]
    pub fn new(service: Service) -> Self {
        Self { service }
    }

    /// Reconciles what is due until shutdown is requested. A reconciliation that is interrupted is repeated at the next
    /// start.
    pub async fn run(self, shutdown: Shutdown) {
        let clock = self.service.inner.clock.clone();
        let task = ScheduleTask {
            reconciler: self,
            failures: Retries::new(FAILURE_BACKOFF),
        };
        periodic::run(task, clock, shutdown).await;
    }

    /// Reconciles the due period; `None` if none is due.
    ///
    /// # Errors
    /// As [`Service::reconcile`]; the period stays due.
    pub async fn reconcile_due(&self) -> Result<Option<Report>, Error> {
        let service = &self.service;
        let every_secs = i64::from(service.inner.settings.reconcile_every_secs);
        if every_secs == 0 {
            return Ok(None);
        }
        let lag_secs = i64::from(service.inner.settings.reconcile_lag_secs);
        let to = service.inner.clock.now().plus_secs(-lag_secs);
        let from = match self.last_to(to).await? {
            Some(last) if to.millis_since(last) < every_secs.saturating_mul(1_000) => {
                return Ok(None);
            }
            Some(last) => begin(last, to),
            None => to.plus_secs(-PERIOD_SECS_DEFAULT),
        };
        let slot = service.reconcile_slot()?;
        let period = Period { from, to };
        let report = |_: &mut Commit, report: &Report| report.clone();
        let report = service.run_reconciliation(slot, period, true, report);
        Ok(Some(report.await?))
    }

    /// The end of the last scheduled reconciliation, up to `to`. One that ran while the clock was ahead ended in the future
    /// and has not compared that time: it is ignored.
    async fn last_to(&self, to: Timestamp) -> Result<Option<Timestamp>, StoreError> {
        let store = &self.service.inner.store;
        let find = Find::all(ReconciliationRecord::TABLE, 1)
            .equals("scheduled", true)
            .newest_first();
        let mut last: Vec<ReconciliationRecord> = store.find(find.clone()).await?;
        if last.first().is_some_and(|it| it.period_to > to) {
            let ever = Timestamp::from_millis(0);
            let find = find.within("period_to", ever, to.plus_millis(1));
            last = store.find(find).await?;
        }
        Ok(last.first().map(|it| it.period_to))
    }
}

/// The reconciler, with the time of its next try after a failure.
struct ScheduleTask {
    reconciler: Reconciler,
    failures: Retries<()>,
}

impl Periodic for ScheduleTask {
    fn schedule(&self) -> Schedule {
        Schedule {
            name: "payment.reconciler",
            interval_millis: TICK_MILLIS,
            is_interruptible: true,
        }
    }

    async fn tick(&mut self) -> Result<Tick, StoreError> {
        let inner = &self.reconciler.service.inner;
        if self.failures.is_due(&(), inner.clock.now()) == Some(false) {
            return Ok(Tick::Done);
        }
        match self.reconciler.reconcile_due().await {
            Ok(report) => {
                self.failures.forget(&());
                report.as_ref().inspect(|report| log(report));
            }
            Err(Error::Store(error @ StoreError::Poisoned(_))) => return Err(error),
            Err(Error::Running) => {}
            Err(error) => {
                tracing::warn!(%error, "a scheduled reconciliation has failed and is retried");
                self.failures
                    .retry_later(&(), &inner.random, inner.clock.now());
            }
        }
        Ok(Tick::Done)
    }
}

/// The end of the last one, limited to the longest period; a gap is logged.
fn begin(last: Timestamp, to: Timestamp) -> Timestamp {
    let earliest = to.plus_secs(-PERIOD_DAYS_MAX * DAY_SECS);
    if last < earliest {
        tracing::error!(from = %last, to = %earliest, "scheduled reconciliations skip this time: run `boxoffice reconcile` for it");
    }
    last.max(earliest)
}

fn log(report: &Report) {
    let summary = &report.summary;
    if report.is_clean() {
        tracing::info!(reconciliation.id = summary.id, ?summary.counts, "reconciled");
    } else {
        tracing::error!(reconciliation.id = summary.id, ?summary.counts, "the payments and the gateway's transactions differ: see GET /payment/reconciliation");
    }
}

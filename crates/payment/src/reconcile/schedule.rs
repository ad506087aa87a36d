//! Reconciling on schedule: each period begins where the last one ended, so that none is left out. Which that was is
//! read from the reports that were kept; in memory is only how long to wait after a failure.

use contract::Timestamp;
use messaging::{BackoffPolicy, Commit, Find, Record, Shutdown, StoreError};

use super::{DAY_SECS, Error, PERIOD_DAYS_MAX, PERIOD_SECS_DEFAULT, Report};
use crate::{Service, gateway::Period, record::ReconciliationRecord, retries::Retries};

/// How late a reconciliation that is due may begin.
const TICK_MILLIS: i64 = 5_000;
/// After a failure.
const FAILURE_BACKOFF: BackoffPolicy = BackoffPolicy {
    millis_min: 5_000,
    millis_max: 600_000,
};

/// Reconciles, until told to stop.
#[derive(Clone)]
pub struct Reconciler {
    service: Service,
}

impl Reconciler {
    #[must_use]
    pub fn new(service: Service) -> Self {
        Self { service }
    }

    /// Reconciles what is due until told to stop. One that is stopped half way is made again at the next start.
    pub async fn run(self, mut shutdown: Shutdown) {
        let inner = &self.service.inner;
        let failures = Retries::new(FAILURE_BACKOFF);
        loop {
            let now = inner.clock.now();
            if failures.is_due(&(), now) != Some(false) {
                let done = tokio::select! {
                    () = shutdown.requested() => return,
                    done = self.reconcile_due() => done,
                };
                match done {
                    Ok(report) => {
                        failures.forget(&());
                        report.as_ref().inspect(|report| tell(report));
                    }
                    Err(Error::Store(StoreError::Poisoned(_))) => return,
                    Err(Error::Running) => {}
                    Err(error) => {
                        tracing::warn!(%error, "a reconciliation on schedule has failed, and is tried again");
                        failures.retry_later(&(), &inner.random, inner.clock.now());
                    }
                }
            }
            tokio::select! {
                () = shutdown.requested() => return,
                () = inner.clock.wait_until(now.plus_millis(TICK_MILLIS)) => {}
            }
        }
    }

    /// Reconciles the period that is due; `None` where none is.
    ///
    /// # Errors
    /// As [`Service::reconcile`]; the same period stays due.
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
        let turn = service.turn()?;
        let period = Period { from, to };
        let report = |_: &mut Commit, report: &Report| report.clone();
        let report = service.run_reconciliation(turn, period, true, report);
        Ok(Some(report.await?))
    }

    /// Where the last reconciliation on schedule ended, up to `to`. One that was made with the clock far ahead ended
    /// where no time has come yet: it has compared nothing of what is still to come, and is passed over.
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

/// Where the last one ended; what is longer ago than a period may be is left out, and said so.
fn begin(last: Timestamp, to: Timestamp) -> Timestamp {
    let earliest = to.plus_secs(-PERIOD_DAYS_MAX * DAY_SECS);
    if last < earliest {
        tracing::error!(from = %last, to = %earliest, "no schedule reconciles this time any more: run `boxoffice reconcile` for it");
    }
    last.max(earliest)
}

fn tell(report: &Report) {
    let summary = &report.summary;
    if report.is_clean() {
        tracing::info!(reconciliation.id = summary.id, ?summary.counts, "reconciled");
    } else {
        tracing::error!(reconciliation.id = summary.id, ?summary.counts, "our payments and the gateway's differ: see GET /payment/reconciliation");
    }
}

//! The use case `reconcile`: compares the payments of a period with the gateway's list of transactions. A difference that
//! a lookup explains is applied as by a webhook or the settler; the report lists the others.
//!
//! - `gateway_ledger`: the gateway's list by order; `compare`: one payment against it
//! - [`report`]: the result, stored as [`ReconciliationRecord`]
//! - [`schedule`]: scheduled reconciliations, period after period
//!
//! Its only state is whether one runs in this process.

mod compare;
mod gateway_ledger;
pub mod report;
pub mod schedule;

use std::sync::{Arc, Mutex, MutexGuard};

use contract::{PaymentId, Timestamp};
use futures::{StreamExt, TryStreamExt, stream};
use messaging::{Commit, CommitError, Find, Key, Record, StoreError};
use tokio::{sync::OwnedMutexGuard, task::AbortHandle};

use crate::{
    Service,
    record::{OrphanChargeRecord, PaymentRecord, ReconciliationRecord},
};

pub use report::{Counts, Difference, DifferenceKind, Report, Summary};
pub use schedule::Reconciler;

use gateway_ledger::{GatewayLedger, LedgerRow};
use report::{Finding, Tally};

/// The longest period of one reconciliation.
pub const PERIOD_DAYS_MAX: i64 = 31;
/// The default period.
pub const PERIOD_SECS_DEFAULT: i64 = 24 * 3_600;
const DAY_SECS: i64 = 24 * 3_600;
/// Payments compared at once; the buyers share the gateway's connections.
const LOOKUPS_MAX: usize = 16;
/// Rows read at once.
const PAGE_ROWS: u32 = 512;
/// The payments of a period are read in slices, so that a page sorts at most one slice.
const SLICE_MILLIS: i64 = 600_000;
const TRIED: &str = "attempt > 0";
const REFUND_REQUESTED: &str = "refund = 'REQUESTED'";
const REFUND_PARKED: &str = "refund = 'PARKED'";

/// The period of a reconciliation. The end is exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period {
    pub from: Timestamp,
    pub to: Timestamp,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a reconciliation is running in this process: try again when it has ended")]
    Running,
    #[error("{problem}")]
    Period {
        field: &'static str,
        problem: &'static str,
    },
    /// An incomplete list proves nothing.
    #[error("the gateway did not list its transactions: {reason}")]
    Gateway { reason: String },
    #[error("the gateway lists more transactions of one moment than fit into memory")]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the reconciliation was aborted because the process stops")]
    Died,
}

/// Allows one reconciliation at a time, and holds the task of a requested one, which outlives its request.
#[derive(Debug, Default)]
pub(crate) struct Running {
    slot: Arc<tokio::sync::Mutex<()>>,
    task: Mutex<Option<AbortHandle>>,
}

impl Running {
    /// Aborts a requested reconciliation; no Commit is left partial.
    pub fn stop(&self) {
        if let Some(task) = self.lock().take() {
            task.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.task.lock().expect("no holder of this lock panics")
    }
}

impl Service {
    /// Compares a period, settles what can be settled, and stores the report. It continues if the caller disconnects.
    ///
    /// # Errors
    /// [`Error`]; what was settled so far stays settled.
    pub async fn reconcile(&self, period: Period) -> Result<Report, Error> {
        self.reconcile_for(period, |_, report| report.clone()).await
    }

    /// The same. `answer` may add to the Commit that saves the report.
    pub(crate) async fn reconcile_for<T: Send + 'static>(
        &self,
        period: Period,
        answer: impl FnOnce(&mut Commit, &Report) -> T + Send + 'static,
    ) -> Result<T, Error> {
        check(&period)?;
        let slot = self.reconcile_slot()?;
        let service = self.clone();
        let run = async move {
            service
                .run_reconciliation(slot, period, false, answer)
                .await
        };
        let task = tokio::spawn(run);
        *self.inner.reconciling.lock() = Some(task.abort_handle());
        task.await.map_err(|_| Error::Died)?
    }

    /// A stored report.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn reconciliation(&self, id: &str) -> Result<Option<Report>, StoreError> {
        let record: Option<ReconciliationRecord> = self.inner.store.load(id).await?;
        Ok(record.map(Report::from))
    }

    fn reconcile_slot(&self) -> Result<OwnedMutexGuard<()>, Error> {
        let slot = Arc::clone(&self.inner.reconciling.slot);
        slot.try_lock_owned().map_err(|_| Error::Running)
    }

    async fn run_reconciliation<T>(
        &self,
        _slot: OwnedMutexGuard<()>,
        period: Period,
        is_scheduled: bool,
        answer: impl FnOnce(&mut Commit, &Report) -> T,
    ) -> Result<T, Error> {
        let done = match self.compare_all(period).await {
            Ok(report) => self
                .keep(&report, is_scheduled, answer)
                .await
                .map(|answer| (report, answer))
                .map_err(Error::from),
            Err(error) => Err(error),
        };
        // New orphan charges need not wait for the settler's next tick.
        self.inner.wake.attempts.notify_one();
        self.inner.wake.refunds.notify_one();
        let report = done.as_ref().ok().map(|(report, _)| report);
        self.inner.metrics.reconciled(report);
        done.map(|(_, answer)| answer)
    }

    async fn compare_all(&self, period: Period) -> Result<Report, Error> {
        let started_at = self.inner.clock.now();
        let id = self.inner.random.uuid(started_at).hyphenated().to_string();
        let mut ledger = self
            .read_gateway_ledger(period, gateway_ledger::rows_max())
            .await?;
        let period = Period {
            to: ledger.to,
            ..period
        };
        let mut tally = Tally::default();
        tally.counts.unreadable = ledger.unreadable;
        self.compare_ours(&period, &mut ledger, &mut tally).await?;
        self.compare_refunds(&period, &mut ledger, &mut tally)
            .await?;
        self.compare_rest(&period, ledger, &mut tally).await?;
        self.list_orphans(&mut tally).await?;
        Ok(Report {
            summary: Summary {
                id,
                from: period.from,
                to: period.to,
                started_at,
                finished_at: self.inner.clock.now(),
                counts: tally.counts,
            },
            differences: tally.differences,
            left_out: tally.left_out,
        })
    }

    /// Compares the payments that were attempted or changed within the period; removes their orders from the ledger.
    async fn compare_ours(
        &self,
        period: &Period,
        ledger: &mut GatewayLedger,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        let mut from = period.from;
        while from < period.to {
            let to = from.plus_millis(SLICE_MILLIS).min(period.to);
            for column in ["updated_at", "attempt_started_at"] {
                let find = Find::all(PaymentRecord::TABLE, PAGE_ROWS).only(TRIED);
                let find = find.within(column, from, to);
                let is_new = |it: &PaymentRecord| {
                    column == "updated_at" || !is_within(it.updated_at, period)
                };
                let found = self.compare_found(find, is_new, ledger).await?;
                found.into_iter().for_each(|findings| tally.add(findings));
            }
            from = to;
        }
        Ok(())
    }

    /// Compares open refunds of any time: one that is stuck must not leave the report with its period. Outside of the
    /// period only news count.
    async fn compare_refunds(
        &self,
        period: &Period,
        ledger: &mut GatewayLedger,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        let is_outside = |it: &PaymentRecord| {
            let is_tried = |at: Timestamp| is_within(at, period);
            !is_within(it.updated_at, period) && !it.attempt_started_at.is_some_and(is_tried)
        };
        for only in [REFUND_REQUESTED, REFUND_PARKED] {
            let find = Find::all(PaymentRecord::TABLE, PAGE_ROWS).only(only);
            let mut found = self.compare_found(find, is_outside, ledger).await?;
            found.retain(|findings| findings.iter().any(Finding::is_news));
            found.into_iter().for_each(|findings| tally.add(findings));
        }
        Ok(())
    }

    /// Lists orphan charges whose refund is parked or overdue.
    async fn list_orphans(&self, tally: &mut Tally) -> Result<(), StoreError> {
        for only in [REFUND_REQUESTED, REFUND_PARKED] {
            let find = Find::all(OrphanChargeRecord::TABLE, PAGE_ROWS).only(only);
            let mut after: Option<String> = None;
            loop {
                let page: Vec<OrphanChargeRecord> =
                    self.inner.store.find(find.clone().after(after)).await?;
                after = page.last().map(|orphan| orphan.pg_payment_id.clone());
                let is_last = page.len() < PAGE_ROWS as usize;
                let overdue = page.iter().filter_map(|orphan| self.overdue_orphan(orphan));
                overdue.for_each(|difference| tally.differ_once(difference));
                if is_last {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Compares the payments that are found, page by page, and removes their orders from the ledger.
    async fn compare_found(
        &self,
        find: Find,
        wanted: impl Fn(&PaymentRecord) -> bool,
        ledger: &mut GatewayLedger,
    ) -> Result<Vec<Vec<Finding>>, StoreError> {
        let mut found = Vec::new();
        let mut after: Option<PaymentId> = None;
        loop {
            let page: Vec<PaymentRecord> = self.inner.store.find(find.clone().after(after)).await?;
            after = page.last().map(|payment| payment.payment_id);
            let is_last = page.len() < PAGE_ROWS as usize;
            let wanted = page.into_iter().filter(&wanted);
            let pairs = wanted.map(|it| pair(it, ledger)).collect();
            found.extend(self.compare_pairs(pairs).await?);
            if is_last {
                return Ok(found);
            }
        }
    }

    /// Compares the rest of the ledger: payments that changed at another time, and orders without a payment.
    async fn compare_rest(
        &self,
        period: &Period,
        ledger: GatewayLedger,
        tally: &mut Tally,
    ) -> Result<(), StoreError> {
        let of_ours = |row: &LedgerRow| row.is_inside(period) || row.is_late(period);
        let rest: Vec<(String, Vec<LedgerRow>)> = ledger
            .orders
            .into_iter()
            .filter(|(_, rows)| rows.iter().any(of_ours))
            .collect();
        for chunk in rest.chunks(PAGE_ROWS as usize) {
            let ids = chunk.iter().filter_map(|(order, _)| order.parse().ok());
            let keys: Vec<Key> = ids.map(|id: PaymentId| id.into()).collect();
            let rows = self.inner.store.load_rows(PaymentRecord::TABLE, &keys);
            let mut payments = std::collections::HashMap::new();
            for row in rows.await? {
                let payment: PaymentRecord = row.read().map_err(StoreError::from)?;
                payments.insert(payment.order_id(), payment);
            }
            let (mut inside, mut late) = (Vec::with_capacity(chunk.len()), Vec::new());
            for (order, rows) in chunk {
                let is_inside = rows.iter().any(|row| row.is_inside(period));
                match payments.remove(order) {
                    Some(payment) if is_inside => inside.push((payment, rows.clone())),
                    Some(payment) => late.push((payment, rows.clone())),
                    None if is_inside => missing_here(order, rows)
                        .into_iter()
                        .for_each(|difference| tally.differ(difference)),
                    None => {}
                }
            }
            let found = self.compare_pairs(inside).await?;
            found.into_iter().for_each(|findings| tally.add(findings));
            // The previous period has counted them, except those that the gateway listed late.
            let mut found = self.compare_pairs(late).await?;
            found.retain(|findings| findings.iter().any(Finding::is_news));
            found.into_iter().for_each(|findings| tally.add(findings));
        }
        Ok(())
    }

    async fn compare_pairs(
        &self,
        pairs: Vec<(PaymentRecord, Vec<LedgerRow>)>,
    ) -> Result<Vec<Vec<Finding>>, StoreError> {
        stream::iter(pairs)
            .map(|(payment, rows)| self.compare(payment, rows))
            .buffered(LOOKUPS_MAX)
            .try_collect()
            .await
    }

    async fn keep<T>(
        &self,
        report: &Report,
        is_scheduled: bool,
        answer: impl FnOnce(&mut Commit, &Report) -> T,
    ) -> Result<T, StoreError> {
        let mut commit = Commit::new();
        commit.put(&ReconciliationRecord::new(report, is_scheduled));
        commit.fences.extend(self.fence.clone());
        let mut answered = commit.clone();
        let answer = answer(&mut answered, report);
        let saved = match self.inner.store.commit(answered).await {
            // Only the answer can conflict: the report is new.
            Err(CommitError::Conflict { .. }) => self.inner.store.commit(commit).await,
            saved => saved,
        };
        saved.map(|()| answer).map_err(|error| match error {
            CommitError::Store(error) => error,
            error => StoreError::Unavailable(error.to_string()),
        })
    }
}

fn is_within(at: Timestamp, period: &Period) -> bool {
    (period.from..period.to).contains(&at)
}

fn pair(payment: PaymentRecord, ledger: &mut GatewayLedger) -> (PaymentRecord, Vec<LedgerRow>) {
    let rows = ledger.orders.remove(&payment.order_id());
    (payment, rows.unwrap_or_default())
}

/// The charges of an order without a payment.
fn missing_here(order: &str, rows: &[LedgerRow]) -> Vec<Difference> {
    let charges = gateway_ledger::charges(rows);
    let differences = charges.into_iter().map(|(key, state)| {
        let (status, amount) = match state {
            gateway_ledger::ChargeState::Held(amount) => ("DONE", Some(amount)),
            gateway_ledger::ChargeState::Refunded(_) => ("CANCELED", Some(0)),
            gateway_ledger::ChargeState::Unclear => ("several transactions", None),
        };
        Difference {
            kind: DifferenceKind::MissingHere,
            payment_id: None,
            pg_payment_id: Some(key.to_owned()),
            order_id: Some(order.to_owned()),
            ours: None,
            theirs: Some(status.to_owned()),
            amount_ours: None,
            amount_theirs: amount,
            note: Some("no payment has this order".to_owned()),
        }
    });
    differences.collect()
}

fn check(period: &Period) -> Result<(), Error> {
    let millis = period.to.millis_since(period.from);
    let wrong = |field, problem| Err(Error::Period { field, problem });
    if millis <= 0 {
        return wrong("from", "the period begins after its end");
    }
    if millis > PERIOD_DAYS_MAX * DAY_SECS * 1_000 {
        return wrong("from", "a period has 31 days at most");
    }
    Ok(())
}

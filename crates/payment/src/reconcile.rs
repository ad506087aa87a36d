//! The use case `reconcile`: everything that the gateway lists of a period is compared with our payments. What can be
//! put right is put right, in the same way as by a webhook or the settler; the rest is told.
//!
//! - [`report`]: what was found; kept as [`ReconciliationRecord`]
//! - `ledger`: the gateway's list, by order; `compare`: one payment against it
//! - [`schedule`]: on schedule, period after period
//!
//! It owns no state but whether one is running in this process.

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
    gateway::Period,
    record::{OrphanChargeRecord, PaymentRecord, ReconciliationRecord},
};

pub use report::{Counts, Difference, DifferenceKind, Report, Summary};
pub use schedule::Reconciler;

use gateway_ledger::{GatewayLedger, LedgerRow};
use report::{Finding, Tally};

/// The longest period that is compared at once.
pub const PERIOD_DAYS_MAX: i64 = 31;
/// The period where nobody says another.
pub const PERIOD_SECS_DEFAULT: i64 = 24 * 3_600;
const DAY_SECS: i64 = 24 * 3_600;
/// Payments compared at once; the gateway's connections are shared with the buyers.
const LOOKUPS_MAX: usize = 16;
/// Payments read at once.
const PAGE_ROWS: u32 = 512;
/// The payments of a period are read in slices of it, so that no page sorts more than one of them.
const SLICE_MILLIS: i64 = 600_000;
const TRIED: &str = "attempt > 0";
const REFUND_REQUESTED: &str = "refund = 'REQUESTED'";
const REFUND_PARKED: &str = "refund = 'PARKED'";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a reconciliation is running in this process")]
    Running,
    #[error("{problem}")]
    Period {
        field: &'static str,
        problem: &'static str,
    },
    /// Nothing is concluded from a list that is not whole.
    #[error("the gateway did not list its transactions: {reason}")]
    Gateway { reason: String },
    #[error("the gateway lists more transactions of one moment than can be held")]
    TooMany,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the reconciliation was ended before it was done")]
    Died,
}

/// Only one reconciliation at a time; and the one that was asked for, which goes on without whoever asked.
#[derive(Debug, Default)]
pub(crate) struct Running {
    turn: Arc<tokio::sync::Mutex<()>>,
    asked: Mutex<Option<AbortHandle>>,
}

impl Running {
    /// Ends what was asked for; nothing of it is left half done.
    pub fn stop(&self) {
        if let Some(task) = self.lock().take() {
            task.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<AbortHandle>> {
        self.asked.lock().expect("no holder of this lock panics")
    }
}

impl Service {
    /// Compares a period, settles what can be settled, and keeps the report. It goes on where whoever asked goes away.
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
        let turn = self.turn()?;
        let service = self.clone();
        let run = async move {
            service
                .run_reconciliation(turn, period, false, answer)
                .await
        };
        let task = tokio::spawn(run);
        *self.inner.reconciling.lock() = Some(task.abort_handle());
        task.await.map_err(|_| Error::Died)?
    }

    /// A report that was kept.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
    pub async fn reconciliation(&self, id: &str) -> Result<Option<Report>, StoreError> {
        let record: Option<ReconciliationRecord> = self.inner.store.load(id).await?;
        Ok(record.map(Report::from))
    }

    fn turn(&self) -> Result<OwnedMutexGuard<()>, Error> {
        let turn = Arc::clone(&self.inner.reconciling.turn);
        turn.try_lock_owned().map_err(|_| Error::Running)
    }

    async fn run_reconciliation<T>(
        &self,
        _turn: OwnedMutexGuard<()>,
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
        // What was found to be nobody's need not wait for the settler's next look.
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

    /// Our payments that were tried or changed within the period; takes their orders out of the gateway's list.
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

    /// Refunds that are not done, of whatever time: what stands still must not fall out of the period that is compared.
    /// Of those outside the period only what is news counts.
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

    /// The same of charges that no payment stands for.
    async fn list_orphans(&self, tally: &mut Tally) -> Result<(), StoreError> {
        for only in [REFUND_REQUESTED, REFUND_PARKED] {
            let find = Find::all(OrphanChargeRecord::TABLE, PAGE_ROWS).only(only);
            let mut after: Option<String> = None;
            loop {
                let page: Vec<OrphanChargeRecord> =
                    self.inner.store.find(find.clone().after(after)).await?;
                after = page.last().map(|orphan| orphan.pg_payment_id.clone());
                let is_last = page.len() < PAGE_ROWS as usize;
                let told = page.iter().filter_map(|orphan| self.overdue_orphan(orphan));
                told.for_each(|difference| tally.differ_once(difference));
                if is_last {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Compares the payments that are found, page by page, and takes their orders out of the gateway's list.
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

    /// What the gateway lists besides: payments that changed at another time here, and orders that are none of ours.
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
            // The period before has counted them, but for those that it could not know of.
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

/// Each charge of an order that is no payment of ours.
fn missing_here(order: &str, rows: &[LedgerRow]) -> Vec<Difference> {
    let charges = gateway_ledger::charges(rows);
    let told = charges.into_iter().map(|(key, shape)| {
        let (status, amount) = match shape {
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
            note: Some("its order is no payment of ours".to_owned()),
        }
    });
    told.collect()
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

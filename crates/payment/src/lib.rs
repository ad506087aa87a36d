//! The payment service: a purchase opens a payment, its buyer confirms it at the gateway, and the service refunds it if
//! no ticket can be issued.
//!
//! No charge goes unnoticed. [`confirm`] commits the attempt (`CONFIRMING`) before it asks the gateway. The outcome and
//! the message that publishes it are the next Commit. If the outcome is unknown, or the process dies in between, the
//! settler looks the attempt up until it is known.
//!
//! - [`model`]: the transitions of a payment, pure; [`record`]: its tables
//! - [`confirm`]: a buyer pays; [`settle`]: open attempts, refunds and webhooks; [`refund`]: cancellations at the gateway
//! - [`webhook`]: receives webhooks; `gateway_state`: compares a payment with its charge, and applies the difference
//! - [`reconcile`]: compares all payments with the gateway's list of transactions
//! - [`operator`]: what an operator does about refunds and attempts that do not end
//! - [`consumers`] and [`http`]: the entry points for messages and requests
//! - [`gateway_binding`]: which gateway a store belongs to
//! - [`in_flight`] and [`retries`]: requests to the gateway in this process, and when to repeat them

pub mod confirm;
pub mod consumers;
pub mod gateway_binding;
mod gateway_state;
pub mod http;
pub mod in_flight;
pub mod metrics;
pub mod model;
pub mod operator;
pub mod reconcile;
pub mod record;
pub mod refund;
pub mod retries;
pub mod settle;
pub mod webhook;

use std::sync::Arc;

use contract::{PaymentId, Timestamp};
use messaging::{
    BackoffPolicy, Clock, CommitError, Fence, Random, Record, Store, StoreError, Table,
};
use serde::Deserialize;
use tokio::sync::Notify;

use in_flight::InFlight;
use model::Refusal;
use record::{
    GatewayRecord, HistoryEntry, OrphanChargeRecord, PaymentRecord, ReconciliationRecord,
    TombstoneRecord, WebhookRecord,
};
use retries::Retries;

pub use consumers::PaymentConsumer;
pub use metrics::Metrics;
pub use reconcile::Reconciler;
pub use settle::Settler;

/// The tables of this service.
pub const TABLES: &[&Table] = &[
    PaymentRecord::TABLE,
    <HistoryEntry as messaging::Entry>::TABLE,
    TombstoneRecord::TABLE,
    OrphanChargeRecord::TABLE,
    WebhookRecord::TABLE,
    ReconciliationRecord::TABLE,
    GatewayRecord::TABLE,
];

/// The newest entries of a payment's history that are shown.
const HISTORY_SHOWN_MAX: i64 = 100;
/// A stored time that is further ahead than this comes from before the clock was set back.
const CLOCK_AHEAD_MILLIS_MAX: i64 = 5_000;
/// An attempt is settled this much later than the gateway's timeout.
const SETTLE_MARGIN_MILLIS: u64 = 1_000;

/// Settings of the payment service.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub gateway: toss::Settings,
    /// An attempt without an outcome is looked up after this time. Default: the gateway's timeout plus one second.
    pub settle_after_millis: Option<u64>,
    /// An attempt is given up only after this time: a gateway that hung may still execute a request that its lookups do
    /// not show yet.
    pub give_up_after_millis: u64,
    /// The first wait before the gateway is asked again; doubled each time,
    pub retry_millis_min: u64,
    /// up to this one.
    pub retry_millis_max: u64,
    /// A refund is parked if the gateway neither executes nor refuses it, but answers with a code, for this time. From 1.
    pub refund_give_up_secs: i64,
    /// How long a handled webhook is kept.
    pub webhook_retention_secs: i64,
    /// The interval of scheduled reconciliations; 0: none are scheduled.
    pub reconcile_every_secs: u32,
    /// A scheduled reconciliation ends this long before now.
    pub reconcile_lag_secs: u32,
    /// How long reports are kept.
    pub reconciliation_retention_secs: i64,
    /// Pass the header `TossPayments-Test-Code` of a request to the gateway. Only with a sandbox or a test key.
    pub forward_test_codes: bool,
    /// Run the sandbox inside this process instead of using `gateway`; the program that wires the services does it.
    pub sandbox: bool,
    /// The sandbox sends webhooks to this process, as the gateway does.
    pub sandbox_webhooks: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            gateway: toss::Settings::default(),
            settle_after_millis: None,
            give_up_after_millis: 60_000,
            retry_millis_min: 500,
            retry_millis_max: 60_000,
            refund_give_up_secs: 24 * 3_600,
            webhook_retention_secs: 30 * 24 * 3_600,
            reconcile_every_secs: 3_600,
            reconcile_lag_secs: 120,
            reconciliation_retention_secs: 90 * 24 * 3_600,
            forward_test_codes: false,
            sandbox: true,
            sandbox_webhooks: false,
        }
    }
}

impl Settings {
    fn settle_after_millis(&self) -> i64 {
        let default = self.gateway.request_timeout_millis + SETTLE_MARGIN_MILLIS;
        i64::try_from(self.settle_after_millis.unwrap_or(default)).unwrap_or(i64::MAX)
    }

    fn give_up_after_millis(&self) -> i64 {
        i64::try_from(self.give_up_after_millis).unwrap_or(i64::MAX)
    }
}

/// Why a request of a buyer or an operator was refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no payment {0}")]
    NotFound(PaymentId),
    #[error("there is no orphan charge {0}")]
    OrphanNotFound(String),
    #[error("a gateway's payment key has 1 to 200 letters, digits, '-', '_', '=' and '.'")]
    PgPaymentId,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the refund is not parked")]
    NotParked,
    #[error("the payment has no attempt at the gateway that is old enough to give up")]
    NotConfirming,
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

/// The payment service; clones share it.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
    /// Belongs into the Commits of settlements, if this is the settler's or the reconciliation's.
    fence: Option<Fence>,
    /// Refunds from before this moment may have been requested by an earlier settler.
    settles_since: Timestamp,
}

struct Inner {
    store: Store,
    clock: Clock,
    random: Random,
    settings: Settings,
    gateway: toss::Client,
    in_flight: Arc<InFlight>,
    payment_retries: Retries<PaymentId>,
    orphan_retries: Retries<String>,
    webhook_retries: Retries<String>,
    reconciling: reconcile::Running,
    metrics: Metrics,
    /// Attempts from before this moment belong to an earlier process.
    started_at: Timestamp,
    wake: Wake,
}

/// Wakes the settler before its next tick.
#[derive(Default)]
struct Wake {
    attempts: Notify,
    refunds: Notify,
    webhooks: Notify,
}

impl Service {
    /// # Errors
    /// If a setting of the gateway cannot work; the gateway itself is not asked.
    pub fn new(
        store: Store,
        clock: Clock,
        random: Random,
        settings: Settings,
        metrics: Metrics,
    ) -> Result<Self, toss::Error> {
        let gateway = toss::Client::new(&settings.gateway)?;
        let started_at = clock.now();
        let backoff = BackoffPolicy {
            millis_min: settings.retry_millis_min,
            millis_max: settings.retry_millis_max,
        };
        Ok(Self {
            inner: Arc::new(Inner {
                store,
                clock,
                random,
                settings,
                gateway,
                in_flight: Arc::default(),
                payment_retries: Retries::new(backoff),
                orphan_retries: Retries::new(backoff),
                webhook_retries: Retries::new(backoff),
                reconciling: reconcile::Running::default(),
                metrics,
                started_at,
                wake: Wake::default(),
            }),
            fence: None,
            settles_since: started_at,
        })
    }

    /// The same service for the settler or the reconciliation: it settles only as long as this fence holds.
    #[must_use]
    pub fn fenced_by(&self, fence: Option<Fence>) -> Self {
        let settles_since = match fence {
            Some(_) => self.inner.clock.now(),
            None => self.settles_since,
        };
        Self {
            fence,
            settles_since,
            ..self.clone()
        }
    }

    /// A stored start time, corrected for a clock that was set back: a time further in the future than machines' clocks
    /// differ becomes the start of this process.
    pub(crate) fn began(&self, at: Timestamp) -> Timestamp {
        let is_ahead = at > self.inner.clock.now().plus_millis(CLOCK_AHEAD_MILLIS_MAX);
        if is_ahead { self.inner.started_at } else { at }
    }

    /// Resolves when no attempt of this process is at the gateway, including those whose client has disconnected. Aborts
    /// a running reconciliation.
    pub async fn drained(&self) {
        self.inner.reconciling.stop();
        self.inner.in_flight.drained().await;
    }

    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn show(&self, id: PaymentId) -> Result<Option<PaymentRecord>, StoreError> {
        self.inner.store.load(id).await
    }

    pub(crate) async fn existing(&self, id: PaymentId) -> Result<PaymentRecord, Error> {
        self.show(id).await?.ok_or(Error::NotFound(id))
    }

    /// The newest 100 entries of a payment's history, oldest first. Each version has one entry, so that they are loaded by
    /// key.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub async fn history(&self, payment: &PaymentRecord) -> Result<Vec<HistoryEntry>, StoreError> {
        let first = (payment.version - HISTORY_SHOWN_MAX).max(0) + 1;
        let keys: Vec<_> = (first..=payment.version)
            .map(|version| HistoryEntry::id(payment.payment_id, version).into())
            .collect();
        let table = <HistoryEntry as messaging::Entry>::TABLE;
        let rows = self.inner.store.load_rows(table, &keys).await?;
        let mut entries = rows
            .into_iter()
            .map(|row| row.read::<HistoryEntry>())
            .collect::<Result<Vec<_>, _>>()?;
        entries.sort_unstable_by_key(|entry| entry.payment_version);
        Ok(entries)
    }
}

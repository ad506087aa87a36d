//! The payment service: a payment is opened by a purchase, confirmed at the gateway by its buyer, and given back
//! where there is no ticket for it.
//!
//! No money is taken that this service does not know of. An attempt is recorded (`CONFIRMING`) before the gateway is
//! asked; what the gateway says is published and becomes the payment's state in the consumer; where the gateway says
//! nothing, or the process dies between the two, the settler looks the attempt up until it is known.
//!
//! - [`model`]: what a payment may become; pure. [`record`]: its tables
//! - [`confirm`]: the buyer pays; [`settle`]: what was left open; [`refund`]: money goes back
//! - [`reclaim`]: what a person does about a refund that the gateway refused
//! - [`webhook`]: what the gateway tells unasked; `state` and `follow`: what a lookup says, and changes
//! - [`reconcile`]: everything that the gateway lists, compared with everything that stands here
//! - [`consumers`] and [`http`]: the two doors
//! - [`audit`]: facts for checks across services
//! - [`books`]: which gateway the payments belong to
//! - [`gateway`]: the client of the payment gateway; [`sandbox`]: its double
//! - [`attempts`]: what is at the gateway at this moment, in this process

pub mod audit;
pub mod confirm;
pub mod consumers;
pub mod gateway;
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
pub mod sandbox;
pub mod settle;
pub mod webhook;

use std::sync::Arc;

use contract::{PaymentId, Timestamp};
use messaging::{BackoffPolicy, Clock, Random, Record, Store, StoreError, Table};
use serde::Deserialize;
use tokio::sync::Notify;

use gateway::Gateway;
use in_flight::InFlight;
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

/// Entries of a payment's history that are shown, the newest.
const HISTORY_SHOWN_MAX: i64 = 100;
/// A time that was stored so far ahead of now was stored by a clock that was set back since.
const CLOCK_AHEAD_MILLIS_MAX: i64 = 5_000;
/// How much longer than the gateway's own timeout an attempt is left alone.
const SETTLE_MARGIN_MILLIS: u64 = 1_000;

/// Settings of the payment service.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    pub gateway: gateway::Settings,
    /// An attempt that is older, and whose outcome is not known, is looked up. Where absent: one second longer than
    /// the gateway's timeout.
    pub settle_after_millis: Option<u64>,
    /// An attempt whose deadline has passed is given up only when it is older: a gateway that hung may still be
    /// working on a request that it does not show yet.
    pub give_up_after_millis: u64,
    /// How long to wait before the gateway is asked again about what it left open: from here, doubled each time,
    pub retry_millis_min: u64,
    /// up to here.
    pub retry_millis_max: u64,
    /// A refund that the gateway neither does nor refuses, and answers with a code, for so long is parked. From 1.
    pub refund_give_up_secs: i64,
    /// How long a handled webhook is remembered.
    pub webhook_retention_secs: i64,
    /// Our payments are compared with the gateway's transactions so often; 0: never by itself.
    pub reconcile_every_secs: u32,
    /// What happened so shortly ago is left to the next time.
    pub reconcile_lag_secs: u32,
    /// How long the reports are kept.
    pub reconciliation_retention_secs: i64,
    /// Pass the header `TossPayments-Test-Code` of a request on to the gateway. Only to a sandbox, or with a test key.
    pub forward_test_codes: bool,
    /// Run the sandbox inside this process in place of `gateway`; the program that wires the services does it.
    pub sandbox: bool,
    /// The sandbox tells this process of every payment by webhook, as the gateway does.
    pub sandbox_webhooks: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            gateway: gateway::Settings::default(),
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

    fn refund_give_up_millis(&self) -> i64 {
        self.refund_give_up_secs.saturating_mul(1_000)
    }

    fn give_up_after_millis(&self) -> i64 {
        i64::try_from(self.give_up_after_millis).unwrap_or(i64::MAX)
    }
}

/// The payment service; clones share it.
#[derive(Clone)]
pub struct Service {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    clock: Clock,
    random: Random,
    settings: Settings,
    gateway: Gateway,
    in_flight: Arc<InFlight>,
    payment_retries: Retries<PaymentId>,
    orphan_retries: Retries<String>,
    webhook_retries: Retries<String>,
    reconciling: reconcile::Running,
    metrics: Metrics,
    /// InFlight from before this moment belong to a process that is gone.
    started_at: Timestamp,
    wake: Wake,
}

/// Wakes the settler, so that it does not wait for its next look.
#[derive(Default)]
struct Wake {
    attempts: Notify,
    refunds: Notify,
    webhooks: Notify,
}

impl Service {
    /// # Errors
    /// Where a setting of the gateway cannot work; the gateway itself is not asked.
    pub fn new(
        store: Store,
        clock: Clock,
        random: Random,
        settings: Settings,
        metrics: Metrics,
    ) -> Result<Self, gateway::Error> {
        let gateway = Gateway::new(&settings.gateway)?;
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
        })
    }

    /// When something began, as this process counts it. What began at a time that is still to come, beyond what clocks of
    /// several machines differ by, began before the clock was set back: it counts from the start of this process.
    pub(crate) fn began(&self, at: Timestamp) -> Timestamp {
        let is_to_come = at > self.inner.clock.now().plus_millis(CLOCK_AHEAD_MILLIS_MAX);
        if is_to_come {
            self.inner.started_at
        } else {
            at
        }
    }

    /// Resolves when no attempt of this process is at the gateway: those whose client has gone are finished too. A
    /// reconciliation is ended.
    pub async fn drained(&self) {
        self.inner.reconciling.stop();
        self.inner.in_flight.drained().await;
    }

    /// One payment.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
    pub async fn show(&self, id: PaymentId) -> Result<Option<PaymentRecord>, StoreError> {
        self.inner.store.load(id).await
    }

    /// What has become of a payment so far, oldest first; the newest 100 entries. Each version has one entry, so they are
    /// named without a search.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
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

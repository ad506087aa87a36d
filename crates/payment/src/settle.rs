//! The settler ends what is open: attempts without an outcome, requested refunds, orphan charges, received webhooks.
//!
//! **The answer to a confirm was lost**, or the process died before it was stored:
//!
//! 1. The attempt is a row `CONFIRMING`, committed before the gateway was asked. A living process answers 202 and wakes its
//!    lane `InFlight`, if it settles (`leave_to_settler`).
//! 2. That lane finds the row (`settle_lane`, every 500 ms). It is due (`is_due`) at once if this process left it, or it began
//!    before this process; else `settle_after_millis` after its start. Each further look is later, up to a minute.
//! 3. `look_up` asks by the gateway's key, then by the order id; `gateway_state::compare` reads the charge.
//! 4. Charged: `apply_gateway_state` and `outcome_commit` make the Commit that confirm would have made: the payment `SUCCEEDED`
//!    with history and `domain.payment`; `payment.confirmed.request` under the same id; the reply to a deletion that waited for
//!    the outcome; an orphan record of this charge is deleted. `settled` adds the fence, if there is one. The buyer's key has
//!    no answer: a repeated request finds `AlreadySucceeded`, and stores it.
//! 5. Not charged: `finish` repeats the confirm with the same idempotency key, and declines the attempt after the deadline or
//!    if repeating does not help. No answer proves nothing: it looks again later.
//!
//! A webhook (`settle_webhook`) or the reconciliation may be first: they compare and apply in the same way, and who comes
//! second has a conflict, or finds both in sync.
//!
//! One process of those that share a store settles at a time; [`Service::fenced_by`] passes the proof. Its commits are
//! fenced; requests to the gateway are not, and carry idempotency keys.
//!
//! Attempts, refunds and webhooks have lanes of their own, each with its share of the gateway's connections: a flood of
//! webhooks, which anybody can send, does not delay attempts and refunds.

mod attempt;
mod webhook;

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use futures::{StreamExt, stream};
use messaging::{
    Commit, CommitError, Find, Periodic, Record, Schedule, Shutdown, StoreError, Tick, periodic,
};

use crate::{
    Service,
    record::{OrphanChargeRecord, PaymentRecord, Refund, WebhookRecord},
    refund,
};

/// Rows read at once.
const PAGE_ROWS_MAX: u32 = 512;
/// The interval at which each lane looks for what is due.
const TICK_MILLIS: i64 = 500;

/// A kind of work that does not wait for the others.
#[derive(Debug, Clone, Copy)]
enum Lane {
    InFlight,
    Refunds,
    Webhooks,
}

impl Lane {
    /// Requests to the gateway at once; the buyers share its connections.
    const fn settlements_max(self) -> usize {
        match self {
            Self::InFlight => 16,
            Self::Refunds => 8,
            Self::Webhooks => 4,
        }
    }
}

const CONFIRMING: &str = "status = 'CONFIRMING'";
const TO_REFUND: &str = "refund = 'REQUESTED'";
const TO_HANDLE: &str = "state = 'RECEIVED'";

/// Settles what is due in one lane.
struct LaneTask {
    settler: Settler,
    lane: Lane,
}

impl Periodic for LaneTask {
    fn schedule(&self) -> Schedule {
        Schedule {
            name: "payment.settler",
            interval_millis: TICK_MILLIS,
            is_interruptible: true,
        }
    }

    async fn tick(&mut self) -> Result<Tick, StoreError> {
        self.settler
            .settle_lane(self.lane)
            .await
            .map(|_| Tick::Done)
    }

    async fn woken(&self) {
        let wake = &self.settler.service.inner.wake;
        let wake = match self.lane {
            Lane::InFlight => &wake.attempts,
            Lane::Refunds => &wake.refunds,
            Lane::Webhooks => &wake.webhooks,
        };
        wake.notified().await;
    }
}

/// Settles, until shutdown is requested.
#[derive(Clone)]
pub struct Settler {
    service: Service,
}

impl Settler {
    #[must_use]
    pub fn new(service: Service) -> Self {
        Self { service }
    }

    /// Settles what is due until shutdown is requested. A settlement that is interrupted is repeated at the next start.
    pub async fn run(self, shutdown: Shutdown) {
        let run = |lane| {
            let settler = self.clone();
            let clock = settler.service.inner.clock.clone();
            periodic::run(LaneTask { settler, lane }, clock, shutdown.clone())
        };
        futures::join!(run(Lane::InFlight), run(Lane::Refunds), run(Lane::Webhooks));
        // The next settler counts them.
        self.service.inner.metrics.refunds_overdue(0);
    }

    /// Settles what is due once; returns how much was settled.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer; what was not settled stays due.
    pub async fn settle_due(&self) -> Result<usize, StoreError> {
        let mut settled = 0;
        for lane in [Lane::Webhooks, Lane::InFlight, Lane::Refunds] {
            settled += self.settle_lane(lane).await?;
        }
        Ok(settled)
    }

    async fn settle_lane(&self, lane: Lane) -> Result<usize, StoreError> {
        let service = &self.service;
        let (inner, now) = (&service.inner, service.inner.clock.now());
        match lane {
            Lane::InFlight => {
                inner.payment_retries.forget_stale(now);
                let settle = |it: PaymentRecord| service.settle_payment(it);
                self.each(lane, CONFIRMING, settle).await
            }
            Lane::Refunds => {
                inner.orphan_retries.forget_stale(now);
                self.settle_refunds().await
            }
            Lane::Webhooks => {
                inner.webhook_retries.forget_stale(now);
                let settle = |it: WebhookRecord| service.settle_webhook(it);
                self.each(lane, TO_HANDLE, settle).await
            }
        }
    }

    async fn settle_refunds(&self) -> Result<usize, StoreError> {
        let service = &self.service;
        let (overdue, now) = (AtomicI64::new(0), service.inner.clock.now());
        let count = |since| {
            let is_overdue = refund::is_overdue(since, now);
            overdue.fetch_add(i64::from(is_overdue), Relaxed);
        };
        let settle = |it: PaymentRecord| {
            count(it.refund_requested_since());
            service.settle_payment(it)
        };
        let payments = self.each(Lane::Refunds, TO_REFUND, settle).await?;
        let settle = |it: OrphanChargeRecord| {
            count(it.refund_requested_since());
            service.settle_orphan(it)
        };
        let orphans = self.each(Lane::Refunds, TO_REFUND, settle).await?;
        service.inner.metrics.refunds_overdue(overdue.into_inner());
        Ok(payments + orphans)
    }

    /// Settles every row that matches `only`, in pages, a few at once.
    async fn each<R: Record, F>(
        &self,
        lane: Lane,
        only: &'static str,
        settle: impl Fn(R) -> F,
    ) -> Result<usize, StoreError>
    where
        F: Future<Output = Result<bool, StoreError>>,
    {
        let mut settled = 0;
        let find = Find::all(R::TABLE, PAGE_ROWS_MAX).only(only);
        let mut pages = self.service.inner.store.pages(find);
        while let Some(found) = pages.next::<R>().await? {
            let outcomes: Vec<Result<bool, StoreError>> = stream::iter(found)
                .map(&settle)
                .buffer_unordered(lane.settlements_max())
                .collect()
                .await;
            for outcome in outcomes {
                settled += usize::from(outcome?);
            }
        }
        Ok(settled)
    }
}

impl Service {
    /// Refunds an orphan charge; returns whether that ended.
    async fn settle_orphan(&self, orphan: OrphanChargeRecord) -> Result<bool, StoreError> {
        let inner = &self.inner;
        let key = &orphan.pg_payment_id;
        let is_due = inner.orphan_retries.is_due(key, inner.clock.now());
        if is_due == Some(false) {
            return Ok(false);
        }
        // A request about its payment that is in flight may make this charge the payment's own.
        let Some(_attempt) = inner.in_flight.enter(orphan.payment_id) else {
            return Ok(false);
        };
        let orphan: Option<OrphanChargeRecord> = inner.store.load(key.as_str()).await?;
        let Some(orphan) = orphan.filter(|orphan| orphan.refund == Refund::Requested) else {
            return Ok(false);
        };
        let key = &orphan.pg_payment_id;
        let commit = self.refund_orphan_charge(&orphan).await?;
        inner
            .orphan_retries
            .retry_later(key, &inner.random, inner.clock.now());
        match commit {
            Some(commit) => self.settled(commit).await,
            None => Ok(false),
        }
    }

    /// Commits a settlement; returns whether the store accepted it.
    pub(crate) async fn settled(&self, mut commit: Commit) -> Result<bool, StoreError> {
        commit.fences.extend(self.fence.clone());
        match self.inner.store.commit(commit).await {
            Ok(()) => Ok(true),
            // A concurrent change, or another process settles: the next look loads it.
            Err(CommitError::Conflict { .. } | CommitError::Fenced { .. }) => Ok(false),
            Err(CommitError::Store(error)) => Err(error),
            Err(error @ CommitError::Constraint { .. }) => {
                tracing::error!(%error, "the store refused a settlement");
                Ok(false)
            }
        }
    }
}

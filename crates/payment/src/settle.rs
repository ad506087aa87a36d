//! The settler finishes what was left open: attempts whose outcome is not known, and refunds that are wanted.
//!
//! An attempt is looked up first, by the gateway's name and by ours; only where the gateway says that nothing was
//! charged is it asked again, with the same idempotency key. Silence proves nothing: then it is looked up later.

use contract::{PaymentId, Timestamp, domain::PaymentStatus};
use futures::{StreamExt, stream};
use messaging::{Commit, CommitError, Find, Record, Shutdown, StoreError};

use crate::{
    Service,
    confirm::Verdict,
    gateway::Lookup,
    inquiry::{self, Finding},
    model::DEADLINE_PASSED,
    record::{PaymentRecord, Refund},
};

/// Payments settled at once; the gateway's connections are shared with the buyers.
const SETTLEMENTS_MAX: usize = 16;
/// Payments read at once.
const PAGE_ROWS_MAX: u32 = 512;
/// How late something that is due may be looked at.
const TICK_MILLIS: i64 = 500;

const CONFIRMING: &str = "status = 'CONFIRMING'";
const TO_REFUND: &str = "refund = 'REQUESTED'";

/// Settles, until told to stop.
#[derive(Clone)]
pub struct Settler {
    service: Service,
}

impl Settler {
    #[must_use]
    pub fn new(service: Service) -> Self {
        Self { service }
    }

    /// Settles what is due until told to stop. A settlement that is stopped half way is made again at the next start.
    pub async fn run(self, mut shutdown: Shutdown) {
        loop {
            let settled = tokio::select! {
                () = shutdown.requested() => return,
                settled = self.settle_due() => settled,
            };
            match settled {
                Ok(_) => {}
                Err(StoreError::Poisoned(_)) => return,
                Err(error) => tracing::warn!(%error, "the settler waits for its store"),
            }
            let inner = &self.service.inner;
            let next = inner.clock.now().plus_millis(TICK_MILLIS);
            tokio::select! {
                () = shutdown.requested() => return,
                () = inner.clock.wait_until(next) => {}
                () = inner.wake.notified() => {}
            }
        }
    }

    /// Looks once at everything that is due; returns how many payments were settled.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer; what was not settled stays due.
    pub async fn settle_due(&self) -> Result<usize, StoreError> {
        let settled = self.settle_all(CONFIRMING).await? + self.settle_all(TO_REFUND).await?;
        let inner = &self.service.inner;
        inner.backoffs.forget_overdue(inner.clock.now());
        Ok(settled)
    }

    async fn settle_all(&self, what: &'static str) -> Result<usize, StoreError> {
        let mut settled = 0;
        let mut after = None;
        loop {
            let find = Find::all(PaymentRecord::TABLE, PAGE_ROWS_MAX).only(what);
            let found: Vec<PaymentRecord> =
                self.service.inner.store.find(find.after(after)).await?;
            let is_last = found.len() < PAGE_ROWS_MAX as usize;
            after = found.last().map(|payment| payment.payment_id);
            let now = self.service.inner.clock.now();
            let due = found
                .into_iter()
                .filter(|payment| self.service.is_due(payment, now));
            let outcomes: Vec<Result<bool, StoreError>> = stream::iter(due)
                .map(|payment| self.service.settle(payment.payment_id))
                .buffer_unordered(SETTLEMENTS_MAX)
                .collect()
                .await;
            for outcome in outcomes {
                settled += usize::from(outcome?);
            }
            if is_last {
                return Ok(settled);
            }
        }
    }
}

impl Service {
    fn is_due(&self, payment: &PaymentRecord, now: Timestamp) -> bool {
        let inner = &self.inner;
        if let Some(is_due) = inner.backoffs.is_due(payment.payment_id, now) {
            return is_due;
        }
        match payment.attempt_started_at {
            Some(at) if payment.status == PaymentStatus::Confirming => {
                at <= inner.started_at
                    || now.millis_since(at) >= inner.settings.settle_after_millis()
            }
            _ => true,
        }
    }

    /// Settles one payment, as it is now; returns whether that came to an end.
    async fn settle(&self, id: PaymentId) -> Result<bool, StoreError> {
        let inner = &self.inner;
        let Some(_attempt) = inner.attempts.enter(id) else {
            return Ok(false);
        };
        let Some(payment) = self.show(id).await? else {
            return Ok(false);
        };
        fail::fail_point!("settler.before_gateway", |_| std::process::abort());
        let commit = match (payment.status, payment.refund) {
            (PaymentStatus::Confirming, _) => self.settle_attempt(&payment).await,
            (_, Refund::Requested) => self.settle_refund(&payment).await,
            _ => {
                inner.backoffs.forget(id);
                return Ok(false);
            }
        };
        fail::fail_point!("settler.after_gateway", |_| std::process::abort());
        let outcome = match commit {
            Some(commit) => inner.store.commit(commit).await,
            None => {
                self.look_later(id);
                return Ok(false);
            }
        };
        fail::fail_point!("settler.after_commit", |_| std::process::abort());
        // What was published is still to be taken in by the consumer: until then it looks open.
        self.look_later(id);
        match outcome {
            Ok(()) => Ok(true),
            // Changed meanwhile: the next look sees it as it is.
            Err(CommitError::Conflict { .. }) => Ok(false),
            Err(CommitError::Store(error)) => Err(error),
            Err(error @ (CommitError::Constraint { .. } | CommitError::Fenced { .. })) => {
                tracing::error!(payment.id = %id, %error, "a settlement was refused by the store");
                Ok(false)
            }
        }
    }

    fn look_later(&self, id: PaymentId) {
        let inner = &self.inner;
        inner
            .backoffs
            .wait_longer(id, &inner.random, inner.clock.now());
    }

    async fn settle_attempt(&self, payment: &PaymentRecord) -> Option<Commit> {
        let verdict = match self.inquire(payment).await {
            Finding::Proven(verdict) => verdict,
            Finding::Open => self.finish(payment).await?,
            Finding::Unclear => return None,
        };
        tracing::info!(payment.id = %payment.payment_id, attempt = payment.attempt, ?verdict, "an attempt is settled");
        Some(self.outcome(payment, &verdict))
    }

    /// Looks an attempt up by its key, and then by its order: another attempt may have paid for it.
    async fn inquire(&self, payment: &PaymentRecord) -> Finding {
        let Some(key) = payment.pg_payment_id.as_deref() else {
            return Finding::Unclear;
        };
        if payment.final_amount == contract::Money::ZERO {
            return Finding::Open;
        }
        let gateway = &self.inner.gateway;
        match self.read(payment, gateway.find_by_key(key).await) {
            Finding::Open => {
                let order = gateway.find_by_order(&payment.order_id()).await;
                self.read(payment, order)
            }
            finding => finding,
        }
    }

    fn read(&self, payment: &PaymentRecord, lookup: Lookup) -> Finding {
        match lookup {
            Lookup::Found(charge) => {
                let finding = inquiry::read(payment, &charge);
                if finding == Finding::Unclear {
                    tracing::error!(payment.id = %payment.payment_id, ?charge, "the gateway shows a charge that does not fit its payment");
                }
                finding
            }
            Lookup::NotFound => Finding::Open,
            Lookup::Unknown { reason } => {
                tracing::warn!(payment.id = %payment.payment_id, reason, "an attempt could not be looked up");
                Finding::Unclear
            }
        }
    }

    /// The gateway shows no charge: it is asked again for the same attempt, while there is time, and given up when
    /// there is none and nothing can be under way any more.
    async fn finish(&self, payment: &PaymentRecord) -> Option<Verdict> {
        let now = self.inner.clock.now();
        if !payment.is_past_deadline(now) {
            return self.take_money(payment, None).await;
        }
        let age = now.millis_since(payment.attempt_started_at?);
        (age >= self.inner.settings.give_up_after_millis()).then(|| Verdict::Declined {
            code: DEADLINE_PASSED.to_owned(),
        })
    }
}

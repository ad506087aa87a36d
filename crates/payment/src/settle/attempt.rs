//! Settles one payment: looks its attempt up, or requests its refund.

use contract::{PaymentId, Timestamp, domain::PaymentStatus};
use messaging::{Commit, StoreError};
use toss::{Charge, Lookup};

use crate::{
    Service,
    confirm::AttemptOutcome,
    gateway_state::{self, GatewayState},
    model::DEADLINE_PASSED,
    record::{PaymentRecord, Refund},
    refund::RefundOutcome,
};

/// The decline code of an attempt that the gateway never charges.
pub const NOT_CHARGED: &str = "NOT_CHARGED";
/// The decline code of a virtual account without a deposit in time.
pub const NO_DEPOSIT: &str = "NO_DEPOSIT";
/// The confirm of an attempt is repeated at least so often before the attempt is given up.
const REPEATS_MIN: u32 = 6;

/// What the lookups of an attempt prove.
enum AttemptLookup {
    Charge(Box<Charge>, GatewayState),
    /// The gateway has no charge.
    NotCharged,
    /// No lookup was answered.
    Unknown,
}

impl Service {
    fn is_due(&self, payment: &PaymentRecord, now: Timestamp) -> bool {
        let inner = &self.inner;
        if let Some(is_due) = inner.payment_retries.is_due(&payment.payment_id, now) {
            return is_due;
        }
        match payment.attempt_started_at {
            Some(at) if payment.status == PaymentStatus::Confirming => {
                let at = self.began(at);
                at <= inner.started_at
                    || now.millis_since(at) >= inner.settings.settle_after_millis()
            }
            _ => true,
        }
    }

    /// Settles the current state of a payment; returns whether that ended.
    pub(super) async fn settle_payment(&self, seen: PaymentRecord) -> Result<bool, StoreError> {
        let inner = &self.inner;
        if !self.is_due(&seen, inner.clock.now()) {
            return Ok(false);
        }
        let id = seen.payment_id;
        let Some(_attempt) = inner.in_flight.enter(id) else {
            return Ok(false);
        };
        let open_at = inner.clock.now();
        let Some(payment) = self.show(id).await? else {
            return Ok(false);
        };
        fail::fail_point!("settler.before_gateway", |_| std::process::abort());
        let commit = match (payment.status, payment.refund) {
            (PaymentStatus::Confirming, _) => self.settle_attempt(&payment, open_at).await?,
            (_, Refund::Requested) => self.settle_refund(&payment).await?,
            _ => {
                inner.payment_retries.forget(&id);
                return Ok(false);
            }
        };
        fail::fail_point!("settler.after_gateway", |_| std::process::abort());
        let settled = match commit {
            Some(commit) => self.settled(commit).await,
            None => Ok(false),
        };
        fail::fail_point!("settler.after_commit", |_| std::process::abort());
        // If the settlement did not end it, the payment is still open.
        self.look_later(id);
        settled
    }

    fn look_later(&self, id: PaymentId) {
        let inner = &self.inner;
        inner
            .payment_retries
            .retry_later(&id, &inner.random, inner.clock.now());
    }

    async fn settle_attempt(
        &self,
        payment: &PaymentRecord,
        open_at: Timestamp,
    ) -> Result<Option<Commit>, StoreError> {
        let result = match self.look_up(payment).await {
            AttemptLookup::Unknown => return Ok(None),
            AttemptLookup::Charge(_, GatewayState::AwaitingDeposit)
                if payment.is_unwanted(self.inner.clock.now()) =>
            {
                self.end_wait(payment).await
            }
            // Another charge of the order is refunded, and the attempt continues.
            AttemptLookup::Charge(charge, GatewayState::Orphan) => {
                let mut commit = self
                    .apply_gateway_state(payment, &charge, &GatewayState::Orphan)
                    .await?;
                if let Some(result) = self.finish(payment, open_at).await {
                    let outcome = self.outcome_commit(payment, &result).await?;
                    commit.get_or_insert_default().merge(outcome);
                }
                return Ok(commit);
            }
            AttemptLookup::Charge(charge, state) if state != GatewayState::Pending => {
                return self.apply_gateway_state(payment, &charge, &state).await;
            }
            AttemptLookup::Charge(..) | AttemptLookup::NotCharged => {
                self.finish(payment, open_at).await
            }
        };
        let Some(result) = result else {
            return Ok(None);
        };
        tracing::info!(payment.id = %payment.payment_id, attempt = payment.attempt, ?result, "an attempt is settled");
        self.outcome_commit(payment, &result).await.map(Some)
    }

    /// Looks an attempt up by its key, and then by its order, which another attempt may have paid.
    async fn look_up(&self, payment: &PaymentRecord) -> AttemptLookup {
        let Some(key) = payment.pg_payment_id.as_deref() else {
            return AttemptLookup::Unknown;
        };
        if payment.is_free() {
            return AttemptLookup::NotCharged;
        }
        let gateway = &self.inner.gateway;
        match read(payment, gateway.find_by_key(key).await) {
            // The buyer's key may belong to another order, or the gateway may refuse to show it. A charge of this order is
            // found by the order.
            AttemptLookup::NotCharged
            | AttemptLookup::Unknown
            | AttemptLookup::Charge(_, GatewayState::Pending | GatewayState::OtherOrder) => {
                read(payment, gateway.find_by_order(&payment.order_id()).await)
            }
            found => found,
        }
    }

    /// Without a charge, the confirm is repeated until the deadline. The attempt is given up after the deadline, or if
    /// repeating does not help, but only when no request can be in flight: not that of the attempt, nor a repeated one of
    /// this settler or of the one before it. Then a further attempt is possible.
    async fn finish(&self, payment: &PaymentRecord, open_at: Timestamp) -> Option<AttemptOutcome> {
        let (retries, id) = (&self.inner.payment_retries, &payment.payment_id);
        let now = self.inner.clock.now();
        let age = self.age(payment.attempt_started_at?, retries.unknown_at(id));
        let is_over =
            |at: Timestamp| now.millis_since(at) >= self.inner.settings.give_up_after_millis();
        let may_be_in_flight = !is_over(age.since) || age.unknown_at.is_some_and(|at| !is_over(at));
        let is_unwanted = payment.is_unwanted(now);
        let repeating_helps = !is_over(age.since) || retries.repeats(id) < REPEATS_MIN;
        if repeating_helps && !is_unwanted {
            retries.count_repeat(id, now);
            return self.confirm_at_gateway(payment, open_at, None).await;
        }
        if may_be_in_flight {
            return None;
        }
        let code = match is_unwanted && payment.is_past_deadline(now) {
            true => DEADLINE_PASSED,
            false => NOT_CHARGED,
        };
        Some(AttemptOutcome::Declined {
            code: code.to_owned(),
        })
    }

    /// Closes a virtual account after the deadline.
    async fn end_wait(&self, payment: &PaymentRecord) -> Option<AttemptOutcome> {
        match self.close_virtual_account(payment).await? {
            RefundOutcome::Done => Some(AttemptOutcome::Declined {
                code: NO_DEPOSIT.to_owned(),
            }),
            // A deposit may have arrived, or the gateway has failed: look it up again.
            RefundOutcome::Refused { .. }
            | RefundOutcome::Delayed { .. }
            | RefundOutcome::Unknown { .. } => None,
        }
    }
}

fn read(payment: &PaymentRecord, lookup: Lookup) -> AttemptLookup {
    match lookup {
        Lookup::Found(charge) => {
            let state = gateway_state::compare(payment, &charge);
            AttemptLookup::Charge(Box::new(charge), state)
        }
        Lookup::NotFound => AttemptLookup::NotCharged,
        Lookup::Unknown { reason } => {
            tracing::warn!(payment.id = %payment.payment_id, reason, "cannot look an attempt up");
            AttemptLookup::Unknown
        }
    }
}

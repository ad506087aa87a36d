//! What a lookup changes: whoever has looked a payment up, for whatever reason, brings it to what the gateway shows
//! in the same way.

use contract::{Money, domain::PaymentStatus};
use messaging::{Commit, StoreError};

use crate::{
    Service,
    confirm::AttemptOutcome,
    gateway::Charge,
    gateway_state::{self, GatewayState},
    model::Change,
    record::{OrphanChargeRecord, PaymentRecord},
};

/// The decline code of an attempt for which the gateway charged something else than was asked.
pub const WRONG_AMOUNT: &str = "WRONG_AMOUNT";

impl Service {
    /// The Commit that brings a payment to what the gateway shows of it; `None` where nothing is to be done, or where
    /// a person must say who is right.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
    pub(crate) async fn apply_gateway_state(
        &self,
        payment: &PaymentRecord,
        charge: &Charge,
        state: &GatewayState,
    ) -> Result<Option<Commit>, StoreError> {
        let now = self.inner.clock.now();
        let changed = match state {
            GatewayState::Outcome(verdict) => {
                return self.outcome_commit(payment, verdict).await.map(Some);
            }
            GatewayState::Orphan => return self.refund_orphan(payment, charge).await,
            GatewayState::WrongAmount => return self.refund_wrong_amount(payment, charge).await,
            GatewayState::CancelledAtGateway => payment.cancelled_at_gateway(now),
            GatewayState::DepositReversed => payment.deposit_reversed(now),
            GatewayState::Refunded => payment.finish_refund(now),
            GatewayState::AwaitingDeposit => charge
                .virtual_account
                .as_ref()
                .and_then(|account| payment.set_virtual_account(account, now)),
            GatewayState::Mismatch(difference) => {
                tracing::error!(payment.id = %payment.payment_id, ?charge, difference, "a payment and its charge differ");
                None
            }
            GatewayState::InSync if gateway_state::is_refunded(charge) => {
                return self.finish_returned_orphan(charge).await;
            }
            GatewayState::InSync | GatewayState::Pending | GatewayState::OtherOrder => None,
        };
        Ok(changed.map(|change| commit_of(&change)))
    }

    /// A charge that was to go back has gone: by our asking, or by somebody's hand at the gateway.
    async fn finish_returned_orphan(&self, charge: &Charge) -> Result<Option<Commit>, StoreError> {
        let orphan = self.open_orphan(charge).await?;
        Ok(orphan.map(|orphan| {
            let mut commit = Commit::new();
            commit.put(&orphan.finished(self.inner.clock.now()));
            commit
        }))
    }

    async fn open_orphan(&self, charge: &Charge) -> Result<Option<OrphanChargeRecord>, StoreError> {
        let known: Option<OrphanChargeRecord> =
            self.inner.store.load(charge.payment_key.as_str()).await?;
        Ok(known.filter(OrphanChargeRecord::is_open))
    }

    /// What was charged goes back, and the attempt has failed.
    async fn refund_wrong_amount(
        &self,
        payment: &PaymentRecord,
        charge: &Charge,
    ) -> Result<Option<Commit>, StoreError> {
        let mut commit = self.refund_orphan(payment, charge).await?;
        if payment.status == PaymentStatus::Confirming {
            let verdict = AttemptOutcome::Declined {
                code: WRONG_AMOUNT.to_owned(),
            };
            let outcome = self.outcome_commit(payment, &verdict).await?;
            commit.get_or_insert_default().merge(outcome);
        }
        Ok(commit)
    }

    /// A charge that nobody asked for is asked back, once each time that it is found to be there.
    async fn refund_orphan(
        &self,
        payment: &PaymentRecord,
        charge: &Charge,
    ) -> Result<Option<Commit>, StoreError> {
        let now = self.inner.clock.now();
        let key = charge.payment_key.as_str();
        let known = self.inner.store.load(key).await?;
        // An account that waits may show nothing: it is closed all the same.
        let amount = Money::new(charge.balance_amount).unwrap_or(Money::ZERO);
        let Some(orphan) = payment.orphan_to_refund(key, amount, known, now) else {
            return Ok(None);
        };
        self.inner.metrics.orphan_charge();
        tracing::error!(payment.id = %payment.payment_id, ?charge, "an order was charged beside its payment: it goes back");
        let mut commit = Commit::new();
        commit.put(&orphan);
        Ok(Some(commit))
    }
}

/// A change of a refund with the answer to the saga that asked for it, where there is one.
pub(crate) fn commit_of(change: &Change) -> Commit {
    let mut commit = Commit::new();
    change.save(&mut commit);
    change.answer_saga(&mut commit);
    commit
}

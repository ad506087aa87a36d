//! The Commit that brings a payment to its state at the gateway, for the settler, webhooks and the reconciliation alike.

use contract::{Money, domain::PaymentStatus};
use messaging::{Commit, StoreError};
use toss::Charge;

use crate::{
    Service,
    confirm::AttemptOutcome,
    gateway_state::{self, GatewayState},
    model::Change,
    record::{OrphanChargeRecord, PaymentRecord},
};

/// The decline code of an attempt that the gateway charged with another amount.
pub const WRONG_AMOUNT: &str = "WRONG_AMOUNT";

impl Service {
    /// The Commit that applies `state` to `payment`; `None` if nothing has to be done, or an operator must decide.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub(crate) async fn apply_gateway_state(
        &self,
        payment: &PaymentRecord,
        charge: &Charge,
        state: &GatewayState,
    ) -> Result<Option<Commit>, StoreError> {
        let now = self.inner.clock.now();
        let changed = match state {
            GatewayState::Outcome(result) => {
                return self.outcome_commit(payment, result).await.map(Some);
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

    /// Finishes the refund of an orphan charge that is cancelled, by this service or at the gateway itself.
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

    /// Refunds the charge and fails the attempt.
    async fn refund_wrong_amount(
        &self,
        payment: &PaymentRecord,
        charge: &Charge,
    ) -> Result<Option<Commit>, StoreError> {
        let mut commit = self.refund_orphan(payment, charge).await?;
        if payment.status == PaymentStatus::Confirming {
            let result = AttemptOutcome::Declined {
                code: WRONG_AMOUNT.to_owned(),
            };
            let outcome = self.outcome_commit(payment, &result).await?;
            commit.get_or_insert_default().merge(outcome);
        }
        Ok(commit)
    }

    /// Requests the refund of an orphan charge, once each time that it is found charged.
    async fn refund_orphan(
        &self,
        payment: &PaymentRecord,
        charge: &Charge,
    ) -> Result<Option<Commit>, StoreError> {
        let now = self.inner.clock.now();
        let key = charge.payment_key.as_str();
        let known = self.inner.store.load(key).await?;
        // A waiting account may have no balance: it is closed all the same.
        let amount = Money::new(charge.balance_amount).unwrap_or(Money::ZERO);
        let Some(orphan) = payment.orphan_to_refund(key, amount, known, now) else {
            return Ok(None);
        };
        self.inner.metrics.orphan_charge();
        tracing::error!(payment.id = %payment.payment_id, ?charge, "an order has an orphan charge, which is refunded");
        let mut commit = Commit::new();
        commit.put(&orphan);
        Ok(Some(commit))
    }
}

/// The Commit of a change, with the response to the saga that requested the refund, if any.
pub(crate) fn commit_of(change: &Change) -> Commit {
    let mut commit = Commit::new();
    change.save(&mut commit);
    change.answer_saga(&mut commit);
    commit
}

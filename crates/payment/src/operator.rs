//! What an operator does about refunds and attempts that do not end by themselves: set an account, retry, give up.

use contract::{PaymentId, UserId, domain::PaymentStatus};
use messaging::Commit;
use toss::protocol::RefundAccount;

use crate::{
    Error, Service,
    confirm::AttemptOutcome,
    model::Refusal,
    record::{OrphanChargeRecord, PaymentRecord, Refund},
};

/// The decline code of an attempt that an operator has given up.
pub const ABANDONED: &str = "ABANDONED";

impl Service {
    /// Requests a parked refund again.
    ///
    /// # Errors
    /// [`Error::NotParked`] if the refund is in progress, done, or was never requested.
    pub async fn resume_refund(&self, id: PaymentId) -> Result<(), Error> {
        let payment = self.existing(id).await?;
        let change = payment
            .resume_refund(self.inner.clock.now())
            .ok_or(Error::NotParked)?;
        let mut commit = Commit::new();
        change.save(&mut commit);
        self.inner.store.commit(commit).await?;
        self.inner.payment_retries.forget(&id);
        self.inner.wake.refunds.notify_one();
        Ok(())
    }

    /// Sets the account that receives the refund of a deposit.
    ///
    /// # Errors
    /// [`Error`]; nothing is changed.
    pub async fn set_refund_account(
        &self,
        id: PaymentId,
        account: &RefundAccount,
        user_id: Option<UserId>,
    ) -> Result<(), Error> {
        let payment = self.owned(id, user_id).await?;
        let mut commit = Commit::new();
        payment
            .set_refund_account(account, self.inner.clock.now())
            .save(&mut commit);
        Ok(self.inner.store.commit(commit).await?)
    }

    /// Gives up an attempt whose outcome the gateway never tells, after an operator has asked it by another way. An
    /// approval that arrives later counts all the same.
    ///
    /// # Errors
    /// [`Error::NotConfirming`] if no attempt is open, or it is younger than `give_up_after_millis`.
    pub async fn abandon(&self, id: PaymentId, user_id: Option<UserId>) -> Result<(), Error> {
        let payment = self.owned(id, user_id).await?;
        let age = payment
            .attempt_started_at
            .map_or(0, |at| self.inner.clock.now().millis_since(self.began(at)));
        let is_old = age >= self.inner.settings.give_up_after_millis();
        if payment.status != PaymentStatus::Confirming || !is_old {
            return Err(Error::NotConfirming);
        }
        let result = AttemptOutcome::Declined {
            code: ABANDONED.to_owned(),
        };
        let commit = self.outcome_commit(&payment, &result).await?;
        Ok(self.inner.store.commit(commit).await?)
    }

    /// Requests the parked refund of an orphan charge again.
    ///
    /// # Errors
    /// [`Error::NotParked`] if the refund is in progress or done.
    pub async fn resume_orphan_refund(&self, pg_payment_id: &str) -> Result<(), Error> {
        let orphan: Option<OrphanChargeRecord> = self.inner.store.load(pg_payment_id).await?;
        let orphan = orphan.ok_or_else(|| Error::OrphanNotFound(pg_payment_id.to_owned()))?;
        if orphan.refund != Refund::Parked {
            return Err(Error::NotParked);
        }
        let mut commit = Commit::new();
        commit.put(&orphan.refund_requested_again(self.inner.clock.now()));
        self.inner.store.commit(commit).await?;
        self.inner.orphan_retries.forget(&orphan.pg_payment_id);
        self.inner.wake.refunds.notify_one();
        Ok(())
    }

    /// The payment, if the caller is unknown or its owner.
    async fn owned(&self, id: PaymentId, user_id: Option<UserId>) -> Result<PaymentRecord, Error> {
        let payment = self.existing(id).await?;
        if user_id.is_some_and(|user| user != payment.user_id) {
            return Err(Refusal::OwnerMismatch.into());
        }
        Ok(payment)
    }
}

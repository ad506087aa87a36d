//! What a lookup changes: whoever has looked a payment up, for whatever reason, brings it to what the gateway shows
//! in the same way.

use contract::{Money, domain::PaymentStatus};
use messaging::{Commit, StoreError};

use crate::{
    Service,
    confirm::Verdict,
    gateway::Charge,
    model::Change,
    record::{PaymentRecord, StrayRecord},
    standing::{self, Standing},
};

/// The decline code of an attempt for which the gateway charged something else than was asked.
pub const WRONG_AMOUNT: &str = "WRONG_AMOUNT";

impl Service {
    /// The Commit that brings a payment to what the gateway shows of it; `None` where nothing is to be done, or where
    /// a person must say who is right.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
    pub(crate) async fn follow(
        &self,
        payment: &PaymentRecord,
        charge: &Charge,
        standing: &Standing,
    ) -> Result<Option<Commit>, StoreError> {
        let now = self.inner.clock.now();
        let changed = match standing {
            Standing::Outcome(verdict) => return self.outcome(payment, verdict).await.map(Some),
            Standing::Stray => return self.follow_stray(payment, charge).await,
            Standing::WrongAmount => return self.follow_wrong_amount(payment, charge).await,
            Standing::Withdrawn => payment.withdraw(now),
            Standing::DepositGone => payment.lose_deposit(now),
            Standing::Refunded => payment.finish_refund(now),
            Standing::WaitsForDeposit => charge
                .virtual_account
                .as_ref()
                .and_then(|account| payment.learn_account(account, now)),
            Standing::Differs(difference) => {
                tracing::error!(payment.id = %payment.payment_id, ?charge, difference, "a payment and its charge differ");
                None
            }
            Standing::Agrees if standing::is_refunded(charge) => {
                return self.follow_return(charge).await;
            }
            Standing::Agrees | Standing::Open | Standing::Foreign => None,
        };
        Ok(changed.map(|change| saved(&change)))
    }

    /// A charge that was to go back has gone: by our asking, or by somebody's hand at the gateway.
    async fn follow_return(&self, charge: &Charge) -> Result<Option<Commit>, StoreError> {
        let stray = self.open_stray(charge).await?;
        Ok(stray.map(|stray| {
            let mut commit = Commit::new();
            commit.put(&stray.finished(self.inner.clock.now()));
            commit
        }))
    }

    async fn open_stray(&self, charge: &Charge) -> Result<Option<StrayRecord>, StoreError> {
        let known: Option<StrayRecord> = self.inner.store.load(charge.payment_key.as_str()).await?;
        Ok(known.filter(StrayRecord::is_open))
    }

    /// What was charged goes back, and the attempt has failed.
    async fn follow_wrong_amount(
        &self,
        payment: &PaymentRecord,
        charge: &Charge,
    ) -> Result<Option<Commit>, StoreError> {
        let mut commit = self.follow_stray(payment, charge).await?;
        if payment.status == PaymentStatus::Confirming {
            let verdict = Verdict::Declined {
                code: WRONG_AMOUNT.to_owned(),
            };
            let outcome = self.outcome(payment, &verdict).await?;
            commit.get_or_insert_default().join(outcome);
        }
        Ok(commit)
    }

    /// A charge that nobody asked for is asked back, once each time that it is found to be there.
    async fn follow_stray(
        &self,
        payment: &PaymentRecord,
        charge: &Charge,
    ) -> Result<Option<Commit>, StoreError> {
        let now = self.inner.clock.now();
        let key = charge.payment_key.as_str();
        let known = self.inner.store.load(key).await?;
        // An account that waits may show nothing: it is closed all the same.
        let amount = Money::new(charge.balance_amount).unwrap_or(Money::ZERO);
        let Some(stray) = payment.ask_back(key, amount, known, now) else {
            return Ok(None);
        };
        self.inner.metrics.stray();
        tracing::error!(payment.id = %payment.payment_id, ?charge, "an order was charged beside its payment: it goes back");
        let mut commit = Commit::new();
        commit.put(&stray);
        Ok(Some(commit))
    }
}

/// A change of a refund with the answer to the saga that asked for it, where there is one.
pub(crate) fn saved(change: &Change) -> Commit {
    let mut commit = Commit::new();
    change.save(&mut commit);
    change.answer_saga(&mut commit);
    commit
}

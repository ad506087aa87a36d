//! The use case `confirm`: the buyer has authenticated at the gateway, and the money is taken.
//!
//! Two commits and one question: the attempt is recorded, the gateway is asked, what it said is applied and published.
//! The caller is answered after the second commit, so the answer can be read back at once and, after a decline, the next
//! attempt can begin at once. The attempt runs apart from its request, so that a client that goes away stops nothing half way; where the process
//! itself goes away, the settler finds the recorded attempt.

use contract::{Money, PaymentId, UserId, domain::PaymentStatus, payment::ConfirmedRequest};
use messaging::{Commit, CommitError, Message, Record, StoreError, trace::carried};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    Service,
    consumers::apply_outcome,
    gateway::{Confirm, Outcome, protocol},
    in_flight::InFlightGuard,
    model::{AttemptRequest, Refusal},
    record::PaymentRecord,
};

/// Times that the beginning of an attempt is decided again because the payment was changed meanwhile.
const ROUNDS_MAX: u32 = 8;

#[derive(Debug, Clone)]
pub struct ConfirmInput {
    pub payment_id: PaymentId,
    /// The gateway's name for the payment.
    pub pg_payment_id: String,
    pub amount: Money,
    /// Checked against the owner where it is given.
    pub user_id: Option<UserId>,
    /// Where the money of a virtual account goes, should it go back.
    pub refund_account: Option<protocol::RefundAccount>,
    /// Passed on to a test gateway.
    pub test_code: Option<String>,
}

/// What became of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfirmOutput<T> {
    /// What `answer` returned.
    Settled(T),
    /// The gateway's answer is not known yet.
    Pending(Pending),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    pub payment_id: PaymentId,
    /// As the payment keeps it; of a free payment a name of our own.
    pub pg_payment_id: String,
    pub succeeded: bool,
    /// The gateway's reason, where it declined. A further attempt may be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decline_code: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pending {
    pub payment_id: PaymentId,
    pub pg_payment_id: String,
    /// Always `CONFIRMING`: follow `GET /payment/{paymentId}`.
    pub status: PaymentStatus,
}

/// Why no attempt was made, or nothing is known of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no payment {0}")]
    NotFound(PaymentId),
    #[error("a gateway's payment key has 1 to 200 letters, digits, '-', '_', '=' and '.'")]
    PgPaymentId,
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

/// What was learnt of an attempt, with proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AttemptOutcome {
    Approved { pg_payment_id: String },
    Declined { code: String },
}

/// How an attempt began.
enum AttemptStart {
    Started(Box<PaymentRecord>, InFlightGuard),
    /// It was made before and has succeeded; its answer may have been lost.
    AlreadySucceeded(Settled),
}

impl Service {
    /// Makes one attempt. The one that has succeeded is not made again: it is told. Dropping the future does not stop an attempt that has begun; see [`Service::drained`].
    ///
    /// # Errors
    /// [`Error`]; the gateway was not asked.
    pub async fn confirm<T: Send + 'static>(
        &self,
        input: ConfirmInput,
        answer: impl FnOnce(&mut Commit, &Settled) -> T + Send + 'static,
    ) -> Result<ConfirmOutput<T>, Error> {
        if !protocol::is_path_key(&input.pg_payment_id) {
            return Err(Error::PgPaymentId);
        }
        let running = self
            .inner
            .in_flight
            .start_confirm()
            .ok_or(StoreError::Overloaded)?;
        let service = self.clone();
        let attempt = tokio::spawn(carried(async move {
            let output = service.attempt(input, answer).await;
            drop(running);
            output
        }));
        match attempt.await {
            Ok(output) => output,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(StoreError::Unavailable("the process is stopping".to_owned()).into()),
        }
    }

    async fn attempt<T>(
        &self,
        input: ConfirmInput,
        answer: impl FnOnce(&mut Commit, &Settled) -> T,
    ) -> Result<ConfirmOutput<T>, Error> {
        let (payment, _attempt) = match self.begin(&input).await? {
            AttemptStart::Started(payment, attempt) => (payment, attempt),
            AttemptStart::AlreadySucceeded(settled) => {
                let mut commit = Commit::new();
                let answer = answer(&mut commit, &settled);
                self.inner.store.commit(commit).await?;
                return Ok(ConfirmOutput::Settled(answer));
            }
        };
        fail::fail_point!("payment.before_gateway", |_| std::process::abort());
        let verdict = self.confirm_at_gateway(&payment, input.test_code).await;
        fail::fail_point!("payment.after_gateway", |_| std::process::abort());
        let settled = match verdict {
            Some(verdict) => self.conclude(&payment, &verdict, answer).await,
            None => None,
        };
        fail::fail_point!("payment.after_confirmed", |_| std::process::abort());
        Ok(settled.map_or_else(|| self.leave_to_settler(&payment), ConfirmOutput::Settled))
    }

    /// Records the attempt. From two at the same moment one is refused.
    async fn begin(&self, input: &ConfirmInput) -> Result<AttemptStart, Error> {
        let inner = &self.inner;
        let id = input.payment_id;
        let claim = AttemptRequest {
            pg_payment_id: &input.pg_payment_id,
            amount: input.amount,
            user_id: input.user_id,
            refund_account: input.refund_account.as_ref(),
        };
        for _ in 0..ROUNDS_MAX {
            let payment = self.show(id).await?.ok_or(Error::NotFound(id))?;
            if payment.has_succeeded_as(&claim) {
                let pg_payment_id = payment.pg_payment_id.clone().unwrap_or_default();
                let verdict = AttemptOutcome::Approved { pg_payment_id };
                return Ok(AttemptStart::AlreadySucceeded(settled(&payment, &verdict)));
            }
            let change = payment.begin_attempt(&claim, inner.clock.now())?;
            let attempt = inner.in_flight.enter_for_buyer(id).await;
            let attempt = attempt.ok_or(Refusal::InProgress)?;
            let mut commit = Commit::new();
            change.save(&mut commit);
            match inner.store.commit(commit).await {
                Ok(()) => {
                    return Ok(AttemptStart::Started(
                        Box::new(change.payment().clone()),
                        attempt,
                    ));
                }
                Err(CommitError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Refusal::InProgress.into())
    }

    /// Asks the gateway for the money of an attempt that is recorded; `None` where its answer proves nothing.
    /// Where points pay for everything, there is nothing to ask for.
    pub(crate) async fn confirm_at_gateway(
        &self,
        payment: &PaymentRecord,
        test_code: Option<String>,
    ) -> Option<AttemptOutcome> {
        let pg_payment_id = payment.pg_payment_id.clone()?;
        if payment.is_free() {
            return Some(AttemptOutcome::Approved { pg_payment_id });
        }
        let ask = Confirm {
            payment_key: pg_payment_id.clone(),
            order_id: payment.order_id(),
            amount: payment.final_amount.get(),
            idempotency_key: payment.attempt_key.clone()?,
            test_code,
        };
        match self.inner.gateway.confirm(&ask).await {
            Outcome::Approved(_) => Some(AttemptOutcome::Approved { pg_payment_id }),
            Outcome::Declined { code, .. } => Some(AttemptOutcome::Declined { code }),
            Outcome::Unknown { reason, .. } => {
                tracing::warn!(payment.id = %payment.payment_id, reason, "the outcome of an attempt is not known yet");
                None
            }
        }
    }

    /// Applies and publishes what was learnt, with the caller's answer; `None` where the store did not take it.
    async fn conclude<T>(
        &self,
        payment: &PaymentRecord,
        verdict: &AttemptOutcome,
        answer: impl FnOnce(&mut Commit, &Settled) -> T,
    ) -> Option<T> {
        let mut commit = Commit::new();
        let answer = answer(&mut commit, &settled(payment, verdict));
        let concluded = self.conclude_with(payment, verdict, commit).await;
        match concluded {
            Ok(()) => Some(answer),
            Err(error) => {
                tracing::error!(payment.id = %payment.payment_id, %error, "the outcome of an attempt could not be stored");
                None
            }
        }
    }

    async fn conclude_with(
        &self,
        payment: &PaymentRecord,
        verdict: &AttemptOutcome,
        mut answer: Commit,
    ) -> Result<(), CommitError> {
        let mut current = payment.clone();
        for _ in 0..ROUNDS_MAX {
            let mut commit = self.outcome_commit_on(&current, payment, verdict).await?;
            commit.merge(answer.clone());
            match self.inner.store.commit(commit).await {
                // The payment was changed meanwhile (somebody wants it deleted): decide on it as it is now.
                Err(CommitError::Conflict { table, .. }) if table == PaymentRecord::TABLE.name => {
                    current = self.show(payment.payment_id).await?.unwrap_or(current);
                }
                // The answer to the key was stored by another request, or an orphan charge was changed.
                Err(CommitError::Conflict { .. }) => answer = Commit::new(),
                outcome => return outcome,
            }
        }
        let error = "the outcome of an attempt kept conflicting with other writers";
        Err(StoreError::Unavailable(error.to_owned()).into())
    }

    /// The Commit for what was learnt of the payment's current attempt: what it changes, and the message that publishes
    /// it.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub(crate) async fn outcome_commit(
        &self,
        payment: &PaymentRecord,
        verdict: &AttemptOutcome,
    ) -> Result<Commit, StoreError> {
        self.outcome_commit_on(payment, payment, verdict).await
    }

    /// The same for a payment that may have become `current` since its attempt: another process may have settled that
    /// attempt, and a later one may have begun. Approval and refusal have different message ids, so that the one can
    /// never be taken for a repetition of the other.
    async fn outcome_commit_on(
        &self,
        current: &PaymentRecord,
        payment: &PaymentRecord,
        verdict: &AttemptOutcome,
    ) -> Result<Commit, StoreError> {
        let settled = settled(payment, verdict);
        let word = if settled.succeeded {
            "confirmed"
        } else {
            "declined"
        };
        // Which charge it is belongs to it: an order that is charged twice has two outcomes.
        let id = format!(
            "{}:{word}:{}:{}",
            payment.payment_id, payment.attempt, settled.pg_payment_id
        );
        let outcome = ConfirmedRequest {
            payment_id: payment.payment_id,
            pg_payment_id: settled.pg_payment_id,
            confirmed: settled.succeeded,
            attempt: Some(payment.attempt),
            decline_code: settled.decline_code,
        };
        let now = self.inner.clock.now();
        let known = match verdict {
            AttemptOutcome::Approved { pg_payment_id } => {
                self.inner.store.load(pg_payment_id.as_str()).await?
            }
            AttemptOutcome::Declined { .. } => None,
        };
        let mut commit = apply_outcome(current, known, &outcome, &id, now)?;
        commit.publish(Message::new(id, &outcome, now));
        Ok(commit)
    }

    fn leave_to_settler<T>(&self, payment: &PaymentRecord) -> ConfirmOutput<T> {
        let inner = &self.inner;
        inner
            .payment_retries
            .retry_now(&payment.payment_id, inner.clock.now());
        inner.wake.attempts.notify_one();
        ConfirmOutput::Pending(Pending {
            payment_id: payment.payment_id,
            pg_payment_id: payment.pg_payment_id.clone().unwrap_or_default(),
            status: PaymentStatus::Confirming,
        })
    }
}

fn settled(payment: &PaymentRecord, verdict: &AttemptOutcome) -> Settled {
    let (pg_payment_id, decline_code) = match verdict {
        AttemptOutcome::Approved { pg_payment_id } => (pg_payment_id.clone(), None),
        AttemptOutcome::Declined { code } => (
            payment.pg_payment_id.clone().unwrap_or_default(),
            Some(code.clone()),
        ),
    };
    Settled {
        payment_id: payment.payment_id,
        pg_payment_id,
        succeeded: decline_code.is_none(),
        decline_code,
    }
}

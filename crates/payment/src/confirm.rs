//! The use case `confirm`: the buyer has authenticated at the gateway, and the payment is charged.
//!
//! 1. [`Service::confirm`] starts a task, so that a client that disconnects does not interrupt the attempt.
//! 2. `begin` checks the request (`PaymentRecord::begin_attempt`) and commits `CONFIRMING`.
//! 3. `confirm_at_gateway` asks the gateway.
//! 4. `conclude` commits the outcome, `payment.confirmed.request` and the caller's answer. The caller gets the answer
//!    after this Commit, so that it can read it back, and start the next attempt after a decline.
//! 5. If the outcome is unknown, or the process dies, the settler ([`crate::settle`]) finds the committed attempt.

use contract::{
    Money, PaymentId, Timestamp, UserId, domain::PaymentStatus, payment::ConfirmedRequest,
};
use messaging::{Commit, CommitError, Message, Record, StoreError, trace::carried};
use serde::Serialize;
use toss::{Confirm, GatewayOutcome, protocol};
use utoipa::ToSchema;

use crate::{
    Error, Service,
    consumers::apply_outcome,
    in_flight::InFlightGuard,
    model::{AttemptRequest, Refusal},
    record::PaymentRecord,
};

/// Tries to commit against concurrent changes of the payment.
const ROUNDS_MAX: u32 = 8;

#[derive(Debug, Clone)]
pub struct ConfirmInput {
    pub payment_id: PaymentId,
    /// The gateway's key of the payment.
    pub pg_payment_id: String,
    pub amount: Money,
    /// If set, it must be the owner.
    pub user_id: Option<UserId>,
    /// The account that receives the refund of a deposit.
    pub refund_account: Option<protocol::RefundAccount>,
    /// Passed to a test gateway.
    pub test_code: Option<String>,
}

/// The result of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfirmOutput<T> {
    /// What `answer` returned.
    Settled(T),
    /// The outcome is not known yet.
    Pending(Pending),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    pub payment_id: PaymentId,
    /// As stored in the payment; of a free payment `free-{paymentId}`.
    pub pg_payment_id: String,
    pub succeeded: bool,
    /// The gateway's code if it declined. A further attempt is possible.
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

/// The proven outcome of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AttemptOutcome {
    Approved { pg_payment_id: String },
    Declined { code: String },
}

/// The start of an attempt.
enum AttemptStart {
    Started(Box<PaymentRecord>, InFlightGuard),
    /// The same attempt has succeeded before; the caller may have lost the answer.
    AlreadySucceeded(Settled),
}

impl Service {
    /// Makes one attempt, or repeats the answer of the one that has succeeded. Dropping the future does not stop an attempt
    /// that has started; see [`Service::drained`].
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
        let result = match payment.attempt_started_at {
            Some(began) => {
                self.confirm_at_gateway(&payment, began, input.test_code)
                    .await
            }
            None => None,
        };
        fail::fail_point!("payment.after_gateway", |_| std::process::abort());
        let settled = match result {
            Some(result) => self.conclude(&payment, &result, answer).await,
            None => None,
        };
        fail::fail_point!("payment.after_confirmed", |_| std::process::abort());
        Ok(settled.map_or_else(|| self.leave_to_settler(&payment), ConfirmOutput::Settled))
    }

    /// Commits the attempt. Of two concurrent attempts one is refused.
    async fn begin(&self, input: &ConfirmInput) -> Result<AttemptStart, Error> {
        let inner = &self.inner;
        let id = input.payment_id;
        let request = AttemptRequest {
            pg_payment_id: &input.pg_payment_id,
            amount: input.amount,
            user_id: input.user_id,
            refund_account: input.refund_account.as_ref(),
        };
        for _ in 0..ROUNDS_MAX {
            let payment = self.existing(id).await?;
            if payment.has_succeeded_as(&request) {
                let pg_payment_id = payment.pg_payment_id.clone().unwrap_or_default();
                let result = AttemptOutcome::Approved { pg_payment_id };
                return Ok(AttemptStart::AlreadySucceeded(settled(&payment, &result)));
            }
            let change = payment.begin_attempt(&request, inner.clock.now())?;
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

    /// Charges an attempt at the gateway that was open in the store at `open_at`; `None` if the outcome is unknown. A free
    /// payment needs no charge. A process that stood still since then sends nothing: another one may have given the attempt
    /// up, and would not learn of the charge (docs/decisions/0039).
    pub(crate) async fn confirm_at_gateway(
        &self,
        payment: &PaymentRecord,
        open_at: Timestamp,
        test_code: Option<String>,
    ) -> Option<AttemptOutcome> {
        let pg_payment_id = payment.pg_payment_id.clone()?;
        if payment.is_free() {
            return Some(AttemptOutcome::Approved { pg_payment_id });
        }
        let millis = self.inner.clock.now().millis_since(open_at);
        if millis > self.inner.settings.give_up_after_millis() / 2 {
            tracing::warn!(payment.id = %payment.payment_id, millis, "an attempt is not sent: this process was held up; the settler looks it up");
            return None;
        }
        let ask = Confirm {
            payment_key: pg_payment_id.clone(),
            order_id: payment.order_id(),
            amount: payment.final_amount.get(),
            idempotency_key: payment.attempt_key.clone()?,
            test_code,
        };
        match self.inner.gateway.confirm(&ask).await {
            GatewayOutcome::Approved(_) => Some(AttemptOutcome::Approved { pg_payment_id }),
            GatewayOutcome::Declined { code, .. } => Some(AttemptOutcome::Declined { code }),
            GatewayOutcome::Unknown { reason, .. } => {
                tracing::warn!(payment.id = %payment.payment_id, reason, "the outcome of an attempt is unknown: the settler looks it up");
                None
            }
        }
    }

    /// Commits the outcome with the caller's answer; `None` if the store did not accept it.
    async fn conclude<T>(
        &self,
        payment: &PaymentRecord,
        result: &AttemptOutcome,
        answer: impl FnOnce(&mut Commit, &Settled) -> T,
    ) -> Option<T> {
        let mut commit = Commit::new();
        let answer = answer(&mut commit, &settled(payment, result));
        let concluded = self.conclude_with(payment, result, commit).await;
        match concluded {
            Ok(()) => Some(answer),
            Err(error) => {
                tracing::error!(payment.id = %payment.payment_id, %error, "cannot store the outcome of an attempt: the settler looks it up");
                None
            }
        }
    }

    async fn conclude_with(
        &self,
        payment: &PaymentRecord,
        result: &AttemptOutcome,
        mut answer: Commit,
    ) -> Result<(), CommitError> {
        let mut current = payment.clone();
        for _ in 0..ROUNDS_MAX {
            let mut commit = self.outcome_commit_on(&current, payment, result).await?;
            commit.merge(answer.clone());
            match self.inner.store.commit(commit).await {
                // A concurrent change, such as a deletion request: decide again on the current payment.
                Err(CommitError::Conflict { table, .. }) if table == PaymentRecord::TABLE.name => {
                    current = self.show(payment.payment_id).await?.unwrap_or(current);
                }
                // Another request stored the answer of the key, or an orphan charge changed.
                Err(CommitError::Conflict { .. }) => answer = Commit::new(),
                outcome => return outcome,
            }
        }
        let error = "the outcome of an attempt kept conflicting with other writers";
        Err(StoreError::Unavailable(error.to_owned()).into())
    }

    /// The Commit of the outcome of the payment's current attempt: the change, and the message that publishes it.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer.
    pub(crate) async fn outcome_commit(
        &self,
        payment: &PaymentRecord,
        result: &AttemptOutcome,
    ) -> Result<Commit, StoreError> {
        self.outcome_commit_on(payment, payment, result).await
    }

    /// The same if the payment may have changed to `current` since its attempt: another process may have settled the
    /// attempt, and a later one may have started. Approval and decline have different message ids, so that neither is
    /// dropped as a duplicate of the other.
    async fn outcome_commit_on(
        &self,
        current: &PaymentRecord,
        payment: &PaymentRecord,
        result: &AttemptOutcome,
    ) -> Result<Commit, StoreError> {
        let settled = settled(payment, result);
        let word = if settled.succeeded {
            "confirmed"
        } else {
            "declined"
        };
        // With the key of the charge: an order that is charged twice has two outcomes.
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
        let known = match result {
            AttemptOutcome::Approved { pg_payment_id } => {
                self.inner.store.load(pg_payment_id.as_str()).await?
            }
            AttemptOutcome::Declined { .. } => None,
        };
        let message = Message::new(id, &outcome, now);
        let mut commit = apply_outcome(current, known, &outcome, &message, now)?;
        commit.publish(message);
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

fn settled(payment: &PaymentRecord, result: &AttemptOutcome) -> Settled {
    let (pg_payment_id, decline_code) = match result {
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

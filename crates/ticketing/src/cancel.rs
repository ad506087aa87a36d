//! Cancel: the buyer cancels an issued ticket. A saga refunds the payment, restores the points and returns the ticket to
//! the stock. If the gateway refuses the refund, the ticket stays valid, and the buyer may try again.
//!
//! Each try is a saga of its own, numbered by the ticket's `cancellation`. `payment.cancel` is answered when the gateway has
//! refunded or refused; until then the payment is published as `SUCCEEDED`, so that the ticket stays valid.

use contract::{SagaId, TicketId, UserId, domain::TicketStatus, ticketing::Cancel};
use messaging::{Commit, CommitError, Message, Record, StoreError, coordinator::SagaRecord};
use saga::SagaState;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Service, model::Ticket};

/// The reason sent to the gateway if the buyer gives none.
const REASON: &str = "cancelled by the buyer";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelInput {
    pub ticket_id: TicketId,
    /// The user who cancels, if that is known.
    pub user_id: Option<UserId>,
    pub reason: Option<String>,
}

/// Tries to commit a cancellation while others change the same ticket.
const TRIES_MAX: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = CancellationBegun)]
pub struct CancelOutput {
    pub ticket_id: TicketId,
    pub saga_id: SagaId,
    /// The number of this cancellation of the ticket, from 1.
    pub cancellation: u32,
}

/// Why a ticket cannot be cancelled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no ticket {0}")]
    TicketNotFound(TicketId),
    #[error("the ticket belongs to another user")]
    OwnerMismatch,
    #[error("the ticket is not valid any more")]
    Cancelled,
    #[error("the ticket is being cancelled already")]
    InProgress,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Each try conflicted with another writer.
    #[error("another request changed the ticket at the same time")]
    Contended,
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

impl Service {
    /// Checks the ticket and starts its cancellation. `answer` may add to the Commit what must become durable with it; it is
    /// called for each try. `saved` is the saga of the request's saved answer and that answer, which is returned unless
    /// that cancellation has failed.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies; [`Error::Contended`]; [`Error::Commit`].
    pub async fn cancel<T>(
        &self,
        input: CancelInput,
        saved: Option<(SagaId, T)>,
        answer: impl Fn(&mut Commit, &CancelOutput) -> T,
    ) -> Result<T, Error> {
        if let Some((saga_id, saved)) = saved
            && !self.has_failed(saga_id).await?
        {
            return Ok(saved);
        }
        for _ in 0..TRIES_MAX {
            let ticket = self.cancellable(&input).await?;
            let (output, mut commit) = self.start_cancellation(ticket, input.reason.clone());
            let answer = answer(&mut commit, &output);
            fail::fail_point!("ticketing.before_cancel", |_| std::process::abort());
            let stored = self.0.store.try_commit(commit, Ticket::TABLE).await;
            fail::fail_point!("ticketing.after_cancel", |_| std::process::abort());
            if stored? {
                return Ok(answer);
            }
        }
        Err(Error::Contended)
    }

    /// # Errors
    /// [`Refusal::TicketNotFound`]; [`Error::Commit`] if the store does not answer.
    pub async fn ticket(&self, ticket_id: TicketId) -> Result<Ticket, Error> {
        let ticket: Option<Ticket> = self.0.store.load(ticket_id).await?;
        Ok(ticket.ok_or(Refusal::TicketNotFound(ticket_id))?)
    }

    async fn cancellable(&self, input: &CancelInput) -> Result<Ticket, Error> {
        let ticket = self.ticket(input.ticket_id).await?;
        if input.user_id.is_some_and(|user| user != ticket.user_id) {
            return Err(Refusal::OwnerMismatch.into());
        }
        match ticket.status {
            TicketStatus::Reserved => {}
            TicketStatus::Cancelled | TicketStatus::Expired => {
                return Err(Refusal::Cancelled.into());
            }
        }
        let last = ticket.ticket_id.cancel_saga(ticket.cancellation);
        if ticket.cancellation > 0 && !self.has_failed(last).await? {
            return Err(Refusal::InProgress.into());
        }
        Ok(ticket)
    }

    /// Whether a cancellation has failed and left the ticket valid, so that it may be tried again.
    async fn has_failed(&self, saga_id: SagaId) -> Result<bool, StoreError> {
        let saga: Option<SagaRecord> = self.0.store.load(saga_id).await?;
        Ok(saga.is_some_and(|saga| saga.state == SagaState::Compensated))
    }

    /// The cancellation, and the Commit that starts it.
    fn start_cancellation(&self, ticket: Ticket, reason: Option<String>) -> (CancelOutput, Commit) {
        let (ticket_id, cancellation) = (ticket.ticket_id, ticket.cancellation + 1);
        let request = Cancel {
            ticket_id,
            cancellation,
            event_id: ticket.event_id,
            user_id: ticket.user_id,
            payment_id: ticket.payment_id,
            reason: reason.unwrap_or_else(|| REASON.to_owned()),
        };
        let id = format!("{ticket_id}:cancel:{cancellation}");
        let mut commit = Commit::new();
        commit
            .put(&Ticket {
                cancellation,
                ..ticket
            })
            .publish(Message::new(id, &request, self.0.clock.now()));
        let output = CancelOutput {
            ticket_id,
            saga_id: ticket_id.cancel_saga(cancellation),
            cancellation,
        };
        (output, commit)
    }
}

//! Cancel: the buyer cancels an issued ticket. A saga refunds the payment, restores the points and returns the ticket to
//! the stock. If the gateway refuses the refund, the ticket stays valid, and the buyer may try again.

use contract::{SagaId, TicketId, UserId, domain::TicketStatus, ticketing::Cancel};
use messaging::{Commit, Message, StoreError, coordinator::SagaRecord};
use saga::SagaState;

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

/// A cancellation that is ready to be committed.
#[derive(Debug)]
pub struct CancelOutput {
    pub saga_id: SagaId,
    pub cancellation: u32,
    /// Starts it; a conflict means that the ticket changed meanwhile.
    pub commit: Commit,
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
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How far a cancellation has come.
#[derive(Debug, Clone)]
pub struct CancellationProgress {
    /// Counted from 1 for each ticket.
    pub cancellation: u32,
    /// `None` until the saga worker has started it.
    pub saga: Option<SagaRecord>,
}

impl Service {
    /// Checks the ticket and makes the Commit that starts its cancellation.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies.
    pub async fn cancel(&self, input: CancelInput) -> Result<CancelOutput, Error> {
        let ticket_id = input.ticket_id;
        let ticket: Option<Ticket> = self.0.store.load(ticket_id).await?;
        let ticket = ticket.ok_or(Refusal::TicketNotFound(ticket_id))?;
        if input.user_id.is_some_and(|user| user != ticket.user_id) {
            return Err(Refusal::OwnerMismatch.into());
        }
        match ticket.status {
            TicketStatus::Reserved => {}
            TicketStatus::Cancelled | TicketStatus::Expired => {
                return Err(Refusal::Cancelled.into());
            }
        }
        let last = self.last_cancellation(&ticket).await?;
        if last.is_some_and(|last| !last.has_failed()) {
            return Err(Refusal::InProgress.into());
        }
        Ok(self.start_cancellation(ticket, input.reason))
    }

    /// The last cancellation of this ticket, if there was one.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not answer.
    pub async fn last_cancellation(
        &self,
        ticket: &Ticket,
    ) -> Result<Option<CancellationProgress>, StoreError> {
        let cancellation = ticket.cancellation;
        if cancellation == 0 {
            return Ok(None);
        }
        let saga_id = ticket.ticket_id.cancel_saga(cancellation);
        let saga = self.0.store.load(saga_id).await?;
        Ok(Some(CancellationProgress { cancellation, saga }))
    }

    /// Whether this cancellation has failed, and left the ticket valid.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not answer.
    pub async fn cancellation_has_failed(&self, saga_id: SagaId) -> Result<bool, StoreError> {
        let saga: Option<SagaRecord> = self.0.store.load(saga_id).await?;
        Ok(saga.is_some_and(|saga| saga.state == SagaState::Compensated))
    }

    fn start_cancellation(&self, ticket: Ticket, reason: Option<String>) -> CancelOutput {
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
        CancelOutput {
            saga_id: ticket_id.cancel_saga(cancellation),
            cancellation,
            commit,
        }
    }
}

impl CancellationProgress {
    /// Whether it has failed and left the ticket valid, so that it may be tried again.
    fn has_failed(&self) -> bool {
        let saga = self.saga.as_ref();
        saga.is_some_and(|saga| saga.state == SagaState::Compensated)
    }
}

//! Process: the buyer starts the purchase of a reserved ticket.

use contract::{EventId, Money, Points, TicketId, Timestamp, UserId, ticketing::Process};
use messaging::{Commit, Message};

use crate::{
    Service,
    model::{Purchase, ReservationState},
    reservations,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessInput {
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub total_amount: Money,
    pub point: Points,
}

/// Why a purchase does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("this user has no reservation for this event that waits for payment")]
    ReservationNotFound,
    #[error("this user's reservation for this event has another ticketId")]
    TicketMismatch,
    #[error("the price of this event's tickets is {price}")]
    PriceMismatch { price: Money },
    #[error("the points are worth more than the total amount")]
    TooManyPoints,
    #[error(
        "the purchase of this ticket has been started already: GET /ticketing/process/{{ticketId}} shows how far it is"
    )]
    AlreadyProcessing,
    #[error("the reservation had to be paid before {at}, and is being released")]
    DeadlinePassed { at: Timestamp },
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The reservation could not be read.
    #[error(transparent)]
    Reservations(#[from] reservations::Error),
}

impl Service {
    /// Checks the reservation and makes the Commit that starts the purchase. A conflict means that the purchase was
    /// started before.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies, or [`Error::Reservations`].
    pub async fn process(&self, input: ProcessInput) -> Result<Commit, Error> {
        let now = self.0.clock.now();
        let ProcessInput {
            ticket_id,
            event_id,
            user_id,
            total_amount,
            point,
        } = input;
        let reservation = self
            .0
            .reservations
            .find(event_id, user_id)
            .await?
            .ok_or(Refusal::ReservationNotFound)?;
        if reservation.ticket_id != ticket_id {
            return Err(Refusal::TicketMismatch.into());
        }
        match reservation.state {
            ReservationState::Completed => return Err(Refusal::AlreadyProcessing.into()),
            ReservationState::Waiting if now > reservation.expires_at => {
                let at = reservation.expires_at;
                return Err(Refusal::DeadlinePassed { at }.into());
            }
            ReservationState::Waiting => {}
        }
        if let Some(price) = reservation.price.filter(|price| *price != total_amount) {
            return Err(Refusal::PriceMismatch { price }.into());
        }
        total_amount.less(point).ok_or(Refusal::TooManyPoints)?;
        let purchase = Purchase {
            ticket_id,
            event_id,
            user_id,
            total_amount,
            point,
            expires_at: reservation.expires_at,
            requested_at: now,
            released_at: None,
            version: 0,
        };
        let request = Process {
            ticket_id,
            event_id,
            user_id,
            total_amount,
            point,
        };
        let mut commit = Commit::new();
        commit
            .put(&purchase)
            .publish(Message::new(format!("{ticket_id}:process"), &request, now));
        Ok(commit)
    }
}

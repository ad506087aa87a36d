//! Process: the buyer starts the purchase of a reserved ticket.
//!
//! 1. [`Service::process`] checks the claim (owner, deadline, price) and commits the purchase, whose key allows one start
//!    only, with `ticketing.process` and the answer.
//! 2. `SagaConsumer` looks at the claim again and starts the saga ([`crate::progress`]). If the reservation has ended
//!    meanwhile, the saga is `COMPENSATED` before its first request.
//! 3. Each response moves the saga: its state, the next request and the next timer are one Commit. After `payment.create`
//!    the saga is `COMPLETED`, and the buyer can pay.

use contract::{EventId, Money, Points, TicketId, Timestamp, UserId, ticketing::Process};
use messaging::{Commit, Message, Record};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    Service,
    model::{Purchase, ReservationState},
    reservations::{self, Reservation},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ProcessRequest)]
pub struct ProcessInput {
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub total_amount: Money,
    #[serde(default)]
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
    /// Checks the reservation and starts the purchase. `answer` may add to the Commit what must become durable with it.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies, or [`Error::Reservations`].
    pub async fn process<T>(
        &self,
        input: ProcessInput,
        answer: impl FnOnce(&mut Commit, &Purchase) -> T,
    ) -> Result<T, Error> {
        let now = self.0.clock.now();
        let reservation = self
            .0
            .reservations
            .find(input.event_id, input.user_id)
            .await?
            .ok_or(Refusal::ReservationNotFound)?;
        input.check(&reservation, now)?;
        let (purchase, mut commit) = input.start(reservation.expires_at, now);
        let answer = answer(&mut commit, &purchase);
        let store = &self.0.store;
        let stored = store.try_commit(commit, Purchase::TABLE).await;
        fail::fail_point!("ticketing.after_process", |_| std::process::abort());
        match stored.map_err(reservations::Error::from)? {
            true => Ok(answer),
            false => Err(Refusal::AlreadyProcessing.into()),
        }
    }
}

impl ProcessInput {
    fn check(&self, reservation: &Reservation, now: Timestamp) -> Result<(), Refusal> {
        if reservation.ticket_id != self.ticket_id {
            return Err(Refusal::TicketMismatch);
        }
        match reservation.state {
            ReservationState::Completed => return Err(Refusal::AlreadyProcessing),
            ReservationState::Waiting if now > reservation.expires_at => {
                let at = reservation.expires_at;
                return Err(Refusal::DeadlinePassed { at });
            }
            ReservationState::Waiting => {}
        }
        let price = reservation
            .price
            .filter(|price| *price != self.total_amount);
        if let Some(price) = price {
            return Err(Refusal::PriceMismatch { price });
        }
        let paid = self.total_amount.less(self.point);
        paid.map(drop).ok_or(Refusal::TooManyPoints)
    }

    /// The purchase, and the Commit that starts it.
    fn start(self, expires_at: Timestamp, now: Timestamp) -> (Purchase, Commit) {
        let purchase = Purchase {
            ticket_id: self.ticket_id,
            event_id: self.event_id,
            user_id: self.user_id,
            total_amount: self.total_amount,
            point: self.point,
            expires_at,
            requested_at: now,
            released_at: None,
            version: 0,
        };
        let request = Process {
            ticket_id: self.ticket_id,
            event_id: self.event_id,
            user_id: self.user_id,
            total_amount: self.total_amount,
            point: self.point,
        };
        let id = format!("{}:process", self.ticket_id);
        let mut commit = Commit::new();
        commit
            .put(&purchase)
            .publish(Message::new(id, &request, now));
        (purchase, commit)
    }
}

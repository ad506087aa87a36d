//! Release: the buyer gives a reservation back. It goes to the stock at once, and what a purchase of it took is taken
//! back as if it had lapsed.

use std::fmt::Display;

use contract::{TicketId, Timestamp, UserId, ticketing::Expire};
use messaging::{Commit, Message, StoreError};

use crate::{
    Service,
    model::Purchase,
    reservations::{self, Claimed},
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no reservation {0} that waits for payment")]
    NotFound(TicketId),
    #[error("the reservation belongs to another user")]
    OwnerMismatch,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Reservations(#[from] reservations::Error),
}

impl Service {
    /// `user_id` asks, where that is known.
    ///
    /// # Errors
    /// [`Error::NotFound`] where it lapsed, was released or is paid; else nothing was released.
    pub async fn release(&self, ticket_id: TicketId, user_id: Option<UserId>) -> Result<(), Error> {
        let named = self.0.reservations.named(ticket_id).await?;
        let claimed = named.ok_or(Error::NotFound(ticket_id))?;
        if user_id.is_some_and(|user| user != claimed.user_id) {
            return Err(Error::OwnerMismatch);
        }
        let now = self.0.clock.now();
        let mut told = take_back(claimed, &format_args!("released:{}", now.as_millis()), now);
        if let Some(purchase) = self.0.store.load::<Purchase>(ticket_id).await? {
            told.put(&Purchase {
                released_at: Some(now),
                ..purchase
            });
        }
        fail::fail_point!("ticketing.before_release", |_| std::process::abort());
        if !self.0.reservations.give_up(claimed, told).await? {
            return Err(Error::NotFound(ticket_id));
        }
        fail::fail_point!("ticketing.after_release", |_| std::process::abort());
        self.0.metrics.reservation("released");
        Ok(())
    }
}

/// Tells the saga worker that a reservation is gone. `which` of its ends this is belongs to the message's name: a claim
/// that Redis lost and that was rebuilt ends once more, and that is not a repetition.
pub(crate) fn take_back(claimed: Claimed, which: &dyn Display, now: Timestamp) -> Commit {
    let Claimed {
        event_id,
        user_id,
        ticket_id,
    } = claimed;
    let expire = Expire {
        ticket_id,
        event_id,
        user_id,
    };
    let id = format!("{ticket_id}:expire:{which}");
    let mut commit = Commit::new();
    commit.publish(Message::new(id, &expire, now));
    commit
}

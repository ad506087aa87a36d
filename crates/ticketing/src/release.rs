//! Release: the buyer gives up a reservation. Its ticket is on sale again at once; a purchase of it is undone as if the
//! reservation had expired.

use std::fmt::Display;

use contract::{TicketId, Timestamp, UserId, ticketing::Expire};
use messaging::{Commit, Message, StoreError};

use crate::{
    Service,
    model::Purchase,
    reservations::{self, ClaimId},
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
    /// Releases a waiting reservation, for `user_id` if that is known.
    ///
    /// # Errors
    /// [`Error::NotFound`] if it has expired, was released or is paid; other errors if nothing was released.
    pub async fn release(&self, ticket_id: TicketId, user_id: Option<UserId>) -> Result<(), Error> {
        let found = self.0.reservations.find_by_ticket(ticket_id).await?;
        let claim = found.ok_or(Error::NotFound(ticket_id))?;
        if user_id.is_some_and(|user| user != claim.user_id) {
            return Err(Error::OwnerMismatch);
        }
        let now = self.0.clock.now();
        let also = move |purchase: Option<Purchase>| {
            let which = format_args!("released:{}", now.as_millis());
            let mut commit = publish_expiry(claim, &which, now);
            if let Some(purchase) = purchase {
                commit.put(&Purchase {
                    released_at: Some(now),
                    ..purchase
                });
            }
            commit
        };
        fail::fail_point!("ticketing.before_release", |_| std::process::abort());
        if !self.0.reservations.release_by_buyer(claim, also).await? {
            return Err(Error::NotFound(ticket_id));
        }
        fail::fail_point!("ticketing.after_release", |_| std::process::abort());
        self.0.metrics.reservation("released");
        Ok(())
    }
}

/// Publishes `ticketing.expire`: the saga worker undoes what the purchase took. `which` distinguishes the message ids:
/// a claim that Redis lost and that was rebuilt ends once more, and that is not a duplicate.
pub(crate) fn publish_expiry(claim: ClaimId, which: &dyn Display, now: Timestamp) -> Commit {
    let expire = Expire {
        ticket_id: claim.ticket_id,
        event_id: claim.event_id,
        user_id: claim.user_id,
    };
    let id = format!("{}:expire:{which}", claim.ticket_id);
    let mut commit = Commit::new();
    commit.publish(Message::new(id, &expire, now));
    commit
}

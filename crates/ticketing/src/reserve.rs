//! Reserve: take a ticket first, with a deadline. The answer comes when the reservation is durable.

use contract::{EventId, TicketId, Timestamp, UserId};
use messaging::{Commit, CommitError};

use crate::{
    Service,
    reservations::{Claimed, Refusal, Wish},
};

/// A reservation in the making: everything that the answer says is known before the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reserving {
    pub event_id: EventId,
    pub user_id: UserId,
    pub ticket_id: TicketId,
    pub expires_at: Timestamp,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing was reserved.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl Service {
    /// Names a reservation that is still to be decided.
    #[must_use]
    pub fn reserving(&self, event_id: EventId, user_id: UserId) -> Reserving {
        let now = self.0.clock.now();
        Reserving {
            event_id,
            user_id,
            ticket_id: TicketId(self.0.random.uuid(now)),
            expires_at: now.plus_secs(self.0.settings.hold_ttl_secs),
        }
    }

    /// Decides, and waits until a grant is durable, together with `also`. Dropping the future undoes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] where there is no ticket for this user; [`Error::Commit`] where the grant was not stored.
    pub async fn reserve(&self, reserving: Reserving, also: Commit) -> Result<(), Error> {
        let Reserving {
            event_id,
            user_id,
            ticket_id,
            expires_at,
        } = reserving;
        let lapses_at = expires_at.plus_secs(self.0.settings.hold_grace_secs);
        let wish = Wish {
            event_id,
            user_id,
            ticket_id,
            expires_at,
            lapses_at,
            also,
        };
        let decided = self
            .0
            .reservations
            .reserve(vec![wish], self.0.clock.now())
            .pop();
        let receipt = match decided.expect("one decision for one wish") {
            Ok(receipt) => receipt,
            Err(refusal) => {
                self.0.metrics.reservation(outcome(refusal));
                return Err(refusal.into());
            }
        };
        let stored = receipt
            .outcomes()
            .await
            .pop()
            .expect("one outcome for one commit");
        fail::fail_point!("ticketing.after_grant", |_| std::process::abort());
        match stored {
            Ok(()) => self.0.metrics.reservation("granted"),
            Err(_) => self.0.reservations.forget(Claimed {
                event_id,
                user_id,
                ticket_id,
            }),
        }
        Ok(stored?)
    }
}

const fn outcome(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::EventNotFound => "event_not_found",
        Refusal::AlreadyReserved => "already_reserved",
        Refusal::AlreadyPurchased => "already_purchased",
        Refusal::SaleNotOpen => "sale_not_open",
        Refusal::SoldOut => "sold_out",
    }
}

//! One event's claims, in memory. Pure: every operation decides at once, and nothing here waits.

use std::collections::HashMap;

use contract::{TicketId, Timestamp, UserId};

use super::{Granted, Held, Stats};
use crate::model::{AgreedPrice, Allocation, ReservationState};

/// Why a wish was not granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such event")]
    EventNotFound,
    #[error("this user has a reservation that waits for payment")]
    AlreadyReserved,
    #[error("this user has a ticket already")]
    AlreadyPurchased,
    #[error("the sale is not open")]
    SaleNotOpen,
    #[error("there is no ticket left")]
    SoldOut,
    /// For a moment: what was lost is taken together again.
    #[error("the reservations of this event are being rebuilt; try again shortly")]
    Rebuilding,
}

/// An event's claims and the rules of its sale.
#[derive(Debug)]
pub struct Stock {
    sale: Allocation,
    waiting: i64,
    completed: i64,
    claims: HashMap<UserId, Claim>,
}

#[derive(Debug, Clone, Copy)]
struct Claim {
    ticket_id: TicketId,
    state: ReservationState,
    expires_at: Timestamp,
    lapses_at: Timestamp,
    /// `None`: the price of the sale counts.
    price: Option<AgreedPrice>,
}

impl Stock {
    #[must_use]
    pub fn new(sale: Allocation) -> Self {
        Self {
            sale,
            waiting: 0,
            completed: 0,
            claims: HashMap::new(),
        }
    }

    /// Takes over a newer version of the sale's rules. As in the allocation, a quantity below what is bought already
    /// leaves exactly what is bought.
    pub fn set_sale(&mut self, sale: &Allocation) {
        if sale.event_version > self.sale.event_version {
            self.sale = sale.clone().holding(self.completed);
        }
    }

    /// A claim that waits is granted again to the request that it was granted to.
    ///
    /// # Errors
    /// The first [`Refusal`] that holds.
    pub fn reserve(
        &mut self,
        user_id: UserId,
        ticket_id: TicketId,
        (expires_at, lapses_at): (Timestamp, Timestamp),
        now: Timestamp,
    ) -> Result<Granted, Refusal> {
        match self.claims.get(&user_id) {
            Some(claim) if claim.state == ReservationState::Completed => {
                return Err(Refusal::AlreadyPurchased);
            }
            Some(claim) if claim.ticket_id.is_of_same_request(ticket_id) => {
                return Ok(Granted::Before {
                    ticket_id: claim.ticket_id,
                    expires_at: claim.expires_at,
                });
            }
            Some(_) => return Err(Refusal::AlreadyReserved),
            None => {}
        }
        let is_early = self.sale.sale_opens_at.is_some_and(|opens| now < opens);
        let is_late = self.sale.sale_closes_at.is_some_and(|closes| now >= closes);
        if is_early || is_late {
            return Err(Refusal::SaleNotOpen);
        }
        if self.stats().available <= 0 {
            return Err(Refusal::SoldOut);
        }
        self.restore(
            user_id,
            ticket_id,
            ReservationState::Waiting,
            (expires_at, lapses_at),
        );
        self.agree(user_id, Some(AgreedPrice::now(self.sale.price)));
        Ok(Granted::Now)
    }

    /// Puts a claim in as it was stored; false where the user has another.
    pub fn restore(
        &mut self,
        user_id: UserId,
        ticket_id: TicketId,
        state: ReservationState,
        (expires_at, lapses_at): (Timestamp, Timestamp),
    ) -> bool {
        if self.claims.contains_key(&user_id) {
            return false;
        }
        *self.count(state) += 1;
        self.claims.insert(
            user_id,
            Claim {
                ticket_id,
                state,
                expires_at,
                lapses_at,
                price: None,
            },
        );
        true
    }

    /// Puts a claim in as it was stored, behind those with earlier tickets. Of two that wait for one user the later
    /// stands, and one that is bought stands over both: the ticket that gave way.
    pub fn restore_stored(
        &mut self,
        user_id: UserId,
        ticket_id: TicketId,
        state: ReservationState,
        deadlines: (Timestamp, Timestamp),
    ) -> Option<TicketId> {
        let gave_way = match self.claims.get(&user_id) {
            Some(bought) if bought.state == ReservationState::Completed => return Some(ticket_id),
            Some(waits) => Some(waits.ticket_id),
            None => None,
        };
        if self.claims.remove(&user_id).is_some() {
            self.waiting -= 1;
        }
        self.restore(user_id, ticket_id, state, deadlines);
        gave_way
    }

    #[must_use]
    pub fn find(&self, user_id: UserId) -> Option<Held> {
        let claim = self.claims.get(&user_id)?;
        let Claim {
            ticket_id,
            state,
            expires_at,
            price,
            ..
        } = *claim;
        Some(Held {
            ticket_id,
            state,
            expires_at,
            price: price.map_or(self.sale.price, AgreedPrice::price),
        })
    }

    /// What this user's claim costs.
    #[must_use]
    pub fn agreed(&self, user_id: UserId) -> Option<AgreedPrice> {
        self.claims.get(&user_id)?.price
    }

    pub fn agree(&mut self, user_id: UserId, price: Option<AgreedPrice>) {
        if let Some(claim) = self.claims.get_mut(&user_id) {
            claim.price = price;
        }
    }

    /// WAITING to COMPLETED, or still COMPLETED: the deadlines that the claim had. `None` where it is gone.
    pub fn complete(
        &mut self,
        user_id: UserId,
        ticket_id: TicketId,
    ) -> Option<(Timestamp, Timestamp)> {
        let claim = self
            .claims
            .get_mut(&user_id)
            .filter(|claim| claim.ticket_id == ticket_id)?;
        let deadlines = (claim.expires_at, claim.lapses_at);
        match std::mem::replace(&mut claim.state, ReservationState::Completed) {
            ReservationState::Completed => {}
            ReservationState::Waiting => {
                self.waiting -= 1;
                self.completed += 1;
            }
        }
        Some(deadlines)
    }

    /// Takes a ticket again for a claim that is gone, to be completed before it lapses; whether it did. The window of the
    /// sale does not matter: it was reserved within it.
    pub fn retake(&mut self, user_id: UserId, ticket_id: TicketId, lapses_at: Timestamp) -> bool {
        let deadlines = (lapses_at, lapses_at);
        self.stats().available > 0
            && self.restore(user_id, ticket_id, ReservationState::Waiting, deadlines)
    }

    /// Removes the claim on this ticket; whether there was one.
    pub fn release(&mut self, user_id: UserId, ticket_id: TicketId) -> bool {
        if self
            .claims
            .get(&user_id)
            .is_none_or(|claim| claim.ticket_id != ticket_id)
        {
            return false;
        }
        if let Some(claim) = self.claims.remove(&user_id) {
            *self.count(claim.state) -= 1;
        }
        // As in the allocation: where fewer are wanted than were bought, what is given back is not on sale again.
        self.sale.quantity = self.sale.quantity_with(self.completed);
        true
    }

    /// Removes the claim on this ticket where it waits for payment; whether it did.
    pub fn release_waiting(&mut self, user_id: UserId, ticket_id: TicketId) -> bool {
        let is_waiting = self
            .claims
            .get(&user_id)
            .is_some_and(|claim| claim.state == ReservationState::Waiting);
        is_waiting && self.release(user_id, ticket_id)
    }

    /// Removes the claim on this ticket where it waits for payment: the deadlines that it had.
    pub fn give_up(
        &mut self,
        user_id: UserId,
        ticket_id: TicketId,
    ) -> Option<(Timestamp, Timestamp)> {
        let claim = *self.claims.get(&user_id)?;
        self.release_waiting(user_id, ticket_id)
            .then_some((claim.expires_at, claim.lapses_at))
    }

    /// Whether the user has bought exactly this ticket.
    #[must_use]
    pub fn is_completed(&self, user_id: UserId, ticket_id: TicketId) -> bool {
        self.claims.get(&user_id).is_some_and(|claim| {
            claim.ticket_id == ticket_id && claim.state == ReservationState::Completed
        })
    }

    /// The ticket of this user's claim, where it waits for payment and is due to lapse at exactly this time.
    #[must_use]
    pub fn lapsing(&self, user_id: UserId, lapses_at: Timestamp) -> Option<TicketId> {
        let claim = self.claims.get(&user_id)?;
        (claim.state == ReservationState::Waiting && claim.lapses_at == lapses_at)
            .then_some(claim.ticket_id)
    }

    /// The claim of this user waits on until then.
    pub fn postpone(&mut self, user_id: UserId, lapses_at: Timestamp) {
        if let Some(claim) = self.claims.get_mut(&user_id) {
            claim.lapses_at = lapses_at;
        }
    }

    #[must_use]
    pub fn stats(&self) -> Stats {
        let (quantity, waiting, completed) = (self.sale.quantity, self.waiting, self.completed);
        Stats {
            quantity,
            waiting,
            completed,
            available: quantity - waiting - completed,
        }
    }

    fn count(&mut self, state: ReservationState) -> &mut i64 {
        match state {
            ReservationState::Waiting => &mut self.waiting,
            ReservationState::Completed => &mut self.completed,
        }
    }
}

//! One event's claims, in memory. Pure: every operation decides at once, and nothing here waits.

use std::collections::HashMap;

use contract::{TicketId, Timestamp, UserId};

use super::{ClaimId, Deadlines, Granted, Reservation, ReserveRequest, Stats, claim::Claim};
use crate::model::{AgreedPrice, Allocation, ReservationState};

/// Why a request was not granted.
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
    /// Passes within moments.
    #[error("the reservations of this event are being rebuilt; try again shortly")]
    Rebuilding,
}

/// An event's claims and the rules of its sale.
#[derive(Debug)]
pub(super) struct Stock {
    sale: Allocation,
    waiting: i64,
    completed: i64,
    claims: HashMap<UserId, HeldClaim>,
}

#[derive(Debug, Clone, Copy)]
struct HeldClaim {
    claim: Claim,
    state: ReservationState,
    /// Its grant is not stored yet, or its buyer is giving it back: it counts as waiting, but no purchase begins with it and
    /// it is not completed.
    is_hidden: bool,
}

impl HeldClaim {
    fn is_waiting(&self) -> bool {
        self.state == ReservationState::Waiting
    }
}

impl Stock {
    pub fn new(sale: Allocation) -> Self {
        Self {
            sale,
            waiting: 0,
            completed: 0,
            claims: HashMap::new(),
        }
    }

    /// Applies a newer version of the sale. As in the allocation, the quantity never falls below what is completed.
    pub fn set_sale(&mut self, sale: &Allocation) {
        if sale.event_version > self.sale.event_version {
            self.sale = sale.clone().at_least(self.completed);
        }
    }

    /// Grants a claim at the current price, hidden until it is stored. A repeated keyed request is granted the claim that it
    /// already has.
    ///
    /// # Errors
    /// The first [`Refusal`] that applies.
    pub fn reserve(
        &mut self,
        request: &ReserveRequest,
        now: Timestamp,
    ) -> Result<Granted, Refusal> {
        let ClaimId {
            user_id, ticket_id, ..
        } = request.claim;
        match self.claims.get(&user_id) {
            Some(held) if !held.is_waiting() => return Err(Refusal::AlreadyPurchased),
            Some(HeldClaim { claim, .. }) if claim.ticket_id.is_of_same_request(ticket_id) => {
                return Ok(Granted::Before(claim.reserved()));
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
        let claim = Claim {
            ticket_id,
            deadlines: request.deadlines,
            price: Some(AgreedPrice::now(self.sale.price)),
        };
        self.insert(user_id, claim, ReservationState::Waiting);
        self.hide(request.claim);
        Ok(Granted::Now)
    }

    /// Adds a claim; false if the user has another.
    pub fn insert(&mut self, user_id: UserId, claim: Claim, state: ReservationState) -> bool {
        if self.claims.contains_key(&user_id) {
            return false;
        }
        *self.count(state) += 1;
        let held = HeldClaim {
            claim,
            state,
            is_hidden: false,
        };
        self.claims.insert(user_id, held);
        true
    }

    /// Adds a stored claim, after those with earlier tickets. Of two waiting claims of one user the later stands, and
    /// a completed one stands over both. Returns the ticket of the claim that was superseded.
    pub fn restore(
        &mut self,
        user_id: UserId,
        claim: Claim,
        state: ReservationState,
    ) -> Option<TicketId> {
        let superseded = match self.claims.get(&user_id) {
            Some(held) if !held.is_waiting() => return Some(claim.ticket_id),
            Some(held) => Some(held.claim.ticket_id),
            None => None,
        };
        if self.claims.remove(&user_id).is_some() {
            self.waiting -= 1;
        }
        self.insert(user_id, claim, state);
        superseded
    }

    pub fn find(&self, user_id: UserId) -> Option<Reservation> {
        let held = self.claims.get(&user_id)?;
        let found = held.claim.reservation(held.state, self.sale.price);
        (!held.is_hidden).then_some(found)
    }

    /// The price that this user's claim was granted at.
    pub fn agreed_price(&self, user_id: UserId) -> Option<AgreedPrice> {
        self.claims.get(&user_id)?.claim.price
    }

    /// WAITING to COMPLETED, or still COMPLETED: the claim's deadlines. `None` if it is gone.
    pub fn complete(&mut self, id: ClaimId) -> Option<Deadlines> {
        let held = self.claims.get_mut(&id.user_id)?;
        if held.claim.ticket_id != id.ticket_id || held.is_hidden {
            return None;
        }
        let deadlines = held.claim.deadlines;
        match std::mem::replace(&mut held.state, ReservationState::Completed) {
            ReservationState::Completed => {}
            ReservationState::Waiting => {
                self.waiting -= 1;
                self.completed += 1;
            }
        }
        Some(deadlines)
    }

    /// Grants a claim that is gone once more, to be completed before it expires; whether it did. The sale's window does
    /// not matter: the claim was first granted within it.
    pub fn retake(&mut self, id: ClaimId, lapses_at: Timestamp) -> bool {
        let claim = Claim::until(id.ticket_id, lapses_at);
        self.stats().available > 0 && self.insert(id.user_id, claim, ReservationState::Waiting)
    }

    /// Removes the claim on this ticket; `None` if there is none.
    pub fn release(&mut self, id: ClaimId) -> Option<Claim> {
        let held = *self.claims.get(&id.user_id)?;
        if held.claim.ticket_id != id.ticket_id {
            return None;
        }
        self.claims.remove(&id.user_id);
        *self.count(held.state) -= 1;
        // As in the allocation: after the quantity was lowered below what was sold, a returned ticket is not on sale.
        self.sale.quantity = self.sale.quantity_after(self.completed);
        Some(held.claim)
    }

    /// Hides the claim on this ticket; false if it does not wait, or is hidden.
    pub fn hide(&mut self, id: ClaimId) -> bool {
        let held = self.claims.get_mut(&id.user_id);
        let held = held.filter(|held| held.is_waiting() && held.claim.ticket_id == id.ticket_id);
        held.is_some_and(|held| !std::mem::replace(&mut held.is_hidden, true))
    }

    /// The grant of the claim is stored, or its release is not.
    pub fn show(&mut self, id: ClaimId) {
        let held = self.claims.get_mut(&id.user_id);
        if let Some(held) = held.filter(|held| held.claim.ticket_id == id.ticket_id) {
            held.is_hidden = false;
        }
    }

    /// Removes the claim on this ticket if it waits for payment.
    pub fn release_waiting(&mut self, id: ClaimId) -> Option<Claim> {
        let is_waiting = self.claims.get(&id.user_id)?.is_waiting();
        if is_waiting { self.release(id) } else { None }
    }

    pub fn is_completed(&self, id: ClaimId) -> bool {
        self.claims
            .get(&id.user_id)
            .is_some_and(|held| held.claim.ticket_id == id.ticket_id && !held.is_waiting())
    }

    /// The ticket of this user's claim, if it waits for payment and expires at exactly this time.
    pub fn due_ticket(&self, user_id: UserId, lapses_at: Timestamp) -> Option<TicketId> {
        let held = self.claims.get(&user_id)?;
        (held.is_waiting() && held.claim.deadlines.lapses_at == lapses_at)
            .then_some(held.claim.ticket_id)
    }

    pub fn postpone(&mut self, user_id: UserId, lapses_at: Timestamp) {
        if let Some(held) = self.claims.get_mut(&user_id) {
            held.claim.deadlines.lapses_at = lapses_at;
        }
    }

    pub fn stats(&self) -> Stats {
        Stats::new(self.sale.quantity, self.waiting, self.completed)
    }

    fn count(&mut self, state: ReservationState) -> &mut i64 {
        match state {
            ReservationState::Waiting => &mut self.waiting,
            ReservationState::Completed => &mut self.completed,
        }
    }
}

//! Which claims of the memory are due, and how they end.

use std::collections::HashMap;

use contract::{EventId, TicketId, Timestamp, UserId};
use messaging::CommitOutcome;

use super::State;
use crate::{
    model::{Purchase, ReservationState},
    reservations::{ClaimId, DueClaim, claim::Claim, was_not_applied},
};

impl State {
    /// The first claims that are due by `now`, at most `max`. They stay as they are: the caller may be dropped.
    pub(super) fn due(&mut self, now: Timestamp, max: usize) -> Vec<DueClaim> {
        let is_stale = |state: &Self| {
            let next = state.expiry_queue.peek().filter(|next| next.0.0 <= now);
            next.is_some_and(|next| state.due_claim(&next.0).is_none())
        };
        while is_stale(self) {
            self.expiry_queue.pop();
        }
        // A superseded claim that was paid and retaken keeps its row.
        let superseded = std::mem::take(&mut self.superseded);
        self.superseded = superseded
            .into_iter()
            .filter(|claim| !self.is_completed(*claim))
            .collect();
        let mut due: Vec<DueClaim> = self
            .superseded
            .iter()
            .map(|claim| DueClaim {
                claim: *claim,
                lapses_at: now,
            })
            .collect();
        if self.expiry_queue.peek().is_some_and(|next| next.0.0 <= now) {
            let entries = self.expiry_queue.iter().map(|next| next.0);
            let mut entries: Vec<_> = entries.filter(|(at, ..)| *at <= now).collect();
            entries.sort_unstable();
            due.extend(entries.iter().filter_map(|entry| self.due_claim(entry)));
        }
        due.truncate(max);
        due
    }

    fn is_completed(&self, claim: ClaimId) -> bool {
        let stock = self.stocks.get(&claim.event_id);
        stock.is_some_and(|stock| stock.is_completed(claim))
    }

    /// The claim of this queue entry, if it still expires at that time.
    fn due_claim(
        &self,
        (lapses_at, event_id, user_id): &(Timestamp, EventId, UserId),
    ) -> Option<DueClaim> {
        let stock = self.stocks.get(event_id)?;
        let claim = ClaimId {
            event_id: *event_id,
            user_id: *user_id,
            ticket_id: stock.due_ticket(*user_id, *lapses_at)?,
        };
        Some(DueClaim {
            claim,
            lapses_at: *lapses_at,
        })
    }

    /// Frees the claims that are still due; one with an open purchase is due again at `recheck_at`. Returns whether each
    /// was freed.
    pub(super) fn end_due(
        &mut self,
        due: Vec<DueClaim>,
        open: &HashMap<TicketId, Purchase>,
        recheck_at: Timestamp,
    ) -> Vec<(DueClaim, bool)> {
        let mut ended = Vec::with_capacity(due.len());
        for due in due {
            let claim = due.claim;
            // A superseded claim holds no ticket, only its row.
            if let Some(place) = self.superseded.iter().position(|it| *it == claim) {
                self.superseded.swap_remove(place);
                ended.push((due, true));
            } else if self.due_claim(&(due.lapses_at, claim.event_id, claim.user_id)) == Some(due)
                && let Some(stock) = self.stocks.get_mut(&claim.event_id)
            {
                let is_freed = !open.contains_key(&claim.ticket_id);
                if is_freed {
                    stock.release(claim);
                } else {
                    stock.postpone(claim.user_id, recheck_at);
                    self.schedule_expiry(claim, recheck_at);
                }
                ended.push((due, is_freed));
            }
        }
        ended
    }

    /// Puts back the freed claims whose expiry was not stored. A claim that stays is published again at its next check.
    pub(super) fn settle_expiry(&mut self, ended: &[(DueClaim, bool)], outcomes: &[CommitOutcome]) {
        for ((due, is_freed), outcome) in ended.iter().zip(outcomes) {
            if *is_freed && was_not_applied(outcome) {
                let freed = Claim::until(due.claim.ticket_id, due.lapses_at);
                self.put_back(due.claim, freed);
            }
        }
    }

    /// Restores a claim whose end was not stored. If its ticket went to another buyer meanwhile, or its user has another
    /// claim, it is superseded and due at once.
    pub(super) fn put_back(&mut self, id: ClaimId, claim: Claim) {
        let Some(stock) = self.stocks.get_mut(&id.event_id) else {
            return;
        };
        // It was paid and retaken meanwhile.
        if stock.is_completed(id) {
            return;
        }
        let is_available = stock.stats().available > 0;
        if is_available && stock.insert(id.user_id, claim, ReservationState::Waiting) {
            self.schedule_expiry(id, claim.deadlines.lapses_at);
        } else {
            self.superseded.push(id);
        }
    }
}

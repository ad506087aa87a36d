//! Which claims are due, and how they end in memory.

use std::{cmp::Reverse, collections::HashSet};

use contract::{EventId, TicketId, Timestamp, UserId};

use super::State;
use crate::{
    model::{AgreedPrice, ReservationState},
    reservations::{Claimed, Lapse},
};

impl State {
    /// The first claims that are due by `now`, at most `max`. They stay as they are: who asks may go away.
    pub(super) fn due(&mut self, now: Timestamp, max: usize) -> Vec<Lapse> {
        let is_over = |state: &Self| {
            let next = state.lapses.peek().filter(|next| next.0.0 <= now);
            next.is_some_and(|next| state.lapse_of(&next.0).is_none())
        };
        while is_over(self) {
            self.lapses.pop();
        }
        // One that was paid after all has its ticket again, and its row stays.
        let superseded = std::mem::take(&mut self.superseded);
        self.superseded = superseded
            .into_iter()
            .filter(|claimed| !self.is_bought(claimed))
            .collect();
        let mut due: Vec<Lapse> = self
            .superseded
            .iter()
            .map(|claimed| Lapse {
                claimed: *claimed,
                lapses_at: now,
            })
            .collect();
        if self.lapses.peek().is_some_and(|next| next.0.0 <= now) {
            let times = self.lapses.iter().map(|next| next.0);
            let mut times: Vec<_> = times.filter(|(lapses_at, ..)| *lapses_at <= now).collect();
            times.sort_unstable();
            due.extend(times.iter().filter_map(|time| self.lapse_of(time)));
        }
        due.truncate(max);
        due
    }

    fn is_bought(&self, claimed: &Claimed) -> bool {
        let stock = self.stocks.get(&claimed.event_id);
        stock.is_some_and(|stock| stock.is_completed(claimed.user_id, claimed.ticket_id))
    }

    /// The claim that this entry is of, if it still waits until then.
    fn lapse_of(
        &self,
        (lapses_at, event_id, user_id): &(Timestamp, EventId, UserId),
    ) -> Option<Lapse> {
        let stock = self.stocks.get(event_id)?;
        let ticket_id = stock.lapsing(*user_id, *lapses_at)?;
        let claimed = Claimed {
            event_id: *event_id,
            user_id: *user_id,
            ticket_id,
        };
        Some(Lapse {
            claimed,
            lapses_at: *lapses_at,
        })
    }

    /// Frees what is due still; a claim whose purchase was begun stays until `again`. Whether each is free.
    pub(super) fn end_due(
        &mut self,
        due: Vec<Lapse>,
        begun: &HashSet<TicketId>,
        again: Timestamp,
    ) -> Vec<(Lapse, bool)> {
        let mut ended = Vec::with_capacity(due.len());
        for lapse in due {
            let Lapse { claimed, lapses_at } = lapse;
            let Claimed {
                event_id,
                user_id,
                ticket_id,
            } = claimed;
            // It stands for nothing but its row.
            if let Some(place) = self.superseded.iter().position(|it| *it == claimed) {
                self.superseded.swap_remove(place);
                ended.push((lapse, true));
            } else if self.lapse_of(&(lapses_at, event_id, user_id)) == Some(lapse)
                && let Some(stock) = self.stocks.get_mut(&event_id)
            {
                let is_free = !begun.contains(&ticket_id);
                if is_free {
                    stock.release(user_id, ticket_id);
                } else {
                    stock.postpone(user_id, again);
                    self.lapses.push(Reverse((again, event_id, user_id)));
                }
                ended.push((lapse, is_free));
            }
        }
        ended
    }

    /// A claim whose end could not be stored stands as it is stored. Where its ticket went to another buyer meanwhile,
    /// or its user took another, it is superseded: it lapses at once, as soon as the store takes it.
    pub(super) fn put_back(
        &mut self,
        claimed: Claimed,
        deadlines: (Timestamp, Timestamp),
        price: Option<AgreedPrice>,
    ) {
        let Claimed {
            event_id,
            user_id,
            ticket_id,
        } = claimed;
        let Some(stock) = self.stocks.get_mut(&event_id) else {
            return;
        };
        // It was paid after all, and taken again meanwhile.
        if stock.is_completed(user_id, ticket_id) {
            return;
        }
        let is_free = stock.stats().available > 0;
        if is_free && stock.restore(user_id, ticket_id, ReservationState::Waiting, deadlines) {
            stock.agree(user_id, price);
            self.lapses.push(Reverse((deadlines.1, event_id, user_id)));
        } else {
            self.superseded.push(claimed);
        }
    }
}

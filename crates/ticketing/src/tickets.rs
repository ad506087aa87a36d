//! Lists the tickets of a user.

use contract::{TicketId, Timestamp, UserId};
use messaging::{Find, Record as _, StoreError};

use crate::{Service, model::Ticket};

/// Rows of one read. A user has one valid ticket for an event, beside cancelled ones.
const PAGE_ROWS: u32 = 500;

impl Service {
    /// The next tickets of a user, in the order in which they were issued. Ticket ids are ordered by the time of the
    /// reservation instead.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not answer.
    pub async fn tickets_of(
        &self,
        user_id: UserId,
        after: Option<TicketId>,
        limit: u32,
    ) -> Result<Vec<Ticket>, StoreError> {
        let find = Find::all(Ticket::TABLE, PAGE_ROWS).equals("user_id", user_id.0);
        let (mut tickets, mut pages) = (Vec::<Ticket>::new(), self.0.store.pages(find));
        while let Some(page) = pages.next().await? {
            tickets.extend::<Vec<Ticket>>(page);
        }
        let place = |ticket: &Ticket| (ticket.created_at, ticket.ticket_id);
        tickets.sort_unstable_by_key(place);
        if let Some(after) = after {
            let seen = tickets.iter().find(|ticket| ticket.ticket_id == after);
            // For a ticket of another user, the time in its id counts.
            let seen = seen.map_or((reserved_at(after), after), place);
            tickets.retain(|ticket| place(ticket) > seen);
        }
        tickets.truncate(limit as usize);
        Ok(tickets)
    }
}

fn reserved_at(ticket_id: TicketId) -> Timestamp {
    let secs = i64::try_from(ticket_id.second()).unwrap_or(i64::MAX / 1000);
    Timestamp::from_millis(secs * 1000)
}

//! The records of the ticketing service and their transitions. Pure.

use contract::{EventId, Money, PaymentId, Points, TicketId, Timestamp, UserId, domain};
use messaging::record::{Column, Record, Table};
use serde::{Deserialize, Serialize};

pub use contract::domain::TicketStatus;

/// An event's stock, with the rules of its sale: the last guard against overselling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    pub event_id: EventId,
    /// How many tickets may be sold.
    pub quantity: i64,
    /// The event's quantity, if that is below what was sold already: `quantity` falls towards it as tickets are returned.
    pub lowered_to: Option<i64>,
    pub sold: i64,
    pub price: Option<Money>,
    pub sale_opens_at: Option<Timestamp>,
    pub sale_closes_at: Option<Timestamp>,
    /// The version of the `domain.event` message that was applied last.
    pub event_version: i64,
    pub version: i64,
}

impl Record for Allocation {
    const TABLE: &'static Table = &Table {
        name: "allocation",
        columns: &[
            Column::integer("event_id"),
            Column::integer("quantity"),
            Column::integer("lowered_to").null(),
            Column::integer("sold"),
            Column::integer("price").null(),
            Column::text("sale_opens_at").null(),
            Column::text("sale_closes_at").null(),
            Column::integer("event_version"),
            Column::VERSION,
        ],
        key: "event_id",
        constraints: &["CHECK (sold >= 0)", "CHECK (sold <= quantity)"],
        indexes: &[],
    };
}

impl Allocation {
    #[must_use]
    pub fn new(event: &domain::Event, event_version: i64) -> Self {
        Self {
            event_id: event.id,
            quantity: event.ticket_quantity,
            lowered_to: None,
            sold: 0,
            price: event.price,
            sale_opens_at: event.sale_opens_at,
            sale_closes_at: event.sale_closes_at,
            event_version,
            version: 0,
        }
    }

    /// Applies a newer version of the event; `None` for any other. The quantity never falls below what is sold: no buyer
    /// loses a ticket.
    #[must_use]
    pub fn apply_event(&self, event: &domain::Event, event_version: i64) -> Option<Self> {
        (event_version > self.event_version).then(|| Self {
            sold: self.sold,
            version: self.version,
            ..Self::new(event, event_version).at_least(self.sold)
        })
    }

    /// The same sale with a quantity of at least what is sold.
    #[must_use]
    pub fn at_least(self, sold: i64) -> Self {
        let lowered_to = (self.quantity < sold).then_some(self.quantity);
        Self {
            quantity: self.quantity.max(sold),
            lowered_to,
            ..self
        }
    }

    /// The quantity after tickets were returned, and this many are still sold.
    #[must_use]
    pub fn quantity_after(&self, sold: i64) -> i64 {
        let target = self.lowered_to.map(|target| target.max(sold));
        target.map_or(self.quantity, |target| target.min(self.quantity))
    }

    /// One more ticket sold; `None` if all are sold.
    #[must_use]
    pub fn sell_one(&self) -> Option<Self> {
        (self.sold < self.quantity).then(|| Self {
            sold: self.sold + 1,
            ..self.clone()
        })
    }

    /// One ticket returned; `None` if none is sold. After the quantity was lowered below what was sold, a returned ticket
    /// is not on sale again: the quantity falls with it.
    #[must_use]
    pub fn return_one(&self) -> Option<Self> {
        let sold = self.sold - 1;
        (sold >= 0).then(|| Self {
            sold,
            quantity: self.quantity_after(sold),
            ..self.clone()
        })
    }
}

/// What the buyer owns after payment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub payment_id: PaymentId,
    pub status: TicketStatus,
    /// The version of the payment that changed this ticket last; messages of older versions are ignored.
    pub payment_version: i64,
    /// How many cancellations its buyer has requested; each is a saga of its own.
    pub cancellation: u32,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub version: i64,
}

impl Record for Ticket {
    const TABLE: &'static Table = &Table {
        name: "ticket",
        columns: &[
            Column::text("ticket_id"),
            Column::integer("event_id"),
            Column::integer("user_id"),
            Column::text("payment_id"),
            Column::text("status"),
            Column::integer("payment_version"),
            Column::integer("cancellation"),
            Column::text("created_at"),
            Column::text("updated_at"),
            Column::VERSION,
        ],
        key: "ticket_id",
        constraints: &["CHECK (status IN ('RESERVED', 'CANCELLED', 'EXPIRED'))"],
        indexes: &["(user_id)", "(event_id, ticket_id)"],
    };
}

impl Ticket {
    #[must_use]
    pub fn issued(payment: &domain::Payment, payment_version: i64, now: Timestamp) -> Self {
        Self {
            ticket_id: payment.ticket_id,
            event_id: payment.event_id,
            user_id: payment.user_id,
            payment_id: payment.id,
            status: TicketStatus::Reserved,
            payment_version,
            cancellation: 0,
            created_at: now,
            updated_at: now,
            version: 0,
        }
    }

    /// The ticket cancelled; `None` if it is not valid.
    #[must_use]
    pub fn cancelled(&self, now: Timestamp) -> Option<Self> {
        (self.status == TicketStatus::Reserved).then(|| Self {
            status: TicketStatus::Cancelled,
            updated_at: now,
            ..self.clone()
        })
    }

    /// The payload of `domain.ticket`.
    #[must_use]
    pub fn public(&self) -> domain::Ticket {
        domain::Ticket {
            id: self.ticket_id,
            event_id: self.event_id,
            user_id: self.user_id,
            status: self.status,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReservationState {
    /// For payment.
    Waiting,
    Completed,
}

/// The price that a reservation was granted at: later changes of the event's price do not affect it. Stored as the
/// price, or as the empty string if the buyer names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum AgreedPrice {
    Of(Money),
    NamedByBuyer,
}

impl AgreedPrice {
    #[must_use]
    pub fn now(price: Option<Money>) -> Self {
        price.map_or(Self::NamedByBuyer, Self::Of)
    }

    /// `None` if the buyer names it.
    #[must_use]
    pub fn price(self) -> Option<Money> {
        match self {
            Self::Of(price) => Some(price),
            Self::NamedByBuyer => None,
        }
    }

    /// `None` for a text that no program wrote.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::NamedByBuyer);
        }
        Money::new(text.parse().ok()?).ok().map(Self::Of)
    }
}

impl From<AgreedPrice> for String {
    fn from(agreed: AgreedPrice) -> Self {
        let price = agreed.price().map(|price| price.to_string());
        price.unwrap_or_default()
    }
}

impl TryFrom<String> for AgreedPrice {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::read(&text).ok_or_else(|| format!("{text:?} is not a price"))
    }
}

/// A claim on one ticket, as the embedded backend stores it. A claim that expired or was released has no row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReservationRecord {
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub state: ReservationState,
    /// The buyer's deadline.
    pub expires_at: Timestamp,
    /// When the claim expires: a grace period after the deadline.
    pub lapses_at: Timestamp,
    /// `None` in a row of an earlier program: the event's price counts.
    pub agreed_price: Option<AgreedPrice>,
    pub version: i64,
}

impl Record for ReservationRecord {
    const TABLE: &'static Table = &Table {
        name: "reservation",
        columns: &[
            Column::text("ticket_id"),
            Column::integer("event_id"),
            Column::integer("user_id"),
            Column::text("state"),
            Column::text("expires_at"),
            Column::text("lapses_at"),
            Column::text("agreed_price").null(),
            Column::VERSION,
        ],
        key: "ticket_id",
        constraints: &["CHECK (state IN ('WAITING', 'COMPLETED'))"],
        indexes: &[],
    };
}

/// A buyer's request to start the purchase of a reserved ticket. Its key makes sure that the purchase starts once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purchase {
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub total_amount: Money,
    pub point: Points,
    pub expires_at: Timestamp,
    pub requested_at: Timestamp,
    /// When the buyer released the reservation: a payment after that is refunded.
    pub released_at: Option<Timestamp>,
    pub version: i64,
}

impl Record for Purchase {
    const TABLE: &'static Table = &Table {
        name: "purchase",
        columns: &[
            Column::text("ticket_id"),
            Column::integer("event_id"),
            Column::integer("user_id"),
            Column::integer("total_amount"),
            Column::integer("point"),
            Column::text("expires_at"),
            Column::text("requested_at"),
            Column::text("released_at").null(),
            Column::VERSION,
        ],
        key: "ticket_id",
        constraints: &[],
        indexes: &["(event_id, ticket_id)"],
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(quantity: i64) -> domain::Event {
        domain::Event {
            id: EventId(1),
            name: "show".to_owned(),
            ticket_quantity: quantity,
            price: None,
            sale_opens_at: None,
            sale_closes_at: None,
            created_at: Timestamp::default(),
            updated_at: Timestamp::default(),
        }
    }

    #[test]
    fn no_allocation_sells_more_than_its_quantity() {
        let one_left = Allocation::new(&event(1), 1);
        let sold_out = one_left.sell_one().unwrap();
        assert_eq!(sold_out.sold, 1);
        assert_eq!(sold_out.sell_one(), None);
    }

    #[test]
    fn a_quantity_update_is_applied_once_and_never_below_what_is_sold() {
        let sold_two = Allocation {
            sold: 2,
            ..Allocation::new(&event(5), 3)
        };
        assert_eq!(sold_two.apply_event(&event(9), 4).unwrap().quantity, 9);
        assert_eq!(sold_two.apply_event(&event(1), 4).unwrap().quantity, 2);
        // An update of the same version is ignored.
        assert_eq!(sold_two.apply_event(&event(9), 3), None);
    }

    #[test]
    fn a_returned_ticket_is_on_sale_again_within_the_current_quantity() {
        let sold_out = Allocation {
            sold: 3,
            ..Allocation::new(&event(3), 1)
        };
        let numbers = |it: &Allocation| (it.sold, it.quantity);
        assert_eq!(numbers(&sold_out.return_one().unwrap()), (2, 3));

        let lowered = sold_out.apply_event(&event(1), 2).unwrap();
        assert_eq!(numbers(&lowered), (3, 3));
        let once = lowered.return_one().unwrap();
        assert_eq!(numbers(&once), (2, 2));
        assert_eq!(once.sell_one(), None, "one is offered, and two are sold");
        let twice = once.return_one().unwrap();
        let thrice = twice.return_one().unwrap();
        assert_eq!(numbers(&thrice), (0, 1));
        assert_eq!(thrice.return_one(), None);
    }
}

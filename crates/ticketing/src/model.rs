//! What the ticketing service keeps, and how it changes. Pure: records and their transitions.

use contract::{EventId, Money, PaymentId, Points, TicketId, Timestamp, UserId, domain};
use messaging::record::{Column, Key, Record, Table};
use serde::{Deserialize, Serialize};

pub use contract::domain::TicketStatus;

/// An event's stock: the last arbiter against overselling, and what the sale's rules are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allocation {
    pub event_id: EventId,
    /// What may be sold.
    pub quantity: i64,
    /// What the event service has lowered the quantity to, where more was sold already: `quantity` follows down to it
    /// as tickets are given back.
    pub lowered_to: Option<i64>,
    pub sold: i64,
    pub price: Option<Money>,
    pub sale_opens_at: Option<Timestamp>,
    pub sale_closes_at: Option<Timestamp>,
    /// The version of the `domain.event` message that this was taken from.
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
            Column::integer("version"),
        ],
        key: "event_id",
        constraints: &["CHECK (sold >= 0)", "CHECK (sold <= quantity)"],
        indexes: &[],
    };
    fn key(&self) -> Key {
        self.event_id.into()
    }
    fn version(&self) -> i64 {
        self.version
    }
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

    /// Takes over a newer state of the event; an older one changes nothing. A quantity below what is sold already
    /// leaves exactly what is sold: no buyer loses a ticket.
    #[must_use]
    pub fn follow(&self, event: &domain::Event, event_version: i64) -> Option<Self> {
        (event_version > self.event_version).then(|| Self {
            sold: self.sold,
            version: self.version,
            ..Self::new(event, event_version).holding(self.sold)
        })
    }

    /// The same sale where this many are bought: never for fewer than that.
    #[must_use]
    pub fn holding(self, bought: i64) -> Self {
        let lowered_to = (self.quantity < bought).then_some(self.quantity);
        Self {
            quantity: self.quantity.max(bought),
            lowered_to,
            ..self
        }
    }

    /// What may be sold once no more than this many are bought.
    #[must_use]
    pub fn quantity_with(&self, bought: i64) -> i64 {
        let wanted = self.lowered_to.map(|wanted| wanted.max(bought));
        wanted.map_or(self.quantity, |wanted| wanted.min(self.quantity))
    }

    /// One more ticket sold; `None` where that would be one too many.
    #[must_use]
    pub fn sell_one(&self) -> Option<Self> {
        (self.sold < self.quantity).then(|| Self {
            sold: self.sold + 1,
            ..self.clone()
        })
    }

    /// One ticket less sold; `None` where none is. Where the quantity was lowered below what was sold, what is given
    /// back is not on sale again: the quantity follows down.
    #[must_use]
    pub fn give_back_one(&self) -> Option<Self> {
        let sold = self.sold - 1;
        (sold >= 0).then(|| Self {
            sold,
            quantity: self.quantity_with(sold),
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
    /// The version of the payment that decided about this ticket last; what an older one says changes nothing.
    pub payment_version: i64,
    /// How often its buyer has asked to give it back; each time is a saga of its own.
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
            Column::integer("version"),
        ],
        key: "ticket_id",
        constraints: &["CHECK (status IN ('RESERVED', 'CANCELLED', 'EXPIRED'))"],
        indexes: &["(user_id)", "(event_id, ticket_id)"],
    };
    fn key(&self) -> Key {
        self.ticket_id.into()
    }
    fn version(&self) -> i64 {
        self.version
    }
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

    /// The ticket given back; `None` where nobody owns it any more.
    #[must_use]
    pub fn cancelled(&self, now: Timestamp) -> Option<Self> {
        (self.status == TicketStatus::Reserved).then(|| Self {
            status: TicketStatus::Cancelled,
            updated_at: now,
            ..self.clone()
        })
    }

    /// What other services are told.
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

/// What a ticket costs, agreed when it was reserved: whatever becomes of the event's price, its buyer pays this. Written
/// as the price, or as nothing where the buyer names it.
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

    /// `None` where the buyer names it.
    #[must_use]
    pub fn price(self) -> Option<Money> {
        match self {
            Self::Of(price) => Some(price),
            Self::NamedByBuyer => None,
        }
    }

    /// `None` for what was never written.
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
        let price = agreed.price().map(Money::get);
        price.map(|price| price.to_string()).unwrap_or_default()
    }
}

impl TryFrom<String> for AgreedPrice {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        Self::read(&text).ok_or_else(|| format!("{text:?} is not a price"))
    }
}

/// A buyer's claim on one ticket, as the embedded backend keeps it. One that lapsed or was released has no row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub state: ReservationState,
    /// The buyer's deadline.
    pub expires_at: Timestamp,
    /// When the claim lapses: a grace period after the deadline.
    pub lapses_at: Timestamp,
    /// `None` in a row of a program that did not keep it: the event's price counts.
    pub agreed_price: Option<AgreedPrice>,
    pub version: i64,
}

impl Record for Reservation {
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
            Column::integer("version"),
        ],
        key: "ticket_id",
        constraints: &["CHECK (state IN ('WAITING', 'COMPLETED'))"],
        indexes: &[],
    };
    fn key(&self) -> Key {
        self.ticket_id.into()
    }
    fn version(&self) -> i64 {
        self.version
    }
}

/// A buyer's word that the purchase of a reserved ticket shall start. Its key makes sure that it starts once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purchase {
    pub ticket_id: TicketId,
    pub event_id: EventId,
    pub user_id: UserId,
    pub total_amount: Money,
    pub point: Points,
    pub expires_at: Timestamp,
    pub requested_at: Timestamp,
    /// When the buyer gave the reservation back: money that comes after that buys nothing.
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
            Column::integer("version"),
        ],
        key: "ticket_id",
        constraints: &[],
        indexes: &["(event_id, ticket_id)"],
    };
    fn key(&self) -> Key {
        self.ticket_id.into()
    }
    fn version(&self) -> i64 {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(quantity: i64) -> domain::Event {
        let at = Timestamp::from_millis(0);
        domain::Event {
            id: EventId(1),
            name: "show".to_owned(),
            ticket_quantity: quantity,
            price: None,
            sale_opens_at: None,
            sale_closes_at: None,
            created_at: at,
            updated_at: at,
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
    fn a_quantity_update_is_followed_once_and_never_below_what_is_sold() {
        let sold_two = Allocation {
            sold: 2,
            ..Allocation::new(&event(5), 3)
        };
        assert_eq!(sold_two.follow(&event(9), 4).unwrap().quantity, 9);
        assert_eq!(sold_two.follow(&event(1), 4).unwrap().quantity, 2);
        assert_eq!(
            sold_two.follow(&event(9), 3),
            None,
            "an update seen before changes nothing"
        );
    }

    #[test]
    fn what_is_given_back_is_on_sale_again_but_never_more_than_is_wanted() {
        let sold_out = Allocation {
            sold: 3,
            ..Allocation::new(&event(3), 1)
        };
        let numbers = |it: &Allocation| (it.sold, it.quantity);
        assert_eq!(numbers(&sold_out.give_back_one().unwrap()), (2, 3));

        let lowered = sold_out.follow(&event(1), 2).unwrap();
        assert_eq!(numbers(&lowered), (3, 3));
        let once = lowered.give_back_one().unwrap();
        assert_eq!(numbers(&once), (2, 2));
        assert_eq!(once.sell_one(), None, "one is wanted, and two are sold");
        let twice = once.give_back_one().unwrap();
        let thrice = twice.give_back_one().unwrap();
        assert_eq!(numbers(&thrice), (0, 1));
        assert_eq!(thrice.give_back_one(), None);
    }
}

//! An event and the rules about it. Pure: ids and the time are handed in.

use contract::{EventId, Money, Timestamp, domain, text};
use messaging::{Column, Key, Record, Table};
use serde::{Deserialize, Serialize};

pub const NAME_CHARS_MAX: usize = 200;
/// What one event may have: its reservations are held in memory, one entry each.
pub const TICKET_QUANTITY_MAX: i64 = 10_000_000;

/// What an organiser says of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    pub name: String,
    pub ticket_quantity: i64,
    /// The price of every ticket; where it is absent, the buyer's client names it.
    pub price: Option<Money>,
    /// On sale from the start, where it is absent.
    pub sale_opens_at: Option<Timestamp>,
    /// On sale without end, where it is absent.
    pub sale_closes_at: Option<Timestamp>,
}

/// What a change says of one thing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Given<T> {
    /// It stays as it is.
    #[default]
    Left,
    This(T),
    /// `null`.
    Nothing,
}

impl<T> Given<T> {
    fn over(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Left => before,
            Self::This(new) => Some(new),
            Self::Nothing => None,
        }
    }
}

/// What an organiser changes of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    pub name: String,
    pub ticket_quantity: i64,
    pub price: Given<Money>,
    pub buyer_names_price: Option<bool>,
    pub sale_opens_at: Given<Timestamp>,
    pub sale_closes_at: Given<Timestamp>,
}

impl Changes {
    /// The terms that `event` is under then.
    ///
    /// # Errors
    /// [`Invalid`] where it is not clear whether there is a price.
    pub fn of(self, event: &Event) -> Result<Terms, Invalid> {
        Ok(Terms {
            name: self.name,
            ticket_quantity: self.ticket_quantity,
            price: price(event.price, self.price, self.buyer_names_price)?,
            sale_opens_at: self.sale_opens_at.over(event.sale_opens_at),
            sale_closes_at: self.sale_closes_at.over(event.sale_closes_at),
        })
    }
}

/// The price of an event that had `before`. That the buyer names it is never meant by leaving something out of an event
/// that has a price.
///
/// # Errors
/// [`Invalid`] where it is not clear whether there is one.
pub fn price(
    before: Option<Money>,
    given: Given<Money>,
    buyer_names_price: Option<bool>,
) -> Result<Option<Money>, Invalid> {
    let invalid = |field, detail: &str| {
        let detail = detail.to_owned();
        Err(Invalid { field, detail })
    };
    match (given, buyer_names_price) {
        (Given::This(_), Some(true)) => {
            invalid("buyerNamesPrice", "there is a price, so no buyer names it")
        }
        (Given::This(price), Some(false) | None) => Ok(Some(price)),
        (Given::Left | Given::Nothing, Some(true)) => Ok(None),
        (Given::Nothing, Some(false) | None) if before.is_some() => {
            invalid("price", "say buyerNamesPrice: true to take the price away")
        }
        (Given::Left | Given::Nothing, Some(false)) if before.is_none() => {
            invalid("price", "a price is missing, since no buyer names it")
        }
        (Given::Left | Given::Nothing, Some(false) | None) => Ok(before),
    }
}

/// An event as it is stored. Its version counts its changes; 1 is the registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub id: EventId,
    pub name: String,
    pub ticket_quantity: i64,
    pub price: Option<Money>,
    pub sale_opens_at: Option<Timestamp>,
    pub sale_closes_at: Option<Timestamp>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    pub version: i64,
}

/// Terms that cannot be; `field` is as the client wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Invalid {
    pub field: &'static str,
    pub detail: String,
}

impl Terms {
    /// A new event has something to sell.
    ///
    /// # Errors
    /// [`Invalid`], naming the first field that is wrong.
    pub fn check_new(&self) -> Result<(), Invalid> {
        self.check(1)
    }

    /// A known event may be taken off sale with a quantity of 0.
    ///
    /// # Errors
    /// [`Invalid`], naming the first field that is wrong.
    pub fn check_change(&self) -> Result<(), Invalid> {
        self.check(0)
    }

    fn check(&self, ticket_quantity_min: i64) -> Result<(), Invalid> {
        let invalid = |field, detail| Err(Invalid { field, detail });
        if !text::is_visible(&self.name) {
            return invalid("name", "the name has no character that shows".to_owned());
        }
        if self.name.chars().count() > NAME_CHARS_MAX {
            let detail = format!("the name is longer than {NAME_CHARS_MAX} characters");
            return invalid("name", detail);
        }
        if !text::is_plain(&self.name) {
            return invalid("name", "the name has control characters".to_owned());
        }
        let quantities = ticket_quantity_min..=TICKET_QUANTITY_MAX;
        if !quantities.contains(&self.ticket_quantity) {
            let detail = format!(
                "{} is not between {ticket_quantity_min} and {TICKET_QUANTITY_MAX}",
                self.ticket_quantity
            );
            return invalid("ticketQuantity", detail);
        }
        match (self.sale_opens_at, self.sale_closes_at) {
            (Some(opens), Some(closes)) if closes <= opens => {
                let detail = format!("the sale closes at {closes}, not after it opens at {opens}");
                invalid("saleClosesAt", detail)
            }
            _ => Ok(()),
        }
    }
}

impl Event {
    #[must_use]
    pub fn new(id: EventId, terms: Terms, now: Timestamp) -> Self {
        Self {
            id,
            name: terms.name,
            ticket_quantity: terms.ticket_quantity,
            price: terms.price,
            sale_opens_at: terms.sale_opens_at,
            sale_closes_at: terms.sale_closes_at,
            created_at: now,
            updated_at: now,
            version: 0,
        }
    }

    /// The same event under other terms.
    #[must_use]
    pub fn under(self, terms: Terms, now: Timestamp) -> Self {
        Self {
            created_at: self.created_at,
            version: self.version,
            ..Self::new(self.id, terms, now)
        }
    }

    /// The state that everybody is told.
    #[must_use]
    pub fn to_domain(&self) -> domain::Event {
        domain::Event {
            id: self.id,
            name: self.name.clone(),
            ticket_quantity: self.ticket_quantity,
            price: self.price,
            sale_opens_at: self.sale_opens_at,
            sale_closes_at: self.sale_closes_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

impl Record for Event {
    const TABLE: &'static Table = &Table {
        name: "event",
        columns: &[
            Column::integer("id"),
            Column::text("name"),
            Column::integer("ticket_quantity"),
            Column::integer("price").null(),
            Column::text("sale_opens_at").null(),
            Column::text("sale_closes_at").null(),
            Column::text("created_at"),
            Column::text("updated_at"),
            Column::integer("version"),
        ],
        key: "id",
        constraints: &["CHECK (ticket_quantity >= 0)"],
        indexes: &[],
    };
    fn key(&self) -> Key {
        self.id.into()
    }
    fn version(&self) -> i64 {
        self.version
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn terms() -> Terms {
        Terms {
            name: "An evening of tests".to_owned(),
            ticket_quantity: 100,
            price: None,
            sale_opens_at: None,
            sale_closes_at: None,
        }
    }

    fn at(secs: i64) -> Option<Timestamp> {
        Some(Timestamp::from_millis(secs * 1000))
    }

    #[test]
    fn terms_that_cannot_be_are_refused_with_the_field_named() {
        let table = [
            (
                "name",
                Terms {
                    name: String::new(),
                    ..terms()
                },
            ),
            (
                "name",
                Terms {
                    name: " \t ".to_owned(),
                    ..terms()
                },
            ),
            (
                "name",
                Terms {
                    name: "é".repeat(201),
                    ..terms()
                },
            ),
            (
                "name",
                Terms {
                    name: "a\0b".to_owned(),
                    ..terms()
                },
            ),
            (
                "ticketQuantity",
                Terms {
                    ticket_quantity: -1,
                    ..terms()
                },
            ),
            (
                "ticketQuantity",
                Terms {
                    ticket_quantity: 10_000_001,
                    ..terms()
                },
            ),
            (
                "saleClosesAt",
                Terms {
                    sale_opens_at: at(5),
                    sale_closes_at: at(5),
                    ..terms()
                },
            ),
            (
                "saleClosesAt",
                Terms {
                    sale_opens_at: at(5),
                    sale_closes_at: at(4),
                    ..terms()
                },
            ),
        ];
        for (field, terms) in table {
            assert_eq!(terms.check_new().unwrap_err().field, field, "{terms:?}");
            assert_eq!(terms.check_change().unwrap_err().field, field, "{terms:?}");
        }
    }

    #[test]
    fn terms_at_the_edges_are_taken() {
        let table = [
            Terms {
                name: "é".repeat(200),
                ..terms()
            },
            Terms {
                ticket_quantity: 1,
                ..terms()
            },
            Terms {
                ticket_quantity: 10_000_000,
                ..terms()
            },
            Terms {
                sale_opens_at: at(5),
                ..terms()
            },
            Terms {
                sale_closes_at: at(5),
                ..terms()
            },
            Terms {
                sale_opens_at: at(5),
                sale_closes_at: at(6),
                ..terms()
            },
        ];
        for terms in table {
            assert_eq!(terms.check_new(), Ok(()), "{terms:?}");
        }
    }

    #[test]
    fn only_a_known_event_may_have_nothing_to_sell() {
        let none = Terms {
            ticket_quantity: 0,
            ..terms()
        };
        assert_eq!(none.check_new().unwrap_err().field, "ticketQuantity");
        assert_eq!(none.check_change(), Ok(()));
    }

    #[test]
    fn a_price_is_taken_away_only_where_that_is_said() {
        let (old, new) = (Money::new(50_000).ok(), Money::new(60_000).unwrap());
        for (before, given, buyer_names, after) in [
            (old, Given::Left, None, Ok(old)),
            (old, Given::Left, Some(false), Ok(old)),
            (old, Given::Left, Some(true), Ok(None)),
            (old, Given::Nothing, None, Err("price")),
            (old, Given::Nothing, Some(true), Ok(None)),
            (old, Given::This(new), None, Ok(Some(new))),
            (old, Given::This(new), Some(true), Err("buyerNamesPrice")),
            (None, Given::Left, None, Ok(None)),
            (None, Given::Nothing, None, Ok(None)),
            (None, Given::Left, Some(false), Err("price")),
            (None, Given::This(new), Some(false), Ok(Some(new))),
        ] {
            let priced = price(before, given, buyer_names).map_err(|invalid| invalid.field);
            assert_eq!(priced, after, "{before:?} {given:?} {buyer_names:?}");
        }
    }

    proptest! {
        #[test]
        fn a_change_keeps_who_the_event_is_and_takes_all_its_terms(
            quantity in 0..=TICKET_QUANTITY_MAX, price in proptest::option::of(0..i64::MAX), version in 1..9_i64,
        ) {
            let (then, now) = (Timestamp::from_millis(1), Timestamp::from_millis(2));
            let before = Event { version, ..Event::new(EventId(7), terms(), then) };
            let price = price.map(|price| Money::new(price).unwrap());
            let after = before.under(Terms { ticket_quantity: quantity, price, ..terms() }, now);
            prop_assert_eq!((after.id, after.created_at, after.version), (EventId(7), then, version));
            prop_assert_eq!((after.ticket_quantity, after.price, after.updated_at), (quantity, price, now));
        }
    }
}

//! An event and its rules. Pure: ids and the time are passed in.

use contract::{
    EventId, Money, Timestamp, domain,
    text::{self, Invalid},
};
use messaging::{Column, Record, Table};
use serde::{Deserialize, Serialize};

/// Tickets of one event at most: each reservation is one entry in memory.
pub const TICKET_QUANTITY_MAX: i64 = 10_000_000;

/// What an organiser sets for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventDetails {
    pub name: String,
    pub ticket_quantity: i64,
    /// The price of every ticket. `None`: the buyer's client names the total amount.
    pub price: Option<Money>,
    /// `None`: on sale at once.
    pub sale_opens_at: Option<Timestamp>,
    /// `None`: on sale without end.
    pub sale_closes_at: Option<Timestamp>,
}

/// What a change does to one optional field.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum FieldChange<T> {
    /// The field is absent: the value stays.
    #[default]
    Keep,
    Set(T),
    /// The field is `null`: the value is removed.
    Clear,
}

/// `null` differs from an omitted field.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for FieldChange<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Option::<T>::deserialize(deserializer)?;
        Ok(value.map_or(Self::Clear, Self::Set))
    }
}

impl<T> FieldChange<T> {
    pub(crate) fn apply_to(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Keep => before,
            Self::Set(new) => Some(new),
            Self::Clear => None,
        }
    }
}

/// The new price of an event whose price was `before`. An omitted field never removes a price.
///
/// # Errors
/// [`Invalid`] if the price and `buyer_names_price` contradict each other.
pub fn resolve_price(
    before: Option<Money>,
    given: FieldChange<Money>,
    buyer_names_price: Option<bool>,
) -> Result<Option<Money>, Invalid> {
    let invalid = |field, detail: &str| Err(Invalid::new(field, detail));
    match (given, buyer_names_price) {
        (FieldChange::Set(_), Some(true)) => {
            invalid("buyerNamesPrice", "there is a price, so no buyer names it")
        }
        (FieldChange::Set(price), Some(false) | None) => Ok(Some(price)),
        (FieldChange::Keep | FieldChange::Clear, Some(true)) => Ok(None),
        (FieldChange::Clear, Some(false) | None) if before.is_some() => {
            invalid("price", "say buyerNamesPrice: true to take the price away")
        }
        (FieldChange::Keep | FieldChange::Clear, Some(false)) if before.is_none() => {
            invalid("price", "a price is missing, since no buyer names it")
        }
        (FieldChange::Keep | FieldChange::Clear, Some(false) | None) => Ok(before),
    }
}

/// A stored event. Its version counts its changes; the registration is version 1.
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

impl EventDetails {
    /// A new event has at least one ticket.
    ///
    /// # Errors
    /// [`Invalid`] with the first field that breaks a rule.
    pub fn check_new(&self) -> Result<(), Invalid> {
        self.check(1)
    }

    /// A registered event may be taken off sale with a quantity of 0.
    ///
    /// # Errors
    /// [`Invalid`] with the first field that breaks a rule.
    pub fn check_change(&self) -> Result<(), Invalid> {
        self.check(0)
    }

    fn check(&self, ticket_quantity_min: i64) -> Result<(), Invalid> {
        text::check_name(&self.name)?;
        let quantities = ticket_quantity_min..=TICKET_QUANTITY_MAX;
        if !quantities.contains(&self.ticket_quantity) {
            let detail = format!(
                "{} is not between {ticket_quantity_min} and {TICKET_QUANTITY_MAX}",
                self.ticket_quantity
            );
            return Err(Invalid::new("ticketQuantity", detail));
        }
        match (self.sale_opens_at, self.sale_closes_at) {
            (Some(opens), Some(closes)) if closes <= opens => {
                let detail = format!("the sale closes at {closes}, not after it opens at {opens}");
                Err(Invalid::new("saleClosesAt", detail))
            }
            _ => Ok(()),
        }
    }
}

impl Event {
    #[must_use]
    pub fn new(id: EventId, details: EventDetails, now: Timestamp) -> Self {
        Self {
            id,
            name: details.name,
            ticket_quantity: details.ticket_quantity,
            price: details.price,
            sale_opens_at: details.sale_opens_at,
            sale_closes_at: details.sale_closes_at,
            created_at: now,
            updated_at: now,
            version: 0,
        }
    }

    /// The same event with other details.
    #[must_use]
    pub fn with_details(self, details: EventDetails, now: Timestamp) -> Self {
        Self {
            created_at: self.created_at,
            version: self.version,
            ..Self::new(self.id, details, now)
        }
    }

    /// The state that `domain.event` publishes.
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
            Column::VERSION,
        ],
        key: "id",
        constraints: &["CHECK (ticket_quantity >= 0)"],
        indexes: &[],
    };
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn details() -> EventDetails {
        EventDetails {
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
    fn invalid_details_are_refused_with_the_field_named() {
        let table = [
            (
                "name",
                EventDetails {
                    name: String::new(),
                    ..details()
                },
            ),
            (
                "name",
                EventDetails {
                    name: " \t ".to_owned(),
                    ..details()
                },
            ),
            (
                "name",
                EventDetails {
                    name: "é".repeat(201),
                    ..details()
                },
            ),
            (
                "name",
                EventDetails {
                    name: "a\0b".to_owned(),
                    ..details()
                },
            ),
            (
                "ticketQuantity",
                EventDetails {
                    ticket_quantity: -1,
                    ..details()
                },
            ),
            (
                "ticketQuantity",
                EventDetails {
                    ticket_quantity: 10_000_001,
                    ..details()
                },
            ),
            (
                "saleClosesAt",
                EventDetails {
                    sale_opens_at: at(5),
                    sale_closes_at: at(5),
                    ..details()
                },
            ),
            (
                "saleClosesAt",
                EventDetails {
                    sale_opens_at: at(5),
                    sale_closes_at: at(4),
                    ..details()
                },
            ),
        ];
        for (field, details) in table {
            assert_eq!(details.check_new().unwrap_err().field, field, "{details:?}");
            assert_eq!(
                details.check_change().unwrap_err().field,
                field,
                "{details:?}"
            );
        }
    }

    #[test]
    fn details_at_the_limits_are_accepted() {
        let table = [
            EventDetails {
                name: "é".repeat(200),
                ..details()
            },
            EventDetails {
                ticket_quantity: 1,
                ..details()
            },
            EventDetails {
                ticket_quantity: 10_000_000,
                ..details()
            },
            EventDetails {
                sale_opens_at: at(5),
                ..details()
            },
            EventDetails {
                sale_closes_at: at(5),
                ..details()
            },
            EventDetails {
                sale_opens_at: at(5),
                sale_closes_at: at(6),
                ..details()
            },
        ];
        for details in table {
            assert_eq!(details.check_new(), Ok(()), "{details:?}");
        }
    }

    #[test]
    fn only_a_registered_event_may_have_no_tickets() {
        let none = EventDetails {
            ticket_quantity: 0,
            ..details()
        };
        assert_eq!(none.check_new().unwrap_err().field, "ticketQuantity");
        assert_eq!(none.check_change(), Ok(()));
    }

    #[test]
    fn a_price_is_removed_only_by_an_explicit_request() {
        let (old, new) = (Money::new(50_000).ok(), Money::new(60_000).unwrap());
        for (before, given, buyer_names, after) in [
            (old, FieldChange::Keep, None, Ok(old)),
            (old, FieldChange::Keep, Some(false), Ok(old)),
            (old, FieldChange::Keep, Some(true), Ok(None)),
            (old, FieldChange::Clear, None, Err("price")),
            (old, FieldChange::Clear, Some(true), Ok(None)),
            (old, FieldChange::Set(new), None, Ok(Some(new))),
            (
                old,
                FieldChange::Set(new),
                Some(true),
                Err("buyerNamesPrice"),
            ),
            (None, FieldChange::Keep, None, Ok(None)),
            (None, FieldChange::Clear, None, Ok(None)),
            (None, FieldChange::Keep, Some(false), Err("price")),
            (None, FieldChange::Set(new), Some(false), Ok(Some(new))),
        ] {
            let priced = resolve_price(before, given, buyer_names).map_err(|invalid| invalid.field);
            assert_eq!(priced, after, "{before:?} {given:?} {buyer_names:?}");
        }
    }

    proptest! {
        #[test]
        fn a_change_keeps_the_events_identity_and_replaces_all_details(
            quantity in 0..=TICKET_QUANTITY_MAX, price in proptest::option::of(0..i64::MAX), version in 1..9_i64,
        ) {
            let (then, now) = (Timestamp::from_millis(1), Timestamp::from_millis(2));
            let before = Event { version, ..Event::new(EventId(7), details(), then) };
            let price = price.map(|price| Money::new(price).unwrap());
            let after = before.with_details(EventDetails { ticket_quantity: quantity, price, ..details() }, now);
            prop_assert_eq!((after.id, after.created_at, after.version), (EventId(7), then, version));
            prop_assert_eq!((after.ticket_quantity, after.price, after.updated_at), (quantity, price, now));
        }
    }
}

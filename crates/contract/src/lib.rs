//! What the services say to each other: every topic, payload, id and amount, defined once.
//!
//! A service may depend on this crate, and on no other service. A user or payment service of another company answers
//! the topics defined here; field names are camelCase on the wire and are never renamed. Time, saga ids, dead letters
//! and saga timeouts are `messaging`'s own and are exported here, because payloads are made of them.
//!
//! - [`id`]: the names of things, and how stable ids are derived from one another
//! - [`money`]: [`Money`] and [`Points`], whole numbers with checked arithmetic
//! - [`text`]: what may be in a text that people write
//! - [`topic`]: the list of all topics
//! - [`schema`]: every topic with the JSON schema of its payload
//! - [`ticketing`], [`user`], [`payment`], [`domain`], [`dead_letter`]: the payloads

pub mod domain;
pub mod id;
pub mod money;
pub mod payment;
pub mod schema;
pub mod text;
pub mod ticketing;
pub mod topic;
pub mod user;

/// Messages that a consumer could not handle.
pub mod dead_letter {
    pub use messaging::dead_letters::{DeadLetter, DeadLetterResolved};
}

pub use id::{EventId, PaymentId, TicketId, UserId};
pub use messaging::{DeadLetterId, Payload, SagaId, Timestamp, lenient, time};
pub use money::{Money, Points};

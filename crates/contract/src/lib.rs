//! What the services say to each other: every topic, payload, id and amount, defined once.
//!
//! A service may depend on this crate, and on no other service. Whoever runs a user or payment service of
//! their own answers the topics defined here; field names are camelCase on the wire and are never renamed.
//!
//! - [`id`]: the names of things, and how stable ids are derived from one another
//! - [`money`]: [`Money`] and [`Points`], whole numbers with checked arithmetic
//! - [`time`]: [`Timestamp`], an instant to the millisecond, RFC 3339 on the wire
//! - [`lenient`]: how what others write is read
//! - [`text`]: what may be in a text that people write
//! - [`topic`]: [`Payload`], which ties a payload to its topic and key, and the list of all topics
//! - [`schema`]: every topic with the JSON schema of its payload
//! - [`ticketing`], [`user`], [`payment`], [`domain`], [`dead_letter`]: the payloads

pub mod dead_letter;
pub mod domain;
pub mod id;
pub mod lenient;
pub mod money;
pub mod payment;
pub mod schema;
pub mod text;
pub mod ticketing;
pub mod time;
pub mod topic;
pub mod user;

pub use id::{DeadLetterId, EventId, PaymentId, SagaId, TicketId, UserId};
pub use money::{Money, Points};
pub use time::Timestamp;
pub use topic::Payload;

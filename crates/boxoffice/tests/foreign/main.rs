//! A foreign user service and a foreign payment service, each in place of Boxoffice's own, over real Kafka. They are
//! written in Python with that language's own client, from `/asyncapi.json` alone. They use the record key as a message's
//! identity, send random keys, no headers, times without a zone, and every message twice.
//!
//! - [`purchases`]: the tests; [`deployment`]: Boxoffice without one of its services, and the foreign one beside it
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod deployment;
mod purchases;

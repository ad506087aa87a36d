//! A user service and a payment service of another make, each in the place of ours, over real Kafka: written in Python with
//! that language's own client, from `/asyncapi.json` alone. They take the record key for a message's identity, send random
//! keys, no headers and times without a zone, and say everything twice.
//!
//! - [`stories`]: the tests; [`company`]: Boxoffice with one of its services left out, and theirs beside it
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod company;
#[path = "../../../messaging/tests/common/postgres.rs"]
#[expect(dead_code, reason = "the schema of a company is all that is used")]
mod postgres_place;
#[path = "../../../ticketing/tests/common/redis.rs"]
#[expect(dead_code, reason = "nothing is lost in Redis here")]
mod redis_place;
mod stories;

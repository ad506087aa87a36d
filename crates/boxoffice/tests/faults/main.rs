//! The known faults of this kind of system, each with a test that fails where the fault is made again.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

#[path = "../scenarios/desk.rs"]
#[expect(dead_code, reason = "the scenarios use the rest")]
mod desk;
#[path = "../scenarios/gateway.rs"]
#[expect(dead_code, reason = "the scenarios use the rest")]
mod gateway;
#[path = "../scenarios/house.rs"]
#[expect(dead_code, reason = "the scenarios use the rest")]
mod house;
mod messages;
#[path = "../../../ticketing/tests/common/redis.rs"]
#[expect(dead_code, reason = "no fault here is the loss of what is in Redis")]
mod redis_place;
mod refusing;
mod sale;

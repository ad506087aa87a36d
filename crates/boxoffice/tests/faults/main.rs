//! The known faults of this kind of system, each with a test that fails where the fault is made again.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

#[path = "../scenarios/deployment.rs"]
mod deployment;
#[path = "../scenarios/desk.rs"]
#[expect(dead_code, reason = "the scenarios use the rest")]
mod desk;
#[cfg(feature = "kafka")]
#[path = "../scenarios/distributed.rs"]
mod distributed;
#[path = "../scenarios/end_state.rs"]
mod end_state;
#[path = "../scenarios/gateway.rs"]
#[expect(dead_code, reason = "the scenarios use the rest")]
mod gateway;
#[path = "../scenarios/house.rs"]
#[expect(dead_code, reason = "the scenarios use the rest")]
mod house;
mod messages;
#[cfg(feature = "kafka")]
#[path = "../../../messaging/tests/common/postgres.rs"]
#[expect(dead_code, reason = "a house makes its schema itself")]
mod postgres_place;
#[path = "../../../ticketing/tests/common/redis.rs"]
#[expect(dead_code, reason = "no fault here is the loss of what is in Redis")]
mod redis_place;
mod refusing;
mod sale;

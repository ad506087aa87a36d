//! The contract of reservations on Redis, and what only that backend promises.
#![expect(clippy::unwrap_used, reason = "a failed test panics")]

mod away;
mod backend;
#[path = "../common/cuttable_schema.rs"]
mod cuttable_schema;
mod late_commits;
#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../../../messaging/tests/common/line.rs"]
mod line;
mod losses;
#[path = "../common/outage.rs"]
mod outage;
#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../../../messaging/tests/common/postgres.rs"]
mod postgres;
mod postgres_away;
mod rebuilders;
#[path = "../common/redis.rs"]
mod redis_place;
mod snapshot;
#[path = "../reservations/suite.rs"]
mod suite;
mod tls;

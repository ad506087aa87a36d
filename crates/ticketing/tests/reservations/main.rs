//! The contract of reservations on the embedded backend, and what only that backend promises.
#![expect(clippy::unwrap_used, reason = "a failed test panics")]

mod backend;
#[path = "../common/cuttable_schema.rs"]
mod cuttable_schema;
#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../../../messaging/tests/common/line.rs"]
mod line;
mod memory;
#[path = "../common/outage.rs"]
mod outage;
#[expect(dead_code, reason = "other suites use the rest")]
#[path = "../../../messaging/tests/common/postgres.rs"]
mod postgres;
mod postgres_away;
mod suite;

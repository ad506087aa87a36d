//! The whole topology, as a company runs it: PostgreSQL, Redis and Kafka, two processes of each service, a schema for
//! each service, and a payment gateway that is somebody else's. Processes and engines go away while a crowd buys; when
//! they are back, everything ends by itself, and the books of all services, of the gateway and of the buyers agree.
//!
//! Every three rounds have each kind of fault: a kill, a death between two effects, a stop past every lease, each engine
//! away, connections cut, silent and slow. Whom it strikes, and when, is drawn from a seed, which is printed:
//! `TOPOLOGY_SEED=<it>` draws it again. `TOPOLOGY_ROUNDS=<n>` plays more rounds.
//!
//! - [`stories`]: the tests; [`operators`]: those of the command line
//! - [`engines`]: the servers; [`deployment`]: the processes over them, [`process`] each of them; [`gateway`]: who takes the money
//! - [`proxy`]: the roads between them
//! - [`buyer`]: what a buyer does, and comes to, [`asking`] how; [`chaos`]: what goes away
//! - [`rest`]: everything at rest, and what must hold then
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod asking;
mod buyer;
mod chaos;
mod deployment;
mod engines;
mod gateway;
mod operators;
mod process;
mod proxy;
mod rest;
mod stories;

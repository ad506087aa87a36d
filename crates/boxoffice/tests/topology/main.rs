//! The distributed deployment: PostgreSQL, Redis and Kafka, two processes of each service, a schema for each service, and
//! an external payment gateway. Processes, engines and connections fail while buyers act; afterwards every purchase
//! completes by itself, and the books of all services, of the gateway and of the buyers agree.
//!
//! Three rounds contain each kind of fault: a kill, a crash between two effects, a pause longer than every lease, each
//! engine down, connections cut, silent and slow. Targets and moments are drawn from a seed, which is printed:
//! `TOPOLOGY_SEED=<seed>` draws them again. `TOPOLOGY_ROUNDS=<n>` sets the number of rounds.
//!
//! - [`sales`]: the tests; [`operators`]: the tests of the command line
//! - [`engines`]: the servers; [`deployment`]: the processes over them, [`process`]: one of them; [`gateway`]: the sandbox
//! - [`proxy`]: the connections between them
//! - [`buyer`]: what a buyer does and its outcome, [`requests`]: how it sends requests; [`chaos`]: the faults
//! - [`idle`]: the end of a round, and the invariants
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod buyer;
mod chaos;
mod deployment;
mod engines;
mod gateway;
mod idle;
mod operators;
mod process;
mod proxy;
mod requests;
mod sales;

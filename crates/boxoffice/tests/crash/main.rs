//! The real program is killed at every failpoint between two effects and at random moments under load, and is stopped
//! under load. Every answer holds afterwards, and everything that was begun completes by itself.
//!
//! Each test draws its buyers and moments from a seed, which it prints. `CRASH_SEED=<seed> cargo test --test crash <test>`
//! draws the same ones again.
//!
//! - [`failpoints`], [`kills`], [`stops`], [`outages`]: the tests
//! - [`harness`]: one data folder and the servers on it, round after round
//! - [`buyers`]: the buyers; [`server`]: the program
//! - [`promises`]: the invariants that are checked
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod buyers;
mod failpoints;
mod harness;
mod kills;
mod outages;
mod promises;
mod server;
mod stops;

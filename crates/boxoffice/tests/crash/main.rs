//! The real program, killed: at every named place where a crash can fall between two effects, at random moments
//! under load, and told to stop in the middle of it. Whatever was answered holds afterwards, and whatever was begun
//! goes on by itself to its end.
//!
//! What happens is drawn from a seed, which every test prints. `CRASH_SEED=<it> cargo test --test crash <test>` draws
//! the same buyers and the same moments again.
//!
//! - [`failpoints`], [`kills`], [`stops`], [`outages`]: the tests
//! - [`theatre`]: one data folder, and round after round of a server that ends on it
//! - [`crowd`]: the buyers; [`ledger`]: what they were told; [`server`]: the program
//! - [`promises`]: what must hold
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod crowd;
mod failpoints;
mod kills;
mod ledger;
mod outages;
mod promises;
mod server;
mod stops;
mod theatre;

//! Money is never lost: thousands of purchases at a gateway with every kind of fault that a real one has, while the
//! service is killed again and again. At the end the books of service and gateway are equal, to the won.
//!
//! Each test draws its scenario from a seed, which it prints: the buyers with their behaviour and payment keys, the
//! faults of each payment attempt, and the number of answers before each kill.
//! `MONEY_SEED=<seed> cargo test --test money <test>` runs the same scenario again; `MONEY_ACTS=<n>` sets its phases.
//!
//! - [`scenario`]: the whole scenario, drawn before the run; [`fault_profile`]: the gateway's faults
//! - [`run`]: runs the phases and checks the end; [`operator`]: what a person does at the end
//! - [`buyer`], [`virtual_account`]: buyers, and those who pay by virtual account
//! - [`service`]: the service over its restarts; [`gateway`]: the sandbox
//! - [`idle`], [`promises`]: the end of a run, and the invariants
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

mod buyer;
mod fault_profile;
mod gateway;
mod idle;
mod operator;
mod promises;
mod run;
mod scenario;
mod service;
mod virtual_account;

use messaging::Random;

/// Minimal number of purchases per phase; eight phases make two thousand.
const PURCHASES_MIN: usize = 250;

/// A new seed, or the one that `MONEY_SEED` gives.
fn seed(name: &str) -> u64 {
    let seed = match std::env::var("MONEY_SEED") {
        Ok(text) => text.parse().expect("MONEY_SEED is a whole number"),
        Err(_) => Random::System.below(u64::MAX),
    };
    eprintln!("{name}: MONEY_SEED={seed}");
    seed
}

#[test]
fn the_same_seed_draws_the_same_scenario_and_another_seed_another_one() {
    assert!(scenario::Scenario::draw(7) == scenario::Scenario::draw(7));
    assert!(scenario::Scenario::draw(7) != scenario::Scenario::draw(8));
}

async fn money_is_never_lost(name: &str) {
    let scenario = scenario::Scenario::draw(seed(name));
    let purchases = run::run_scenario(name, &scenario).await;
    let wanted = PURCHASES_MIN * scenario.phases.len();
    assert!(purchases >= wanted, "only {purchases} purchases");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_is_never_lost_in_a_first_scenario() {
    money_is_never_lost("first").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_is_never_lost_in_a_second_scenario() {
    money_is_never_lost("second").await;
}

//! Money is never lost: thousands of purchases at a gateway that misbehaves in every way that a real one does, while
//! the service is killed again and again. At the end the books are equal, to the won.
//!
//! What happens is drawn from a seed, which every test prints: who buys what, how and with which payment keys, which
//! faults strike which payment at which try, after how many answers the service is killed.
//! `MONEY_SEED=<it> cargo test --test money <test>` tells the same story again; `MONEY_ACTS=<n>` tells a longer one.
//!
//! - [`plan`]: the whole story, drawn before it begins; [`weather`]: what the gateway does wrong in it
//! - [`story`]: the acts, and the end; [`operator`]: what a person does then
//! - [`buyer`], [`account`]: the buyers, those who pay by virtual account, and their bank
//! - [`house`]: the service, as long as it lives; [`server`]: the program; [`gateway`]: the sandbox
//! - [`ledger`]: what was asked and told; [`rest`], [`promises`]: what is waited for, and what must hold
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod account;
mod buyer;
mod gateway;
mod house;
mod ledger;
mod operator;
mod plan;
mod promises;
mod rest;
mod server;
mod story;
mod weather;

use messaging::Random;

/// Purchases that each act must come to; eight acts make two thousand.
const PURCHASES_MIN: usize = 250;

/// The seed of a test: a new one, or the one that is to be told again.
fn seed(name: &str) -> u64 {
    let seed = match std::env::var("MONEY_SEED") {
        Ok(text) => text.parse().expect("MONEY_SEED is a whole number"),
        Err(_) => Random::System.below(u64::MAX),
    };
    eprintln!("{name}: MONEY_SEED={seed}");
    seed
}

#[test]
fn the_same_seed_tells_the_same_story_and_another_one_another() {
    assert!(plan::Plan::draw(7) == plan::Plan::draw(7));
    assert!(plan::Plan::draw(7) != plan::Plan::draw(8));
}

async fn money_is_never_lost(name: &str) {
    let plan = plan::Plan::draw(seed(name));
    let purchases = story::tell(name, &plan).await;
    let wanted = PURCHASES_MIN * plan.acts.len();
    assert!(purchases >= wanted, "only {purchases} purchases");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_is_never_lost_in_a_first_story() {
    money_is_never_lost("first").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_is_never_lost_in_a_second_story() {
    money_is_never_lost("second").await;
}

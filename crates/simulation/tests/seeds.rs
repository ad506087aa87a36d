//! Fixed seeds, and some that nobody has run before. Each run is a process of its own, as a seed determines only the first
//! run of a process.
//!
//! - `SEED=<n> [STEPS=<n>] cargo test -p simulation --test seeds` repeats one run.
//! - `SEEDS=<n> cargo test -p simulation --test seeds` runs so many new ones.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::process::{Command, Output};

use messaging::Random;

/// The first seeds, which every change is held to.
const FIXED_SEEDS: u64 = 30;
const NEW_SEEDS: u64 = 30;
/// Runs at once.
const JOBS: usize = 2;

fn simulate(arguments: &[String]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simulation"));
    command.args(arguments).output().unwrap()
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .expect("SEED, SEEDS and STEPS are whole numbers"),
    )
}

fn hold(arguments: &[String]) {
    let output = simulate(arguments);
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    println!("{text}");
}

fn seeds(first: u64, count: u64) -> Vec<String> {
    [
        format!("--seed={first}"),
        format!("--seeds={count}"),
        format!("--jobs={JOBS}"),
    ]
    .into()
}

#[test]
fn the_invariants_hold_in_fixed_seeds_and_in_new_ones() {
    if let Some(seed) = variable("SEED") {
        let steps = variable("STEPS").map(|steps| format!("--steps={steps}"));
        let arguments = [format!("--seed={seed}")].into_iter().chain(steps);
        return hold(&arguments.collect::<Vec<_>>());
    }
    hold(&seeds(1, FIXED_SEEDS));
    let first = Random::System.below(1 << 40);
    hold(&seeds(first, variable("SEEDS").unwrap_or(NEW_SEEDS)));
}

#[test]
fn a_seed_gives_the_same_run_to_the_last_step_and_another_seed_another_run() {
    let run = |seed: u64| simulate(&[format!("--seed={seed}"), "--trace".to_owned()]).stdout;
    let first = run(7);
    assert!(!first.is_empty() && first == run(7));
    assert!(first != run(8));
}

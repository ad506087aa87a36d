//! Runs seeds. See docs/simulation.md.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the run")]

use std::{
    collections::BTreeMap,
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
    time::Instant,
};

use clap::Parser;
use simulation::{
    entropy,
    faults::FAULTS,
    run::{Outcome, Plan, run},
    shrink::{arguments, run_apart, shrink},
};

/// What a line about the coverage begins with.
const STRUCK: &str = "struck\t";
/// A place where a fault could have struck so often, and never did, is reported.
const UNSTRUCK_VISITS: u64 = 10_000;

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    plan: Plan,
    /// How many seeds to run from this one, each in a process of its own.
    #[arg(long)]
    seeds: Option<u64>,
    /// Processes at once, for several seeds.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    /// Prints the logs of the program.
    #[arg(long)]
    log: bool,
    /// Prints how often each kind of fault struck each place.
    #[arg(long)]
    coverage: bool,
    /// Makes a failing run smaller.
    #[arg(long)]
    shrink: bool,
}

fn main() -> ExitCode {
    assert!(entropy::is_seeded());
    let arguments = Arguments::parse();
    if arguments.log {
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .without_time()
            .init();
    }
    if let Some(count) = arguments.seeds {
        return run_many(&arguments.plan, count, arguments.jobs, arguments.coverage);
    }
    let plan = arguments.plan;
    let outcome = run(&plan);
    report(&plan, &outcome, arguments.coverage);
    if outcome.failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    if arguments.shrink {
        println!("smaller: {}", self::arguments(&shrink(plan)).join(" "));
    }
    ExitCode::FAILURE
}

fn report(plan: &Plan, outcome: &Outcome, coverage: bool) {
    println!(
        "seed {}: {} steps, {} s of simulated time, {} tickets, hash {:016x}",
        plan.seed,
        outcome.steps,
        outcome.millis / 1_000,
        outcome.tickets,
        outcome.hash
    );
    for line in outcome.coverage.lines().iter().filter(|_| coverage) {
        println!("{STRUCK}{line}");
    }
    if outcome.failures.is_empty() {
        return;
    }
    for step in &outcome.last_steps {
        println!("  {step}");
    }
    for failure in &outcome.failures {
        println!("FAILED: {failure}");
    }
    println!("repeat with: {}", arguments(plan).join(" "));
}

/// Runs seeds in processes of their own, a few at once; prints those that fail, and at the end the coverage.
fn run_many(plan: &Plan, count: u64, jobs: usize, coverage: bool) -> ExitCode {
    let (began, next) = (Instant::now(), AtomicU64::new(0));
    let run_some = || {
        let mut all = Vec::new();
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= count {
                return all;
            }
            let seed = plan.seed + number;
            let (is_good, text) = run_apart(&Plan {
                seed,
                ..plan.clone()
            });
            for line in text
                .lines()
                .filter(|it| !is_good && !it.starts_with(STRUCK))
            {
                println!("{line}");
            }
            all.push((is_good, text));
        }
    };
    let runs: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(run_some)).collect();
        let runs = threads.into_iter().flat_map(|it| it.join().unwrap());
        runs.collect()
    });
    let mut struck: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (place, visits, strikes) in runs.iter().flat_map(|(_, text)| struck_in(text)) {
        let counts = struck.entry(place).or_default();
        *counts = (counts.0 + visits, counts.1 + strikes);
    }
    for (place, (visits, strikes)) in &struck {
        if coverage {
            println!("{STRUCK}{place}\t{visits}\t{strikes}");
        }
        // By chance a kind misses a place that was there a few times.
        if *strikes == 0 && *visits >= UNSTRUCK_VISITS {
            println!("never struck: {place}, {visits} times");
        }
    }
    for name in FAULTS.iter().map(|(fault, _)| format!("{fault:?}\t")) {
        let mut places = struck.iter().filter(|(it, _)| it.starts_with(&name));
        if !places.any(|(_, counts)| counts.1 > 0) {
            println!("never struck: {name}");
        }
    }
    let failed = runs.iter().filter(|(is_good, _)| !is_good).count();
    let steps: u64 = runs.iter().filter_map(|(_, text)| steps_in(text)).sum();
    let secs = began.elapsed().as_secs_f64();
    let speed = steps as f64 / secs;
    println!(
        "{count} seeds, {failed} failed, {steps} steps in {secs:.0} s: {speed:.0} steps a second"
    );
    ExitCode::from(u8::from(failed > 0))
}

fn steps_in(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("seed "))?;
    line.split(' ').nth(1)?.parse().ok()
}

/// Fault and place, how often it could strike there, and how often it did.
fn struck_in(text: &str) -> impl Iterator<Item = (&str, u64, u64)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix(STRUCK));
    lines.filter_map(|line| {
        let (line, strikes) = line.rsplit_once('\t')?;
        let (place, visits) = line.rsplit_once('\t')?;
        Some((place, visits.parse().ok()?, strikes.parse().ok()?))
    })
}

//! Runs seeds. See docs/simulation.md.

use std::{
    collections::BTreeMap,
    process::{Command, ExitCode},
};

use clap::Parser;
use simulation::{
    entropy,
    faults::FAULTS,
    run::{Outcome, Plan, run},
    shrink::{arguments, shrink},
};

/// A place where a fault could have struck so often, and never did, is reported.
const UNSTRUCK_VISITS: u64 = 10_000;

#[derive(Parser)]
struct Arguments {
    /// The seed of the run, or of the first.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds to run, each in a process of its own.
    #[arg(long)]
    seeds: Option<u64>,
    /// Processes at once, for several seeds.
    #[arg(long, default_value_t = 1)]
    jobs: usize,
    #[arg(long)]
    steps: Option<u64>,
    #[arg(long)]
    buyers: Option<u64>,
    #[arg(long)]
    processes: Option<usize>,
    /// Kinds of faults that do not strike.
    #[arg(long)]
    without: Vec<String>,
    /// Prints each step.
    #[arg(long)]
    trace: bool,
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

impl Arguments {
    fn plan(&self, seed: u64) -> Plan {
        let plan = Plan::of(seed);
        let without = FAULTS.iter().map(|(fault, _)| *fault);
        let without = without.filter(|fault| self.without.contains(&format!("{fault:?}")));
        Plan {
            steps: self.steps.unwrap_or(plan.steps),
            buyers: self.buyers.unwrap_or(plan.buyers),
            processes: self.processes.unwrap_or(plan.processes),
            without: without.collect(),
            prints: self.trace,
            ..plan
        }
    }
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
        return run_many(&arguments, count);
    }
    let plan = arguments.plan(arguments.seed);
    let outcome = run(&plan);
    report(&plan, &outcome, &arguments);
    if outcome.failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    if arguments.shrink {
        println!("smaller: {}", self::arguments(&shrink(plan)).join(" "));
    }
    ExitCode::FAILURE
}

fn report(plan: &Plan, outcome: &Outcome, arguments: &Arguments) {
    println!(
        "seed {}: {} steps, {} s of simulated time, {} tickets, hash {:016x}",
        plan.seed,
        outcome.steps,
        outcome.millis / 1_000,
        outcome.tickets,
        outcome.hash
    );
    if arguments.coverage {
        outcome
            .coverage
            .lines()
            .iter()
            .for_each(|line| println!("struck\t{line}"));
    }
    if !outcome.failures.is_empty() {
        outcome
            .last_steps
            .iter()
            .for_each(|step| println!("  {step}"));
        outcome
            .failures
            .iter()
            .for_each(|failure| println!("FAILED: {failure}"));
        println!("repeat with: {}", self::arguments(plan).join(" "));
    }
}

/// Runs seeds in processes of their own, a few at once; prints those that fail, and at the end the coverage.
fn run_many(arguments: &Arguments, count: u64) -> ExitCode {
    let next = std::sync::Mutex::new(arguments.seed..arguments.seed + count);
    let totals = std::sync::Mutex::new((0_u64, 0_u64, BTreeMap::<String, (u64, u64)>::new()));
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..arguments.jobs {
            scope.spawn(|| {
                while let Some(seed) = { next.lock().ok().and_then(|mut seeds| seeds.next()) } {
                    let (is_good, text) = run_apart(&arguments.plan(seed));
                    let mut totals = totals.lock().expect("no holder panics");
                    totals.0 += steps_in(&text);
                    totals.1 += u64::from(!is_good);
                    for (place, visits, strikes) in struck_in(&text) {
                        let counts = totals.2.entry(place).or_default();
                        *counts = (counts.0 + visits, counts.1 + strikes);
                    }
                    if !is_good {
                        println!(
                            "{}",
                            text.lines()
                                .filter(|it| !it.starts_with("struck"))
                                .collect::<Vec<_>>()
                                .join("\n")
                        );
                    }
                }
            });
        }
    });
    let (steps, failed, struck) = totals.into_inner().expect("no holder panics");
    let secs = began.elapsed().as_secs_f64();
    for (place, (visits, strikes)) in &struck {
        if arguments.coverage {
            println!("struck\t{place}\t{visits}\t{strikes}");
        }
        // By chance a kind misses a place that was there a few times.
        if *strikes == 0 && *visits >= UNSTRUCK_VISITS {
            println!("never struck: {place}, {visits} times");
        }
    }
    for (fault, _) in FAULTS {
        let name = format!("{fault:?}\t");
        if !struck
            .iter()
            .any(|(it, counts)| it.starts_with(&name) && counts.1 > 0)
        {
            println!("never struck: {fault:?}");
        }
    }
    println!(
        "{count} seeds, {failed} failed, {steps} steps in {secs:.0} s: {:.0} steps a second",
        steps as f64 / secs
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run_apart(plan: &Plan) -> (bool, String) {
    let program = std::env::current_exe().expect("the program has a path");
    let output = Command::new(program)
        .args(self::arguments(plan))
        .arg("--coverage")
        .output();
    let output = output.expect("the program can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

fn steps_in(text: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix("seed "));
    let number = line.and_then(|line| line.split(' ').nth(1));
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Fault and place, how often it could strike there, and how often it did.
fn struck_in(text: &str) -> impl Iterator<Item = (String, u64, u64)> {
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix("struck\t"));
    lines.filter_map(|line| {
        let (line, strikes) = line.rsplit_once('\t')?;
        let (place, visits) = line.rsplit_once('\t')?;
        Some((
            place.to_owned(),
            visits.parse().ok()?,
            strikes.parse().ok()?,
        ))
    })
}

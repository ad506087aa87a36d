//! Makes a failing run smaller: fewer buyers, processes, steps, kinds of faults, as long as it still fails. Each try is a
//! process of its own.

use std::process::Command;

use crate::{faults::FAULTS, run::Plan};

/// The arguments that repeat a plan.
#[must_use]
pub fn arguments(plan: &Plan) -> Vec<String> {
    let mut all = vec![
        format!("--seed={}", plan.seed),
        format!("--steps={}", plan.steps),
        format!("--buyers={}", plan.buyers),
        format!("--processes={}", plan.processes),
    ];
    all.extend(
        plan.without
            .iter()
            .map(|fault| format!("--without={fault:?}")),
    );
    all
}

/// Runs a plan in a process of its own; returns whether everything held, and what it printed.
#[must_use]
pub fn run_apart(plan: &Plan) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args(arguments(plan)).arg("--coverage").output();
    let output = output.unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.success(), text)
}

/// The smallest plan found that still fails; the first is known to.
#[must_use]
pub fn shrink(mut plan: Plan) -> Plan {
    for (fault, _) in FAULTS {
        try_smaller(&mut plan, |it| it.without.push(*fault));
    }
    try_smaller(&mut plan, |it| it.processes = 1);
    while plan.buyers > 1 && try_smaller(&mut plan, |it| it.buyers /= 2) {}
    while plan.steps > 50 && try_smaller(&mut plan, |it| it.steps /= 2) {}
    plan
}

/// Keeps a change if the plan still fails with it.
fn try_smaller(plan: &mut Plan, change: impl FnOnce(&mut Plan)) -> bool {
    let mut smaller = plan.clone();
    change(&mut smaller);
    let is_smaller = !run_apart(&smaller).0;
    if is_smaller {
        *plan = smaller;
    }
    is_smaller
}

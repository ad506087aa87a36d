//! Faults during a round and their end. Each set of rounds has every kind of fault once, so that every run has all of
//! them. A seed decides order, moments and targets.

use std::{sync::Arc, time::Duration};

use futures::future;
use messaging::Random;
use tokio::time::Instant;

use crate::{
    deployment::{Deployment, Target},
    process::Process,
    proxy::{NetworkCondition, Proxy},
};

/// Rounds over which all kinds of faults are distributed.
pub const ROUNDS_PER_SET: usize = 3;
/// Maximal time between the start of a round and a fault.
const BEGIN_MILLIS_MAX: u64 = 4_000;
/// Longer than every lease and session: the relay's lease is 5 seconds, a consumer's session 6.
const PAUSE_MILLIS: (u64, u64) = (7_000, 10_000);
/// Downtime of an engine, in addition to its start-up time.
const AWAY_MILLIS: (u64, u64) = (0, 3_000);
const CUT_MILLIS: (u64, u64) = (200, 4_000);
const SLOW_MILLIS: (u64, u64) = (5_000, 10_000);
const DELAY_MILLIS: (u64, u64) = (20, 150);

/// Before a commit only Redis knows of a grant; after it, the commit is neither published, nor acknowledged to the
/// brokers, nor answered.
const CRASH_POINTS: [&str; 2] = ["store.before_commit", "store.after_commit"];
const COMMITS_MAX: u64 = 40;

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FaultKind {
    KillWorker,
    KillAny,
    Die,
    Stop,
    Postgres,
    Redis,
    Kafka,
    Cut,
    BlackHole,
    Slow,
}

const FAULT_KINDS: [FaultKind; 10] = [
    FaultKind::KillWorker,
    FaultKind::KillAny,
    FaultKind::Die,
    FaultKind::Stop,
    FaultKind::Postgres,
    FaultKind::Redis,
    FaultKind::Kafka,
    FaultKind::Cut,
    FaultKind::BlackHole,
    FaultKind::Slow,
];

#[derive(Clone)]
enum FaultAction {
    /// `kill -9` of a process.
    Kill(Arc<Process>),
    /// A process crashes at a failpoint, after this number of commits.
    Die(Arc<Process>, &'static str, u64),
    /// SIGSTOP of a process, and SIGCONT after this time.
    Stop(Arc<Process>, Duration),
    /// An engine crashes and restarts after this time. Redis restarts empty.
    Away(Target, Duration),
    /// The network between a process and an engine has this condition for this time.
    NetworkCondition(Arc<Process>, Target, Arc<Proxy>, NetworkCondition, Duration),
}

/// A fault and its moment.
#[derive(Clone)]
pub struct Fault {
    at: Duration,
    action: FaultAction,
}

/// Draws the faults of each round.
pub fn draw_rounds(random: &Random, deployment: &Deployment, rounds: usize) -> Vec<Vec<Fault>> {
    let mut rounds_of_faults = Vec::new();
    while rounds_of_faults.len() < rounds {
        let mut kinds = FAULT_KINDS;
        for number in (1..kinds.len()).rev() {
            let other = random.below(number as u64 + 1);
            kinds.swap(number, usize::try_from(other).unwrap());
        }
        for kinds_of_round in kinds.chunks(kinds.len().div_ceil(ROUNDS_PER_SET)) {
            let draw = |kind: &FaultKind| Fault {
                at: millis(random, (0, BEGIN_MILLIS_MAX)),
                action: kind.draw(random, deployment),
            };
            rounds_of_faults.push(kinds_of_round.iter().map(draw).collect());
        }
    }
    rounds_of_faults.truncate(rounds);
    rounds_of_faults
}

fn millis(random: &Random, (from, to): (u64, u64)) -> Duration {
    Duration::from_millis(from + random.below(to - from))
}

fn choose<T: Clone>(random: &Random, those: &[T]) -> T {
    let number = random.below(those.len() as u64);
    those[usize::try_from(number).unwrap()].clone()
}

impl FaultKind {
    fn draw(self, random: &Random, deployment: &Deployment) -> FaultAction {
        let all = &deployment.processes;
        let workers: Vec<_> = all.iter().filter(|it| it.is_worker()).cloned().collect();
        match self {
            Self::KillWorker => FaultAction::Kill(choose(random, &workers)),
            Self::KillAny => FaultAction::Kill(choose(random, all)),
            Self::Die => FaultAction::Die(
                choose(random, all),
                choose(random, &CRASH_POINTS),
                random.below(COMMITS_MAX),
            ),
            Self::Stop => FaultAction::Stop(choose(random, &workers), millis(random, PAUSE_MILLIS)),
            Self::Postgres => FaultAction::Away(Target::Postgres, millis(random, AWAY_MILLIS)),
            Self::Redis => FaultAction::Away(Target::Redis, millis(random, AWAY_MILLIS)),
            Self::Kafka => FaultAction::Away(Target::Kafka, millis(random, AWAY_MILLIS)),
            Self::Cut | Self::BlackHole | Self::Slow => self.draw_network_fault(random, all),
        }
    }

    fn draw_network_fault(self, random: &Random, all: &[Arc<Process>]) -> FaultAction {
        let process = choose(random, all);
        let (target, route) = choose(random, &process.routes);
        let (condition, lasting) = match self {
            Self::Cut => (NetworkCondition::Cut, CUT_MILLIS),
            Self::Slow => (
                NetworkCondition::Slow(millis(random, DELAY_MILLIS)),
                SLOW_MILLIS,
            ),
            _ => (
                NetworkCondition::BlackHole,
                longer_than_the_timeouts(target),
            ),
        };
        FaultAction::NetworkCondition(process, target, route, condition, millis(random, lasting))
    }
}

fn longer_than_the_timeouts(target: Target) -> (u64, u64) {
    match target {
        // The answer timeout is 20 seconds.
        Target::Postgres => (4_000, 23_000),
        // The call timeout is 2 seconds.
        Target::Redis => (3_000, 8_000),
        // The session timeout is 6 seconds.
        Target::Kafka => (7_000, 14_000),
        // The request timeout is 3 seconds.
        Target::Gateway => (4_000, 9_000),
    }
}

impl Fault {
    /// Description for the log.
    pub fn describe(&self) -> String {
        let at = self.at.as_millis();
        match &self.action {
            FaultAction::Kill(process) => format!("at {at} ms kill {}", process.name),
            FaultAction::Die(process, number, commits) => {
                format!("{} dies at {number} after {commits} of them", process.name)
            }
            FaultAction::Stop(process, pause) => {
                format!("at {at} ms stop {} for {pause:?}", process.name)
            }
            FaultAction::Away(engine, away) => format!("at {at} ms crash {engine:?} for {away:?}"),
            FaultAction::NetworkCondition(process, target, _, condition, lasting) => format!(
                "at {at} ms {condition:?} between {} and {target:?} for {lasting:?}",
                process.name
            ),
        }
    }

    /// Applies the fault at its moment and returns when it has ended.
    async fn apply(&self, deployment: &Deployment) {
        // This sleep is the random moment; it waits for no condition.
        tokio::time::sleep(self.at).await;
        deployment.faults_changed(true);
        self.act(deployment).await;
        deployment.faults_changed(false);
    }

    async fn act(&self, deployment: &Deployment) {
        match &self.action {
            // `arm_failpoints` has restarted the process with the failpoint.
            FaultAction::Die(..) => {}
            FaultAction::Kill(process) => process.kill(),
            FaultAction::Stop(process, pause) => {
                process.signal("-STOP");
                tokio::time::sleep(*pause).await;
                process.signal("-CONT");
            }
            FaultAction::Away(engine, away) => crash_and_restart(deployment, *engine, *away).await,
            FaultAction::NetworkCondition(_, _, route, condition, lasting) => {
                route.set_condition(*condition);
                tokio::time::sleep(*lasting).await;
                route.set_condition(NetworkCondition::Normal);
            }
        }
    }
}

async fn crash_and_restart(deployment: &Deployment, engine: Target, away: Duration) {
    let engines = deployment.engines;
    let engine = match engine {
        Target::Postgres => &engines.postgres,
        Target::Redis => &engines.redis,
        Target::Kafka => &engines.kafka,
        Target::Gateway => return,
    };
    let begun = Instant::now();
    engine.crash().await;
    if engine.name == engines.redis.name {
        deployment.redis_is_lost();
    }
    tokio::time::sleep(away).await;
    engine.restart().await;
    eprintln!("{} was down for {:?}", engine.name, begun.elapsed());
}

/// Restarts the processes that will crash at a failpoint, before the buyers act.
pub async fn arm_failpoints(deployment: &Deployment, faults: &[Fault]) {
    for Fault { action, .. } in faults {
        if let FaultAction::Die(process, point, commits) = action {
            process.restart_with_failpoints(&format!("{point}={commits}*off->return"));
        }
    }
    deployment.all_listen().await;
}

/// Applies all faults, each at its moment; returns when every process listens again.
pub async fn apply_all(deployment: &Deployment, faults: &[Fault]) {
    let applying = faults.iter().map(|fault| fault.apply(deployment));
    future::join_all(applying).await;
    deployment.all_listen().await;
}

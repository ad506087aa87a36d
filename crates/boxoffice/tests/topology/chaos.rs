//! What goes away while a crowd buys, drawn from a seed, and how it comes back.

use std::time::Duration;

use futures::future;
use messaging::Random;
use tokio::time::Instant;

use crate::deployment::Deployment;

/// How soon after the crowd has begun something goes away.
const BEGIN_MILLIS_MAX: u64 = 1_500;
const PAUSE_MILLIS_MIN: u64 = 3_000;
const PAUSE_MILLIS_MAX: u64 = 8_000;
/// How long an engine is away at the longest, beside the time it takes to start.
const AWAY_MILLIS_MAX: u64 = 3_000;

#[derive(Debug, Clone, Copy)]
enum What {
    /// `kill -9` of a process.
    Kill(usize),
    /// SIGSTOP of a process, and SIGCONT so much later.
    Pause(usize, Duration),
    /// These are stopped as a power cut stops them.
    Postgres(Duration),
    /// It comes back empty.
    Redis(Duration),
    Kafka(Duration),
}

/// Something that goes away at a moment.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    at: Duration,
    what: What,
}

impl Fault {
    /// One or two faults.
    pub fn draw(random: &Random, deployment: &Deployment) -> Vec<Self> {
        let processes = deployment.processes.len();
        let draw = |_| Self {
            at: Duration::from_millis(random.below(BEGIN_MILLIS_MAX)),
            what: What::draw(random, processes),
        };
        (0..=random.below(2)).map(draw).collect()
    }

    /// What it is, for people.
    pub fn describe(&self, deployment: &Deployment) -> String {
        let at = self.at.as_millis();
        let name = |place: usize| &deployment.processes[place].name;
        match self.what {
            What::Kill(place) => format!("at {at} ms kill {}", name(place)),
            What::Pause(place, pause) => format!("at {at} ms stop {} for {pause:?}", name(place)),
            What::Postgres(_) | What::Redis(_) | What::Kafka(_) => {
                format!("at {at} ms {:?}", self.what)
            }
        }
    }

    async fn strike(self, deployment: &Deployment) {
        // These are the random moments themselves: nothing is waited for.
        tokio::time::sleep(self.at).await;
        let engines = deployment.engines;
        let (engine, away) = match self.what {
            What::Kill(place) => return deployment.processes[place].kill(),
            What::Pause(place, pause) => {
                let process = &deployment.processes[place];
                process.signal("-STOP");
                tokio::time::sleep(pause).await;
                process.signal("-CONT");
                return;
            }
            What::Postgres(away) => (&engines.postgres, away),
            What::Redis(away) => (&engines.redis, away),
            What::Kafka(away) => (&engines.kafka, away),
        };
        let begun = Instant::now();
        engine.crash().await;
        tokio::time::sleep(away).await;
        engine.restart().await;
        eprintln!("{} was away for {:?}", engine.name, begun.elapsed());
    }
}

impl What {
    fn draw(random: &Random, processes: usize) -> Self {
        let place = usize::try_from(random.below(processes as u64)).unwrap();
        let away = Duration::from_millis(random.below(AWAY_MILLIS_MAX));
        match random.below(7) {
            0 | 1 => Self::Kill(place),
            2 | 3 => {
                let more = random.below(PAUSE_MILLIS_MAX - PAUSE_MILLIS_MIN);
                Self::Pause(place, Duration::from_millis(PAUSE_MILLIS_MIN + more))
            }
            4 => Self::Postgres(away),
            5 => Self::Redis(away),
            _ => Self::Kafka(away),
        }
    }
}

/// All of them, each at its moment; returns when everything is back.
pub async fn strike(deployment: &Deployment, faults: &[Fault]) {
    // Two faults of one engine take turns: its script starts it once.
    let engine = |fault: &Fault| std::mem::discriminant(&fault.what);
    let mut kinds: Vec<_> = faults.iter().map(engine).collect();
    kinds.dedup();
    let striking = kinds.into_iter().map(|kind| async move {
        for fault in faults.iter().filter(|fault| engine(fault) == kind) {
            fault.strike(deployment).await;
        }
    });
    future::join_all(striking).await;
    deployment.all_listen().await;
}

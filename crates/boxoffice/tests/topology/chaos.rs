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

/// Before a commit nothing of it is known but what Redis granted; after it, it is neither published, nor told to the
/// brokers, nor answered.
const PLACES: [&str; 2] = ["store.before_commit", "store.after_commit"];
const COMMITS_MAX: u64 = 40;

#[derive(Debug, Clone, Copy)]
enum What {
    /// `kill -9` of a process.
    Kill(usize),
    /// A process dies at a place where a crash falls between two effects, at its so many-th commit.
    Die(usize, &'static str, u64),
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
            What::Die(place, at, commits) => {
                format!("{} dies at {at} after {commits} of them", name(place))
            }
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
            // It was armed before.
            What::Die(..) => return,
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
        match random.below(9) {
            7 | 8 => {
                let point = PLACES[usize::try_from(random.below(2)).unwrap()];
                Self::Die(place, point, random.below(COMMITS_MAX))
            }
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

/// Puts those in their places that are to die; before the crowd comes.
pub async fn arm(deployment: &Deployment, faults: &[Fault]) {
    for Fault { what, .. } in faults {
        if let What::Die(place, point, commits) = what {
            let failpoints = format!("{point}={commits}*off->return");
            deployment.processes[*place].doom(&failpoints);
        }
    }
    deployment.all_listen().await;
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

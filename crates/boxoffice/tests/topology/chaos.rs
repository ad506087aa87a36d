//! What goes away while a crowd buys, and how it comes back. A deck has each kind of fault; it is dealt over some rounds,
//! so that every run has all of them. A seed decides the order, the moments and whom it strikes.

use std::{sync::Arc, time::Duration};

use futures::future;
use messaging::Random;
use tokio::time::Instant;

use crate::{
    deployment::{Deployment, Goal},
    process::Process,
    proxy::{Proxy, Weather},
};

/// Rounds over which one deck is dealt.
pub const ROUNDS_OF_DECK: usize = 3;
/// How soon after the crowd has begun something goes away.
const BEGIN_MILLIS_MAX: u64 = 4_000;
/// A stop past every lease and session: the relay's is 5 seconds, a consumer's 6.
const PAUSE_MILLIS: (u64, u64) = (7_000, 10_000);
/// How long an engine is away, beside the time it takes to start.
const AWAY_MILLIS: (u64, u64) = (0, 3_000);
const CUT_MILLIS: (u64, u64) = (200, 4_000);
const SLOW_MILLIS: (u64, u64) = (5_000, 10_000);
const DELAY_MILLIS: (u64, u64) = (20, 150);

/// Before a commit nothing of it is known but what Redis granted; after it, it is neither published, nor told to the
/// brokers, nor answered.
const PLACES: [&str; 2] = ["store.before_commit", "store.after_commit"];
const COMMITS_MAX: u64 = 40;

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Card {
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

const DECK: [Card; 10] = [
    Card::KillWorker,
    Card::KillAny,
    Card::Die,
    Card::Stop,
    Card::Postgres,
    Card::Redis,
    Card::Kafka,
    Card::Cut,
    Card::BlackHole,
    Card::Slow,
];

#[derive(Clone)]
enum What {
    /// `kill -9` of a process.
    Kill(Arc<Process>),
    /// A process dies at a place where a crash falls between two effects, at its so many-th commit.
    Die(Arc<Process>, &'static str, u64),
    /// SIGSTOP of a process, and SIGCONT so much later.
    Stop(Arc<Process>, Duration),
    /// An engine is stopped as a power cut stops it. Redis comes back empty.
    Away(Goal, Duration),
    /// Between a process and an engine.
    Weather(Arc<Process>, Goal, Arc<Proxy>, Weather, Duration),
}

/// Something that goes away at a moment.
#[derive(Clone)]
pub struct Fault {
    at: Duration,
    what: What,
}

/// The faults of each of these rounds.
pub fn deal(random: &Random, deployment: &Deployment, rounds: usize) -> Vec<Vec<Fault>> {
    let mut hands = Vec::new();
    while hands.len() < rounds {
        let mut deck = DECK;
        for place in (1..deck.len()).rev() {
            let other = random.below(place as u64 + 1);
            deck.swap(place, usize::try_from(other).unwrap());
        }
        for hand in deck.chunks(deck.len().div_ceil(ROUNDS_OF_DECK)) {
            let draw = |card: &Card| Fault {
                at: millis(random, (0, BEGIN_MILLIS_MAX)),
                what: card.draw(random, deployment),
            };
            hands.push(hand.iter().map(draw).collect());
        }
    }
    hands.truncate(rounds);
    hands
}

fn millis(random: &Random, (from, to): (u64, u64)) -> Duration {
    Duration::from_millis(from + random.below(to - from))
}

fn choose<T: Clone>(random: &Random, those: &[T]) -> T {
    let place = random.below(those.len() as u64);
    those[usize::try_from(place).unwrap()].clone()
}

impl Card {
    fn draw(self, random: &Random, deployment: &Deployment) -> What {
        let all = &deployment.processes;
        let workers: Vec<_> = all.iter().filter(|it| it.is_worker()).cloned().collect();
        match self {
            Self::KillWorker => What::Kill(choose(random, &workers)),
            Self::KillAny => What::Kill(choose(random, all)),
            Self::Die => What::Die(
                choose(random, all),
                choose(random, &PLACES),
                random.below(COMMITS_MAX),
            ),
            Self::Stop => What::Stop(choose(random, &workers), millis(random, PAUSE_MILLIS)),
            Self::Postgres => What::Away(Goal::Postgres, millis(random, AWAY_MILLIS)),
            Self::Redis => What::Away(Goal::Redis, millis(random, AWAY_MILLIS)),
            Self::Kafka => What::Away(Goal::Kafka, millis(random, AWAY_MILLIS)),
            Self::Cut | Self::BlackHole | Self::Slow => self.draw_weather(random, all),
        }
    }

    fn draw_weather(self, random: &Random, all: &[Arc<Process>]) -> What {
        let process = choose(random, all);
        let (goal, road) = choose(random, &process.roads);
        let (weather, lasting) = match self {
            Self::Cut => (Weather::Cut, CUT_MILLIS),
            Self::Slow => (Weather::Slow(millis(random, DELAY_MILLIS)), SLOW_MILLIS),
            _ => (Weather::BlackHole, longer_than_the_timeouts(goal)),
        };
        What::Weather(process, goal, road, weather, millis(random, lasting))
    }
}

fn longer_than_the_timeouts(goal: Goal) -> (u64, u64) {
    match goal {
        // An answer is waited for 20 seconds.
        Goal::Postgres => (4_000, 23_000),
        // A call 2 seconds.
        Goal::Redis => (3_000, 8_000),
        // A session 6 seconds.
        Goal::Kafka => (7_000, 14_000),
        // A request 3 seconds.
        Goal::Gateway => (4_000, 9_000),
    }
}

impl Fault {
    /// What it is, for people.
    pub fn describe(&self) -> String {
        let at = self.at.as_millis();
        match &self.what {
            What::Kill(process) => format!("at {at} ms kill {}", process.name),
            What::Die(process, place, commits) => {
                format!("{} dies at {place} after {commits} of them", process.name)
            }
            What::Stop(process, pause) => format!("at {at} ms stop {} for {pause:?}", process.name),
            What::Away(engine, away) => format!("at {at} ms crash {engine:?} for {away:?}"),
            What::Weather(process, goal, _, weather, lasting) => format!(
                "at {at} ms {weather:?} between {} and {goal:?} for {lasting:?}",
                process.name
            ),
        }
    }

    /// Returns when it is over.
    async fn strike(&self, deployment: &Deployment) {
        // These are the random moments themselves: nothing is waited for.
        tokio::time::sleep(self.at).await;
        deployment.trouble(true);
        self.befall(deployment).await;
        deployment.trouble(false);
    }

    async fn befall(&self, deployment: &Deployment) {
        match &self.what {
            // It was armed before.
            What::Die(..) => {}
            What::Kill(process) => process.kill(),
            What::Stop(process, pause) => {
                process.signal("-STOP");
                tokio::time::sleep(*pause).await;
                process.signal("-CONT");
            }
            What::Away(engine, away) => take_away(deployment, *engine, *away).await,
            What::Weather(_, _, road, weather, lasting) => {
                road.turn(*weather);
                tokio::time::sleep(*lasting).await;
                road.turn(Weather::Fair);
            }
        }
    }
}

async fn take_away(deployment: &Deployment, engine: Goal, away: Duration) {
    let engines = deployment.engines;
    let engine = match engine {
        Goal::Postgres => &engines.postgres,
        Goal::Redis => &engines.redis,
        Goal::Kafka => &engines.kafka,
        Goal::Gateway => return,
    };
    let begun = Instant::now();
    engine.crash().await;
    tokio::time::sleep(away).await;
    engine.restart().await;
    eprintln!("{} was away for {:?}", engine.name, begun.elapsed());
}

/// Puts those in their places that are to die; before the crowd comes.
pub async fn arm(deployment: &Deployment, faults: &[Fault]) {
    for Fault { what, .. } in faults {
        if let What::Die(process, point, commits) = what {
            process.doom(&format!("{point}={commits}*off->return"));
        }
    }
    deployment.all_listen().await;
}

/// All of them, each at its moment; returns when everything is back.
pub async fn strike(deployment: &Deployment, faults: &[Fault]) {
    let striking = faults.iter().map(|fault| fault.strike(deployment));
    future::join_all(striking).await;
    deployment.all_listen().await;
}

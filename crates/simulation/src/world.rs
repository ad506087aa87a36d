//! The world of a run: one clock, one source of random numbers, the trace; and the hosts, whose runtimes it runs in turn.
//!
//! Each host has a runtime of its own on this thread, with paused time, as turmoil's hosts have. A tick of the world runs
//! every host, in a random order, for a few milliseconds of simulated time: timers fire in their order, and nothing waits
//! for real. What passes between hosts goes through channels and arrives in the receiver's next turn. A host is killed by
//! dropping its runtime, which drops all its tasks where they stand.

use std::{
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use messaging::{Clock, Random, Timestamp};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};

use crate::{
    faults::{Coverage, Fault, Weather},
    trace::Trace,
};

/// Simulated time of one turn of a host, while there are faults, and without.
const TICK_MILLIS: i64 = 10;
const CALM_TICK_MILLIS: i64 = 40;
const QUIET_MILLIS: i64 = 40_000;
const START: i64 = 1_800_000_000_000;
const NANOS_PER_MILLI: i64 = 1_000_000;

/// What everything in a run shares.
#[derive(Debug)]
pub struct World {
    pub random: Random,
    now: AtomicI64,
    /// When a fault struck last.
    struck_at: AtomicI64,
    weather: Weather,
    storms: AtomicBool,
    trace: Mutex<Trace>,
    coverage: Mutex<Coverage>,
    failures: Mutex<Vec<String>>,
    /// Whether the process whose turn it is stands still after it.
    pauses: AtomicBool,
}

impl World {
    #[must_use]
    pub fn new(seed: u64, without: &[Fault], prints: bool) -> Arc<Self> {
        let random = Random::seeded(seed);
        Arc::new(Self {
            weather: Weather::draw(&random, without),
            random,
            now: AtomicI64::new(START),
            struck_at: AtomicI64::new(0),
            storms: AtomicBool::new(false),
            trace: Mutex::new(Trace::new(prints)),
            coverage: Mutex::default(),
            failures: Mutex::default(),
            pauses: AtomicBool::new(false),
        })
    }

    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.load(Relaxed))
    }

    /// Milliseconds since the run began.
    #[must_use]
    pub fn elapsed(&self) -> i64 {
        self.now.load(Relaxed) - START
    }

    pub fn below(&self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    /// A number from `min` to `max`.
    pub fn between(&self, min: u64, max: u64) -> u64 {
        min + self.below(max - min + 1)
    }

    /// A moment from `min` to `max` milliseconds from now.
    pub fn after(&self, min: u64, max: u64) -> i64 {
        self.elapsed() + self.between(min, max) as i64
    }

    pub fn pick<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// Whether faults may strike.
    pub fn set_storms(&self, on: bool) {
        self.storms.store(on, Relaxed);
        self.step(format_args!("faults {}", if on { "begin" } else { "end" }));
    }

    #[must_use]
    pub fn is_stormy(&self) -> bool {
        self.storms.load(Relaxed)
    }

    /// Whether this fault strikes here now.
    pub fn strikes(&self, fault: Fault, place: &str) -> bool {
        if !self.is_stormy() {
            return false;
        }
        let rate = self.weather.per_mille(fault);
        let strikes = rate > 0 && self.below(1_000) < rate;
        self.coverage.lock().count(fault, place, strikes);
        if strikes {
            self.struck_at.store(self.elapsed(), Relaxed);
            self.step(format_args!("{fault:?} at {place}"));
        }
        strikes
    }

    /// Whether nothing has gone wrong for longer than anything takes.
    pub fn is_quiet(&self) -> bool {
        self.elapsed() - self.struck_at.load(Relaxed) > QUIET_MILLIS
    }

    /// Whether the process whose turn it is stands still while it waits for this answer.
    pub fn may_pause(&self, place: &str) {
        if self.strikes(Fault::PauseAtCall, place) {
            self.pauses.store(true, Relaxed);
        }
    }

    /// Whether a process stands still, asked after its turn.
    pub fn takes_pause(&self) -> bool {
        self.pauses.swap(false, Relaxed)
    }

    /// What happened so far.
    pub fn trace(&self) -> MutexGuard<'_, Trace> {
        self.trace.lock()
    }

    /// Writes a step to the trace.
    pub fn step(&self, what: impl Display) {
        let line = format!("{:>8} {what}", self.elapsed());
        self.trace.lock().add(line);
    }

    /// Something that must hold does not.
    pub fn fail(&self, what: impl Display) {
        self.step(format_args!("FAILED: {what}"));
        self.failures.lock().push(what.to_string());
    }

    #[must_use]
    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().clone()
    }

    #[must_use]
    pub fn coverage(&self) -> Coverage {
        self.coverage.lock().clone()
    }

    /// Moves the clock by one turn of the hosts.
    pub fn advance(&self) {
        let millis = if self.is_stormy() {
            TICK_MILLIS
        } else {
            CALM_TICK_MILLIS
        };
        self.now.fetch_add(millis, Relaxed);
    }

    /// A steady clock whose system clock shows `skew` milliseconds more than the world's.
    #[must_use]
    pub fn clock(self: &Arc<Self>, skew: Arc<AtomicI64>) -> Clock {
        let world = Arc::clone(self);
        Clock::steady_from(move || {
            let now = world.now.load(Relaxed);
            let wall = now + skew.load(Relaxed);
            (wall * NANOS_PER_MILLI, (now - START) * NANOS_PER_MILLI)
        })
    }
}

/// Until when something is not there.
#[derive(Debug, Default)]
pub struct Outage(AtomicI64);

impl Outage {
    /// Begins if this fault strikes, which it returns, and lasts up to this time.
    pub fn may_begin(&self, world: &World, fault: Fault, place: &str, millis_max: u64) -> bool {
        let strikes = world.strikes(fault, place);
        if strikes {
            self.0.store(world.after(100, millis_max), Relaxed);
        }
        strikes
    }

    /// How long it still lasts.
    pub fn millis_left(&self, world: &World) -> i64 {
        (self.0.load(Relaxed) - world.elapsed()).max(0)
    }
}

/// Waits on the host's clock.
pub async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// A machine: its runtime, and how far its time has come.
pub struct Host {
    pub runtime: Runtime,
    born_at: i64,
    began: Instant,
}

impl Host {
    #[must_use]
    pub fn new(world: &World) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let began = runtime.block_on(async { Instant::now() });
        Self {
            runtime,
            born_at: world.elapsed(),
            began,
        }
    }

    /// Runs everything of this host up to the world's time.
    pub fn run(&self, world: &World) {
        let millis = u64::try_from(world.elapsed() - self.born_at).unwrap_or(0);
        let until = self.began + Duration::from_millis(millis);
        self.runtime
            .block_on(async { tokio::time::sleep_until(until).await });
    }
}

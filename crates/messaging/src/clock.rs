//! Clock and random source, passed in: no other module reads a clock or draws a random number.
//!
//! Within a process time never goes back. Waits compare stored times with [`Clock::now`], so a system clock that is set
//! back by twenty minutes would stall every wait for as long. [`Clock::steady`] measures elapsed time by the monotonic
//! clock: it follows the system's clock forward at once, and goes on at half speed if that is set back, until they agree
//! again. Times that an earlier process stored too far ahead are clamped by their readers.

use std::{sync::Arc, time::Instant};

use crate::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

const NANOS_PER_MILLI: i64 = 1_000_000;
/// A clock that is set back by less is not logged.
const LOGGED_MILLIS_MIN: i64 = 1_000;

/// Where "now" comes from.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The system's, as it is; for one reading.
    System,
    /// The system's, which never goes back.
    Steady(Arc<Steady>),
    /// Stands still until it is set; for tests.
    Manual(Arc<Steady>),
}

/// What a source of time shows, in nanoseconds: the time of day since the Unix epoch, and what has passed by a clock that
/// nobody sets.
pub type Reading = (i64, i64);

impl Clock {
    #[must_use]
    pub fn steady() -> Self {
        Self::Steady(Arc::new(Steady::new(Source::System(Instant::now()))))
    }

    /// As [`Clock::steady`], from another source than the system, whose seconds are those of tokio's timers.
    pub fn steady_from(read: impl Fn() -> Reading + Send + Sync + 'static) -> Self {
        Self::Steady(Arc::new(Steady::new(Source::Other(Box::new(read)))))
    }

    #[must_use]
    pub fn manual(start: Timestamp) -> Self {
        let time = Times {
            wall: start,
            passed_millis: 0,
        };
        Self::Manual(Arc::new(Steady::new(Source::Manual(watch::Sender::new(
            time,
        )))))
    }

    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => system_time(),
            Self::Steady(steady) | Self::Manual(steady) => steady.now(),
        }
    }

    /// Moves a manual clock forward and wakes those who wait for the time. Does nothing to a system clock.
    pub fn advance_millis(&self, millis: i64) {
        self.set(|time| {
            time.wall = time.wall.plus_millis(millis);
            time.passed_millis += millis.max(0);
        });
    }

    /// Sets a manual clock back, as an operator sets a system's: no time passes.
    pub fn set_back_millis(&self, millis: i64) {
        self.set(|time| time.wall = time.wall.plus_millis(-millis));
    }

    fn set(&self, change: impl FnOnce(&mut Times)) {
        if let Self::Manual(steady) = self
            && let Source::Manual(times) = &steady.source
        {
            times.send_modify(change);
        }
    }

    /// Waits until the clock shows `at` or later.
    pub async fn wait_until(&self, at: Timestamp) {
        if let Self::Manual(steady) = self
            && let Source::Manual(times) = &steady.source
        {
            let mut changes = times.subscribe();
            while self.now() < at {
                // The sender lives in self, so the wait cannot fail.
                let _ = changes.changed().await;
            }
            return;
        }
        loop {
            let millis = u64::try_from(at.millis_since(self.now())).unwrap_or(0);
            if millis == 0 {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
        }
    }
}

fn system_time() -> Timestamp {
    Timestamp::from_millis(system_nanos() / NANOS_PER_MILLI)
}

fn system_nanos() -> i64 {
    let since_epoch = std::time::SystemTime::UNIX_EPOCH.elapsed();
    i64::try_from(since_epoch.unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
}

/// A clock that never goes back.
#[derive(Debug)]
pub struct Steady {
    source: Source,
    state: Mutex<SteadyState>,
}

enum Source {
    System(Instant),
    Manual(watch::Sender<Times>),
    Other(Box<dyn Fn() -> Reading + Send + Sync>),
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::System(_) => "System",
            Self::Manual(_) => "Manual",
            Self::Other(_) => "Other",
        })
    }
}

/// What a manual source shows.
#[derive(Debug, Clone, Copy)]
struct Times {
    wall: Timestamp,
    /// By the monotonic clock.
    passed_millis: i64,
}

impl Steady {
    fn new(source: Source) -> Self {
        let (wall, passed) = source.read();
        let state = SteadyState {
            now: wall,
            passed,
            is_behind: false,
        };
        Self {
            source,
            state: Mutex::new(state),
        }
    }

    fn now(&self) -> Timestamp {
        let mut state = self.state.lock();
        let (wall, passed) = self.source.read();
        Timestamp::from_millis(state.advance(wall, passed) / NANOS_PER_MILLI)
    }
}

impl Source {
    fn read(&self) -> Reading {
        match self {
            Self::Other(read) => read(),
            Self::System(start) => {
                let passed = i64::try_from(start.elapsed().as_nanos()).unwrap_or(i64::MAX);
                (system_nanos(), passed)
            }
            Self::Manual(times) => {
                let Times {
                    wall,
                    passed_millis,
                } = *times.borrow();
                let nanos = |millis: i64| millis.saturating_mul(NANOS_PER_MILLI);
                (nanos(wall.as_millis()), nanos(passed_millis))
            }
        }
    }
}

/// The reading of a steady clock; all in nanoseconds.
#[derive(Debug)]
struct SteadyState {
    now: i64,
    passed: i64,
    is_behind: bool,
}

impl SteadyState {
    fn advance(&mut self, wall: i64, passed: i64) -> i64 {
        let step = (passed - self.passed).max(0);
        self.passed = self.passed.max(passed);
        let behind_millis = (self.now.saturating_add(step) - wall) / NANOS_PER_MILLI;
        if behind_millis > LOGGED_MILLIS_MIN && !self.is_behind {
            tracing::warn!(
                behind_millis,
                "the system's clock was set back: time goes on at half speed until they agree again"
            );
        }
        self.is_behind = behind_millis > LOGGED_MILLIS_MIN;
        self.now = if behind_millis > 0 {
            wall.max(self.now.saturating_add(step / 2))
        } else {
            wall.max(self.now)
        };
        self.now
    }
}

/// Where random numbers come from.
#[derive(Debug, Clone)]
pub enum Random {
    /// The operating system's generator.
    System,
    /// The same numbers for the same seed; for tests.
    Seeded(Arc<Mutex<u64>>),
}

impl Random {
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self::Seeded(Arc::new(Mutex::new(seed)))
    }

    /// A UUID of version 7: the time in front, so that ids sort by their making, and 74 random bits behind.
    #[must_use]
    pub fn uuid(&self, now: Timestamp) -> Uuid {
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        match self {
            Self::System => {
                let whole_secs = millis / 1000;
                let nanos = u32::try_from(millis % 1000).unwrap_or(0) * 1_000_000;
                Uuid::new_v7(uuid::Timestamp::from_unix(
                    uuid::NoContext,
                    whole_secs,
                    nanos,
                ))
            }
            Self::Seeded(_) => {
                let mut bytes = [0_u8; 10];
                bytes[..8].copy_from_slice(&self.next().to_be_bytes());
                bytes[8..].copy_from_slice(&self.next().to_be_bytes()[..2]);
                uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
            }
        }
    }

    /// A number in `0..bound`, for jitter; 0 if `bound` is 0.
    #[must_use]
    pub fn below(&self, bound: u64) -> u64 {
        if bound == 0 { 0 } else { self.next() % bound }
    }

    pub(crate) fn next(&self) -> u64 {
        match self {
            Self::System => Uuid::new_v4().as_u64_pair().1,
            Self::Seeded(state) => {
                // SplitMix64 (Steele, Lea, Flood 2014).
                let mut state = state.lock();
                *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
                mixed ^ (mixed >> 31)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

    fn shown(clock: &Clock) -> i64 {
        clock.now().millis_since(START)
    }

    #[test]
    fn time_follows_the_system_forward_at_once() {
        let clock = Clock::manual(START);
        clock.advance_millis(90_000);
        assert_eq!(shown(&clock), 90_000);
    }

    #[test]
    fn time_never_goes_back_and_what_passes_is_at_least_half_seen_until_the_system_has_come_up() {
        let clock = Clock::manual(START);
        assert_eq!(shown(&clock), 0);
        clock.set_back_millis(20_000);
        assert_eq!(shown(&clock), 0);
        for passed in 1..=39 {
            clock.advance_millis(1_000);
            assert_eq!(shown(&clock), passed * 500);
        }
        clock.advance_millis(1_000);
        assert_eq!(shown(&clock), 20_000, "they agree again");
        clock.advance_millis(1_000);
        assert_eq!(shown(&clock), 21_000);
    }

    #[tokio::test]
    async fn a_wait_takes_at_most_twice_its_time_if_the_clock_is_set_back() {
        let clock = Clock::manual(START);
        let until = clock.now().plus_millis(10_000);
        clock.set_back_millis(1_200_000);
        let waited = clock.wait_until(until);
        tokio::pin!(waited);
        let early = futures::poll!(&mut waited);
        assert!(early.is_pending());
        clock.advance_millis(20_000);
        waited.await;
    }

    #[test]
    fn a_steady_clock_follows_the_system() {
        let clock = Clock::steady();
        let before = clock.now();
        assert!(clock.now() >= before && before.millis_since(system_time()).abs() < 60_000);
    }
}

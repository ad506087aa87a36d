//! Where the sandbox's time comes from. A caller that has a clock of its own implements [`Clock`] for it.

use std::{
    fmt,
    sync::Mutex,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use crate::state::lock;

/// A clock that never goes back.
pub trait Clock: fmt::Debug + Send + Sync {
    fn now(&self) -> Timestamp;

    /// Resolves when the clock shows `at` or later.
    fn wait_until(&self, at: Timestamp) -> BoxFuture<'_, ()>;
}

/// The system's clock. If the system's clock is set back, time goes on from where it was.
#[derive(Debug)]
pub struct SystemClock(Mutex<(Timestamp, Instant)>);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Mutex::new((Timestamp::now(), Instant::now())))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let (system, instant) = (Timestamp::now(), Instant::now());
        let mut last = lock(&self.0);
        let monotonic = last
            .0
            .saturating_add(instant.duration_since(last.1))
            .unwrap_or(Timestamp::MAX);
        *last = (system.max(monotonic), instant);
        last.0
    }

    fn wait_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        async move {
            loop {
                // Zero if the time has passed.
                let left = self.now().duration_until(at);
                let left = Duration::try_from(left).unwrap_or_default();
                if left.is_zero() {
                    return;
                }
                tokio::time::sleep(left).await;
            }
        }
        .boxed()
    }
}

/// A clock that stands still until it is advanced; for tests.
#[derive(Debug)]
pub struct ManualClock(watch::Sender<Timestamp>);

impl ManualClock {
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self(watch::Sender::new(start))
    }

    /// Moves the clock forward and wakes everything that waits for the time.
    pub fn advance_millis(&self, millis: i64) {
        self.0
            .send_modify(|now| *now += SignedDuration::from_millis(millis.max(0)));
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    fn wait_until(&self, at: Timestamp) -> BoxFuture<'_, ()> {
        async move {
            // The sender lives in self, so the wait cannot fail.
            let _ = self.0.subscribe().wait_for(|now| *now >= at).await;
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_never_goes_back() {
        let ahead = Timestamp::now() + SignedDuration::from_hours(1);
        let clock = SystemClock(Mutex::new((ahead, Instant::now())));
        assert!(clock.now() >= ahead);
        assert!(clock.now() < ahead + SignedDuration::from_mins(1));
    }
}

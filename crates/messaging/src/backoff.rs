//! Waiting for a store that is away: capped, doubled each time, jittered.

use std::time::Duration;

use crate::{Random, StoreError};

/// The longest pause of a periodic task whose store fails.
const PAUSE_MILLIS_MAX: i64 = 5_000;

/// The pause between two looks of a periodic task: always the same while they succeed, doubled with each that fails in
/// a row. It bounds what a store that is away is asked, and how often that is logged.
#[derive(Debug)]
pub struct Pace {
    tick_millis: i64,
    pause_millis: i64,
}

impl Pace {
    #[must_use]
    pub const fn every(tick_millis: i64) -> Self {
        Self {
            tick_millis,
            pause_millis: tick_millis,
        }
    }

    /// How long to pause after a look that ended so, in milliseconds.
    pub fn after<T>(&mut self, look: &Result<T, StoreError>) -> i64 {
        let longest = PAUSE_MILLIS_MAX.max(self.tick_millis);
        self.pause_millis = match look {
            Ok(_) => self.tick_millis,
            Err(_) => (self.pause_millis * 2).min(longest),
        };
        self.pause_millis
    }
}

/// The first wait after a failure of the store; doubled each time.
const BACKOFF_MILLIS_MIN: u64 = 10;

/// How long to wait next.
pub(crate) struct Backoff<'a> {
    random: &'a Random,
    millis: u64,
    millis_max: u64,
}

impl<'a> Backoff<'a> {
    pub(crate) fn new(random: &'a Random, millis_max: u64) -> Self {
        Self {
            random,
            millis: BACKOFF_MILLIS_MIN,
            millis_max,
        }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let millis = self.millis + self.random.below(self.millis);
        self.millis = (self.millis * 2).min(self.millis_max);
        Duration::from_millis(millis)
    }

    /// Waits and lets the caller try again; a failure that cannot pass is returned.
    pub(crate) async fn wait_out(
        &mut self,
        group: &'static str,
        error: StoreError,
    ) -> Result<(), StoreError> {
        if matches!(error, StoreError::Poisoned(_)) {
            return Err(error);
        }
        let wait = self.next();
        let retry_millis = wait.as_millis();
        tracing::warn!(group, %error, retry_millis, "the consumer waits for its store");
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_whose_store_fails_pauses_longer_each_time_and_not_once_it_answers() {
        let failed: Result<(), _> = Err(StoreError::Overloaded);
        let mut pace = Pace::every(100);
        let pauses: Vec<_> = (0..7).map(|_| pace.after(&failed)).collect();
        assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(pace.after(&Ok(())), 100);
        assert_eq!(Pace::every(60_000).after(&failed), 60_000);
    }
}

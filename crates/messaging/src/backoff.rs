//! The waits between tries: doubled with each failure, capped, jittered.

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

/// How long to wait before a try is repeated: doubled with each failure in a row, capped, jittered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffPolicy {
    pub millis_min: u64,
    pub millis_max: u64,
}

impl BackoffPolicy {
    /// The wait after `failures` earlier ones, in milliseconds: between half and the whole of what the doubling gives.
    #[must_use]
    pub fn wait_millis(&self, failures: u32, random: &Random) -> u64 {
        let doubled = self
            .millis_min
            .saturating_mul(1 << failures.min(DOUBLINGS_MAX));
        let half = doubled.min(self.millis_max) / 2;
        half + random.below(half + 1)
    }
}

/// More doublings would overflow.
const DOUBLINGS_MAX: u32 = 16;
/// The longest first wait after a failure of the store.
const STORE_MILLIS_MIN: u64 = 20;

/// The waits of one task after failures of its store.
pub(crate) struct Backoff<'a> {
    random: &'a Random,
    policy: BackoffPolicy,
    failures: u32,
}

impl<'a> Backoff<'a> {
    pub(crate) fn new(random: &'a Random, millis_max: u64) -> Self {
        let policy = BackoffPolicy {
            millis_min: STORE_MILLIS_MIN,
            millis_max,
        };
        Self {
            random,
            policy,
            failures: 0,
        }
    }

    pub(crate) fn next(&mut self) -> Duration {
        let millis = self.policy.wait_millis(self.failures, self.random);
        self.failures = self.failures.saturating_add(1);
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
    fn waits_double_up_to_their_cap_with_jitter_of_half() {
        let policy = BackoffPolicy {
            millis_min: 100,
            millis_max: 1_000,
        };
        let random = Random::seeded(1);
        for (failures, longest) in [(0, 100), (1, 200), (3, 800), (4, 1_000), (u32::MAX, 1_000)] {
            let wait = policy.wait_millis(failures, &random);
            assert!(
                (longest / 2..=longest).contains(&wait),
                "{failures}: {wait}"
            );
        }
    }

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

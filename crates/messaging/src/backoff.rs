//! The waits between tries: doubled with each failure, and capped. All retries of the workspace take their waits from here.

use std::time::Duration;

use crate::{Random, StoreError};

/// More doublings are not needed, and would overflow.
const DOUBLINGS_MAX: u32 = 16;
/// The longest pause of a periodic task whose store fails.
const PAUSE_MILLIS_MAX: u64 = 5_000;

/// The waits between tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackoffPolicy {
    pub millis_min: u64,
    pub millis_max: u64,
}

impl BackoffPolicy {
    /// The wait after `failures` earlier failures in a row, in milliseconds.
    #[must_use]
    pub const fn wait_millis(self, failures: u32) -> u64 {
        let doublings = if failures < DOUBLINGS_MAX {
            failures
        } else {
            DOUBLINGS_MAX
        };
        let doubled = self.millis_min.saturating_mul(1 << doublings);
        if doubled < self.millis_max {
            doubled
        } else {
            self.millis_max
        }
    }

    /// The same with jitter, for processes that fail at the same time: between half and all of it.
    #[must_use]
    pub fn jittered_millis(self, failures: u32, random: &Random) -> u64 {
        let half = self.wait_millis(failures) / 2;
        half + random.below(half + 1)
    }
}

/// The pauses of a periodic task: constant while it succeeds, doubled with each failure in a row.
#[derive(Debug)]
pub(crate) struct Pace {
    policy: BackoffPolicy,
    failures: u32,
}

impl Pace {
    pub(crate) fn every(tick_millis: i64) -> Self {
        let millis_min = tick_millis.unsigned_abs();
        let policy = BackoffPolicy {
            millis_min,
            millis_max: PAUSE_MILLIS_MAX.max(millis_min),
        };
        Self {
            policy,
            failures: 0,
        }
    }

    /// The pause after a run with this result, in milliseconds.
    pub(crate) fn after<T>(&mut self, run: &Result<T, StoreError>) -> i64 {
        self.failures = match run {
            Ok(_) => 0,
            Err(_) => self.failures.saturating_add(1),
        };
        let pause = self.policy.wait_millis(self.failures);
        i64::try_from(pause).unwrap_or(i64::MAX)
    }
}

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
        let millis = self.policy.jittered_millis(self.failures, self.random);
        self.failures = self.failures.saturating_add(1);
        Duration::from_millis(millis)
    }

    /// Waits before the caller tries again. A failure that is final is returned at once.
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
            let wait = policy.jittered_millis(failures, &random);
            assert_eq!(policy.wait_millis(failures), longest);
            assert!(
                (longest / 2..=longest).contains(&wait),
                "{failures}: {wait}"
            );
        }
    }

    #[test]
    fn a_periodic_task_pauses_longer_after_each_failure_and_normally_after_a_success() {
        let failed: Result<(), _> = Err(StoreError::Overloaded);
        let mut pace = Pace::every(100);
        let pauses: Vec<_> = (0..7).map(|_| pace.after(&failed)).collect();
        assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
        assert_eq!(pace.after(&Ok(())), 100);
        assert_eq!(Pace::every(60_000).after(&failed), 60_000);
    }
}

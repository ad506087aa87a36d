//! Waiting for a store that is away: capped, doubled each time, jittered.

use std::time::Duration;

use crate::{Random, StoreError};

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

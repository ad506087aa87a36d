//! Waiting for a store that is away.

use std::time::Duration;

use crate::{Random, StoreError};

/// The first wait after a failure of the store; doubled each time.
const BACKOFF_MILLIS_MIN: u64 = 10;
const BACKOFF_MILLIS_MAX: u64 = 5_000;

/// Capped, jittered waiting.
pub(super) struct Backoff<'a> {
    random: &'a Random,
    millis: u64,
}

impl<'a> Backoff<'a> {
    pub(super) fn new(random: &'a Random) -> Self {
        Self {
            random,
            millis: BACKOFF_MILLIS_MIN,
        }
    }

    /// Waits and lets the caller try again; a failure that cannot pass is returned.
    pub(super) async fn wait_out(
        &mut self,
        group: &'static str,
        error: StoreError,
    ) -> Result<(), StoreError> {
        if matches!(error, StoreError::Poisoned(_)) {
            return Err(error);
        }
        tracing::warn!(group, %error, retry_millis = self.millis, "the consumer waits for its store");
        tokio::time::sleep(Duration::from_millis(
            self.millis + self.random.below(self.millis),
        ))
        .await;
        self.millis = (self.millis * 2).min(BACKOFF_MILLIS_MAX);
        Ok(())
    }
}

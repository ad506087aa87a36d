//! Polling with growing pauses and a time limit.

use std::time::Duration;

use anyhow::bail;
use messaging::BackoffPolicy;
use tokio::time::{Instant, sleep};

/// A condition that takes longer fails the demo.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSES: BackoffPolicy = BackoffPolicy {
    millis_min: 5,
    millis_max: 80,
};

/// Polls until `ask` returns a value.
///
/// # Errors
/// If `ask` fails, or returns no value within the limit; the text names `what`.
pub async fn poll_until<T>(
    what: &str,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + LIMIT;
    let mut polls = 0;
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("timed out after {} s waiting for {what}", LIMIT.as_secs());
        }
        sleep(Duration::from_millis(PAUSES.wait_millis(polls))).await;
        polls += 1;
    }
}

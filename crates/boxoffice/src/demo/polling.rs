//! Polling with growing pauses and a time limit.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

/// A condition that takes longer fails the demo.
const LIMIT: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(80);

/// Polls until `ask` returns a value.
///
/// # Errors
/// If `ask` fails, or returns no value within the limit; the text names `what`.
pub async fn poll_until<T>(
    what: &str,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + LIMIT;
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("timed out after {} s waiting for {what}", LIMIT.as_secs());
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

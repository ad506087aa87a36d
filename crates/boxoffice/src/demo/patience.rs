//! Waiting for something to become true: asked again and again, less and less often, and never for ever.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};

/// Nothing in a demo takes longer, unless something is wrong.
const LIMIT: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(80);

/// The first answer that is one.
///
/// # Errors
/// Where asking fails, or there was no answer in time; the text says what was waited for.
pub async fn until<T>(
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
            bail!("waited {} s for {what}, in vain", LIMIT.as_secs());
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

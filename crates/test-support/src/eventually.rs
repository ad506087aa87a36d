//! Polling: the one way in which tests wait for a condition.

use std::{fmt::Display, time::Duration};

/// How often a condition is polled, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Polling {
    pub interval: Duration,
    pub timeout: Duration,
}

/// Polls `attempt` until it is `Ok`. Its last error describes the state if that takes longer than the timeout, which
/// fails the test.
pub async fn eventually<T, E: Display>(
    polling: Polling,
    awaited: &str,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let mut last = None;
    let succeeding = async {
        let mut poll = tokio::time::interval(polling.interval);
        loop {
            poll.tick().await;
            match attempt().await {
                Ok(value) => return value,
                Err(error) => last = Some(error),
            }
        }
    };
    let succeeded = tokio::time::timeout(polling.timeout, succeeding).await;
    succeeded.unwrap_or_else(|_| match last {
        Some(error) => panic!("not within {:?}: {awaited}; {error}", polling.timeout),
        None => panic!("not within {:?}: {awaited}", polling.timeout),
    })
}

//! Timers are messages published at a time. They are stored with the commit that set them; this loop publishes
//! what is due. A timer that comes late finds that things moved on, and changes nothing.

use std::sync::Arc;

use crate::{Clock, Commit, Metrics, Shutdown, Store, StoreError, Submission, commit::TimerChange};

/// Timers published by one transaction.
const TIMERS_MAX: u32 = 512;
/// How late a timer may be looked at.
const TICK_MILLIS: i64 = 100;

pub struct Timers {
    pub store: Store,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
}

impl Timers {
    /// Publishes due timers until told to stop.
    pub async fn run(self, mut shutdown: Shutdown) {
        loop {
            // Before looking: what becomes due during a look is looked for at once.
            let next = self.clock.now().plus_millis(TICK_MILLIS);
            match self.fire_due().await {
                Ok(_) => {}
                Err(StoreError::Poisoned(_)) => return,
                Err(error) => tracing::warn!(%error, "timers wait for their store"),
            }
            tokio::select! {
                () = shutdown.requested() => return,
                () = self.clock.wait_until(next) => {}
            }
        }
    }

    /// Publishes every timer that is due; returns how many.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer; what was not published stays due.
    pub async fn fire_due(&self) -> Result<usize, StoreError> {
        let mut fired = 0;
        loop {
            let due = self.store.due_timers(self.clock.now(), TIMERS_MAX).await?;
            if due.is_empty() {
                return Ok(fired);
            }
            let count = due.len();
            fired += count;
            let mut commit = Commit::new();
            commit.timers = due
                .into_iter()
                .map(|timer| TimerChange::Fire {
                    id: timer.id,
                    due_at: timer.due_at,
                    message: timer.message,
                })
                .collect();
            let submission = Submission {
                commits: [commit].into(),
                position: None,
            };
            fail::fail_point!("timers.before_fire", |_| std::process::abort());
            for outcome in self.store.submit(submission).outcomes().await {
                outcome.map_err(|error| match error {
                    crate::CommitError::Store(error) => error,
                    other => StoreError::Unavailable(other.to_string()),
                })?;
            }
            fail::fail_point!("timers.after_fire", |_| std::process::abort());
            self.metrics.timers_fired.inc_by(count as u64);
        }
    }
}

//! Timers are messages published at a time. They are stored with the commit that set them; this loop publishes
//! what is due. A timer that comes late finds that things moved on, and changes nothing.
//!
//! Each timer has a commit of its own, so that one whose message cannot be published holds up no other: it becomes a
//! dead letter, which waits for a person.

use std::sync::Arc;

use crate::{
    Clock, Commit, CommitError, Metrics, Rejection, Shutdown, Store, StoreError, Submission,
    backoff::Pace, commit::TimerChange, dead_letters, metrics::GroupLabel, store::DueTimer,
};

/// Timers published by one transaction.
const TIMERS_MAX: u32 = 512;
/// The longest that anything waits for its timer, with room: what is set for later, from the start, was set before the
/// clock was set back. A dead letter that waits for longer by its settings is sent again at the start.
const WAIT_MILLIS_MAX: i64 = 120_000;
/// How late a timer may be looked at.
const TICK_MILLIS: i64 = 100;
/// What rejected timers are counted by, beside the consumer groups.
const LABEL: GroupLabel = GroupLabel { group: "timers" };

pub struct Timers {
    pub store: Store,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
}

/// A timer whose message breaks a rule of the store.
type Broken = (DueTimer, Rejection);

impl Timers {
    /// Publishes due timers until told to stop.
    pub async fn run(self, mut shutdown: Shutdown) {
        let mut pace = Pace::every(TICK_MILLIS);
        let mut is_start = true;
        loop {
            // Before looking: what becomes due during a look is looked for at once.
            let now = self.clock.now();
            let fired = match is_start {
                true => self.fire_misdated().await,
                false => self.fire_due().await,
            };
            is_start &= fired.is_err();
            let pause_millis = pace.after(&fired);
            match fired {
                Ok(_) => {}
                Err(StoreError::Poisoned(_)) => return,
                Err(error) => tracing::warn!(%error, pause_millis, "timers wait for their store"),
            }
            tokio::select! {
                () = shutdown.requested() => return,
                () = self.clock.wait_until(now.plus_millis(pause_millis)) => {}
            }
        }
    }

    /// Publishes every timer that is due; returns how many. One that breaks a rule of the store becomes a dead letter.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer, or takes neither a timer nor its dead letter; what was not published
    /// stays due.
    pub async fn fire_due(&self) -> Result<usize, StoreError> {
        let mut fired = 0;
        loop {
            let due = self.store.due_timers(self.clock.now(), TIMERS_MAX).await?;
            if due.is_empty() {
                return Ok(fired);
            }
            fired += self.publish(due).await?;
        }
    }

    /// Publishes every timer that an earlier process has set for a time that nobody waits for; at the start only, before
    /// this process sets any. A clock that is set back while it runs goes on: see [`Clock`].
    ///
    /// # Errors
    /// As [`Self::fire_due`].
    pub async fn fire_misdated(&self) -> Result<usize, StoreError> {
        let latest = self.clock.now().plus_millis(WAIT_MILLIS_MAX);
        let mut fired = 0;
        loop {
            let misdated = self.store.timers_beyond(latest, TIMERS_MAX).await?;
            if misdated.is_empty() {
                return Ok(fired);
            }
            fired += self.publish(misdated).await?;
        }
    }

    async fn publish(&self, due: Vec<DueTimer>) -> Result<usize, StoreError> {
        let count = due.len();
        fail::fail_point!("timers.before_fire", |_| std::process::abort());
        let broken = self.fire(due).await?;
        fail::fail_point!("timers.after_fire", |_| std::process::abort());
        let fired = count - broken.len();
        self.bury(broken).await?;
        Ok(fired)
    }

    async fn fire(&self, due: Vec<DueTimer>) -> Result<Vec<Broken>, StoreError> {
        let commits = due.iter().map(|timer| fire(timer, timer.message.clone()));
        let outcomes = self.submit(commits.collect()).await;
        let (mut broken, mut failure) = (Vec::new(), None);
        for (timer, outcome) in due.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => _ = self.metrics.timers_fired.inc(),
                Err(CommitError::Constraint { detail }) => {
                    broken.push((timer, Rejection::new(detail)));
                }
                Err(CommitError::Store(error)) => failure = Some(error),
                Err(other) => failure = Some(StoreError::Unavailable(other.to_string())),
            }
        }
        failure.map_or(Ok(broken), Err)
    }

    /// Puts a dead letter in the place of each.
    async fn bury(&self, broken: Vec<Broken>) -> Result<(), StoreError> {
        if broken.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let bury = |(timer, rejection): &Broken| {
            tracing::error!(timer.id, message.id = timer.message.id, reason = %rejection, "a timer cannot be published");
            let letter = dead_letters::of_timer(&timer.message, rejection, now);
            fire(timer, dead_letters::message(&letter, now))
        };
        let outcomes = self.submit(broken.iter().map(bury).collect()).await;
        for ((timer, _), outcome) in broken.iter().zip(outcomes) {
            match outcome {
                Ok(()) => _ = self.metrics.messages_rejected.get_or_create(&LABEL).inc(),
                Err(CommitError::Store(error)) => return Err(error),
                Err(other) => {
                    let told = format!("the timer {} stays due: {other}", timer.id);
                    return Err(StoreError::Unavailable(told));
                }
            }
        }
        Ok(())
    }

    async fn submit(&self, commits: Arc<[Commit]>) -> Vec<Result<(), CommitError>> {
        let position = None;
        let submission = Submission { commits, position };
        self.store.submit(submission).outcomes().await
    }
}

/// Publishes `message` in the timer's place, if it is still there.
fn fire(timer: &DueTimer, message: crate::Message) -> Commit {
    let mut commit = Commit::new();
    commit.timers.push(TimerChange::Fire {
        id: timer.id.clone(),
        due_at: timer.due_at,
        message_id: timer.message.id.clone(),
        message,
    });
    commit
}

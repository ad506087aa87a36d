//! Timers are messages published at a time. They are stored with the commit that set them; this task publishes those
//! that are due. A consumer must expect a late timer: the saga may have moved on, and then the timer changes nothing.
//!
//! Each timer is fired by a commit of its own, so that one whose message the store refuses delays no other: it becomes a
//! parked dead letter. State: none but the store's.

use std::sync::Arc;

use crate::{
    Clock, Commit, CommitError, Metrics, Periodic, Rejection, Schedule, Store, StoreError,
    Submission, Tick, commit::TimerChange, dead_letters, metrics::GroupLabel, store::DueTimer,
};

/// Timers published by one transaction.
const TIMERS_MAX: u32 = 512;
/// Longer than any timer is set for. At the start, a timer due later than this was set before the clock was set back. A
/// dead letter whose retry interval is longer is reissued at the start.
const WAIT_MILLIS_MAX: i64 = 120_000;
/// How late a timer may fire.
const TICK_MILLIS: i64 = 100;
/// Counts rejected timers, beside the consumer groups.
const LABEL: GroupLabel = GroupLabel { group: "timers" };

pub struct Timers {
    pub store: Store,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
}

/// A timer whose message violates a constraint of the store.
type Unpublishable = (DueTimer, Rejection);

impl Periodic for Timers {
    fn schedule(&self) -> Schedule {
        Schedule {
            name: "timers",
            interval_millis: TICK_MILLIS,
            is_interruptible: false,
        }
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        self.fire_misdated().await.map(|_| ())
    }

    async fn tick(&mut self) -> Result<Tick, StoreError> {
        self.fire_due().await.map(|_| Tick::Done)
    }
}

impl Timers {
    /// Publishes every timer that is due; returns how many. One whose message violates a constraint of the store becomes a dead letter.
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

    /// Publishes every timer that an earlier process has set too far ahead, because its clock was; at the start only,
    /// before this process sets any. A clock that is set back later does no harm: see [`Clock`].
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
        let unpublishable = self.fire(due).await?;
        fail::fail_point!("timers.after_fire", |_| std::process::abort());
        let fired = count - unpublishable.len();
        self.dead_letter(unpublishable).await?;
        Ok(fired)
    }

    async fn fire(&self, due: Vec<DueTimer>) -> Result<Vec<Unpublishable>, StoreError> {
        let commits = due.iter().map(|timer| fire(timer, timer.message.clone()));
        let outcomes = self.submit(commits.collect()).await;
        let (mut unpublishable, mut failure) = (Vec::new(), None);
        for (timer, outcome) in due.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => _ = self.metrics.timers_fired.inc(),
                Err(CommitError::Constraint { detail }) => {
                    unpublishable.push((timer, Rejection::new(detail)));
                }
                Err(CommitError::Store(error)) => failure = Some(error),
                Err(other) => failure = Some(StoreError::Unavailable(other.to_string())),
            }
        }
        failure.map_or(Ok(unpublishable), Err)
    }

    /// Publishes a dead letter in place of each.
    async fn dead_letter(&self, unpublishable: Vec<Unpublishable>) -> Result<(), StoreError> {
        if unpublishable.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        let dead_letter = |(timer, rejection): &Unpublishable| {
            tracing::error!(timer.id, message.id = timer.message.id, reason = %rejection, "a timer cannot be published");
            let letter = dead_letters::of_timer(&timer.message, rejection, now);
            fire(timer, dead_letters::message(&letter, now))
        };
        let outcomes = self
            .submit(unpublishable.iter().map(dead_letter).collect())
            .await;
        for ((timer, _), outcome) in unpublishable.iter().zip(outcomes) {
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

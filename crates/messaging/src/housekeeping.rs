//! Cleaning: what everybody has handled goes, a bounded piece at a time; what is undelivered stays.
//!
//! Messages and declared tables are cleaned until nothing old is left. The inbox has no index on the time of its marks:
//! it is walked in the order of its key, and a whole round must take a fixed part of the time that marks are kept,
//! however many there are. So the table stays in proportion to what is handled in that time. State: the walk.

use crate::{Clock, Shutdown, Store, StoreError, Table, backoff::Pace};

/// Pause between two looks.
const PAUSE_MILLIS: i64 = 1_000;
/// A piece that removed at least this many rows is followed by another at once.
const MORE_ROWS: u64 = 1_000;
/// Rounds of the walk over the inbox in the time that a mark is kept: by one part of so many the inbox is larger than
/// it must be.
const ROUNDS_PER_RETENTION: u64 = 8;

#[derive(Debug, Clone, Copy)]
pub struct CleaningSettings {
    /// How long a handled message is remembered, to know its duplicates.
    pub inbox_retention_secs: i64,
}

/// Rows of a declared table that go when they are old.
#[derive(Debug, Clone, Copy)]
pub struct Expiry {
    pub table: &'static Table,
    /// A text column that holds a [`crate::Timestamp`].
    pub column: &'static str,
    /// Rows for which this predicate, fixed in the source, holds.
    pub only: Option<&'static str>,
    pub keep_secs: i64,
}

/// What one piece of cleaning has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Rows that went.
    pub removed: u64,
    /// Marks of the inbox that were looked at.
    pub walked: u64,
    /// Whether the walk over the inbox has come to its end.
    pub is_round: bool,
}

impl Cleaned {
    pub(crate) fn walked(walked: usize, rows_max: u32) -> Self {
        Self {
            removed: 0,
            walked: walked as u64,
            is_round: walked < rows_max as usize,
        }
    }

    pub(crate) fn and_removed(self, removed: u64) -> Self {
        Self {
            removed: self.removed + removed,
            ..self
        }
    }
}

/// How fast the inbox is to be walked.
#[derive(Debug, Default)]
struct Walk {
    /// Marks that the last whole round looked at.
    last_round: u64,
    /// Marks that this round has looked at so far.
    this_round: u64,
}

impl Walk {
    fn note(&mut self, cleaned: &Cleaned) {
        self.this_round += cleaned.walked;
        if cleaned.is_round {
            self.last_round = self.this_round;
            self.this_round = 0;
        }
    }

    /// Marks to look at between two pauses.
    fn marks_per_look(&self, retention_secs: i64) -> u64 {
        let marks = self.last_round.max(self.this_round);
        let looks_per_retention =
            retention_secs.max(1).unsigned_abs() * 1_000 / PAUSE_MILLIS.unsigned_abs();
        (marks * ROUNDS_PER_RETENTION).div_ceil(looks_per_retention)
    }
}

pub struct Housekeeping {
    pub store: Store,
    pub clock: Clock,
    /// Every group that reads the bus: a message stays until all of them have passed it.
    pub groups: Vec<&'static str>,
    pub settings: CleaningSettings,
    pub expiries: Vec<Expiry>,
}

impl Housekeeping {
    /// Cleans until told to stop.
    pub async fn run(self, mut shutdown: Shutdown) {
        let mut pace = Pace::every(PAUSE_MILLIS);
        let mut walk = Walk::default();
        loop {
            let now = self.clock.now();
            let cleaned = tokio::select! {
                () = shutdown.requested() => return,
                cleaned = self.catch_up(&mut walk) => cleaned,
            };
            let pause_millis = pace.after(&cleaned);
            match cleaned {
                Ok(_) => {}
                Err(StoreError::Poisoned(_)) => return,
                Err(error) => {
                    tracing::warn!(%error, pause_millis, "cleaning waits for the store");
                }
            }
            tokio::select! {
                () = shutdown.requested() => return,
                () = self.clock.wait_until(now.plus_millis(pause_millis)) => {}
            }
        }
    }

    /// Cleans piece by piece until nothing much is left and the walk has come as far as it must. Each piece is a
    /// transaction of its own, so that commits go between them.
    async fn catch_up(&self, walk: &mut Walk) -> Result<(), StoreError> {
        let mut walked = 0;
        loop {
            let cleaned = self.piece().await?;
            walk.note(&cleaned);
            walked += cleaned.walked;
            let is_far = cleaned.is_round
                || walked >= walk.marks_per_look(self.settings.inbox_retention_secs);
            if is_far && cleaned.removed < MORE_ROWS {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    /// One bounded cleaning; returns how many rows went.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer; what does not depend on that is cleaned all the same.
    pub async fn clean(&self) -> Result<u64, StoreError> {
        Ok(self.piece().await?.removed)
    }

    async fn piece(&self) -> Result<Cleaned, StoreError> {
        let now = self.clock.now();
        let before = now.plus_secs(-self.settings.inbox_retention_secs);
        let cleaned = self.store.clean(&self.groups, before).await;
        let (mut removed, mut failure) = (0, None);
        for expiry in &self.expiries {
            let before = now.plus_secs(-expiry.keep_secs);
            match self.store.expire(expiry, before).await {
                Ok(expired) => removed += expired,
                Err(error) => failure = Some(error),
            }
        }
        let cleaned = cleaned?.and_removed(removed);
        failure.map_or(Ok(cleaned), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_of_the_walk_takes_a_fixed_part_of_the_retention_however_many_marks_there_are() {
        let retention_secs = 3_600;
        for marks in [10_000_u64, 10_000_000, 1_000_000_000] {
            let mut walk = Walk::default();
            walk.note(&Cleaned {
                walked: marks,
                is_round: true,
                removed: 0,
            });
            let looks = marks / walk.marks_per_look(retention_secs);
            assert!(looks <= 3_600 / 8, "{marks} marks take {looks} looks");
        }
    }
}

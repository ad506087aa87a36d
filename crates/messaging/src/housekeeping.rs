//! Housekeeping: removes what every group has handled, in bounded pieces; keeps what is undelivered.
//!
//! Messages and declared tables are cleaned until nothing old is left. The inbox has no index on the time of its marks:
//! it is scanned in the order of its key, and a whole round takes a fixed part of the retention, however many marks there
//! are. So its size stays in proportion to what is handled during the retention. State: the progress of the scan.

use std::collections::HashMap;

use crate::{Clock, Periodic, Schedule, Shutdown, Store, StoreError, Table, Tick, periodic};

/// Pause between two runs.
const PAUSE_MILLIS: i64 = 1_000;
/// If a piece removes at least this many rows, another follows at once.
const MORE_ROWS: u64 = 1_000;
/// Rounds of the inbox scan per retention: the inbox is larger than needed by at most one part in this many.
const ROUNDS_PER_RETENTION: u64 = 8;

#[derive(Debug, Clone, Copy)]
pub struct CleaningSettings {
    /// How long a handled message is remembered, to know its duplicates.
    pub inbox_retention_secs: i64,
}

impl Default for CleaningSettings {
    fn default() -> Self {
        Self {
            inbox_retention_secs: 8 * 86_400,
        }
    }
}

/// Rows of a declared table that are removed when they are old.
#[derive(Debug, Clone, Copy)]
pub struct RowRetention {
    pub table: &'static Table,
    /// A text column that holds a [`crate::Timestamp`].
    pub column: &'static str,
    /// Rows for which this SQL predicate holds. It is fixed in the source.
    pub only: Option<&'static str>,
    pub keep_secs: i64,
}

/// The result of one piece of cleaning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Rows removed.
    pub removed: u64,
    /// Inbox marks scanned.
    pub scanned: u64,
    /// Whether the inbox scan has reached its end.
    pub is_round: bool,
}

/// Rows that one piece of cleaning removes or scans.
pub(crate) const PIECE_ROWS_MAX: i64 = 2_000;

/// The scan of the inbox continues after this consumer and message id.
pub(crate) type InboxCursor = (String, String);

impl Cleaned {
    /// After these marks were scanned; and where the scan continues.
    pub(crate) fn scanned(marks: &[InboxCursor]) -> (Self, InboxCursor) {
        let is_round = marks.len() < PIECE_ROWS_MAX as usize;
        let last = marks.last().filter(|_| !is_round);
        let cleaned = Self {
            removed: 0,
            scanned: marks.len() as u64,
            is_round,
        };
        (cleaned, last.cloned().unwrap_or_default())
    }

    pub(crate) fn and_removed(self, removed: u64) -> Self {
        Self {
            removed: self.removed + removed,
            ..self
        }
    }
}

/// The offset that all of these groups have passed, and all others that have a position; 0 if no group runs here.
pub(crate) fn passed_by_all(positions: &HashMap<String, i64>, groups: &[&str]) -> i64 {
    let running = groups.iter().map(|group| positions.get(*group).copied());
    let running = running.map(Option::unwrap_or_default).min();
    running.map_or(0, |passed| {
        positions.values().fold(passed, |all, it| all.min(*it))
    })
}

/// Paces the inbox scan.
#[derive(Debug, Default)]
struct InboxScan {
    /// Marks in the last whole round.
    last_round: u64,
    /// Marks in this round so far.
    this_round: u64,
}

impl InboxScan {
    fn note(&mut self, cleaned: &Cleaned) {
        self.this_round += cleaned.scanned;
        if cleaned.is_round {
            self.last_round = self.this_round;
            self.this_round = 0;
        }
    }

    /// Marks to scan between two pauses.
    fn marks_per_run(&self, retention_secs: i64) -> u64 {
        let marks = self.last_round.max(self.this_round);
        let runs_per_retention =
            retention_secs.max(1).unsigned_abs() * 1_000 / PAUSE_MILLIS.unsigned_abs();
        (marks * ROUNDS_PER_RETENTION).div_ceil(runs_per_retention)
    }
}

pub struct Housekeeping {
    pub store: Store,
    pub clock: Clock,
    /// Every group that reads the bus: a message stays until all of them have handled it.
    pub groups: Vec<&'static str>,
    pub settings: CleaningSettings,
    pub retentions: Vec<RowRetention>,
}

/// Housekeeping with its place in the inbox.
struct Cleaning {
    housekeeping: Housekeeping,
    scan: InboxScan,
}

impl Periodic for Cleaning {
    fn schedule(&self) -> Schedule {
        Schedule {
            name: "housekeeping",
            interval_millis: PAUSE_MILLIS,
            is_interruptible: true,
        }
    }

    async fn tick(&mut self) -> Result<Tick, StoreError> {
        self.housekeeping.catch_up(&mut self.scan).await?;
        Ok(Tick::Done)
    }
}

impl Housekeeping {
    /// Cleans until shutdown is requested, or the store fails for good.
    pub async fn run(self, shutdown: Shutdown) {
        let (clock, scan) = (self.clock.clone(), InboxScan::default());
        let cleaning = Cleaning {
            housekeeping: self,
            scan,
        };
        periodic::run(cleaning, clock, shutdown).await;
    }

    /// Cleans piece by piece until little is left and the scan has kept its pace. Each piece is a transaction of its own,
    /// so that commits run between them.
    async fn catch_up(&self, scan: &mut InboxScan) -> Result<(), StoreError> {
        let mut scanned = 0;
        loop {
            let (cleaned, failure) = self.piece().await;
            scan.note(&cleaned);
            scanned += cleaned.scanned;
            let has_kept_pace = cleaned.is_round
                || cleaned.scanned == 0
                || scanned >= scan.marks_per_run(self.settings.inbox_retention_secs);
            if has_kept_pace && cleaned.removed < MORE_ROWS {
                return failure.map_or(Ok(()), Err);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Cleans one bounded piece; returns how many rows it removed.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot answer; cleans nevertheless what does not depend on that.
    pub async fn clean(&self) -> Result<u64, StoreError> {
        let (cleaned, failure) = self.piece().await;
        failure.map_or(Ok(cleaned.removed), Err)
    }

    /// A piece of the messages and marks, and one of each declared table. Returns the first failure; it holds up nothing
    /// else.
    async fn piece(&self) -> (Cleaned, Option<StoreError>) {
        let now = self.clock.now();
        let before = now.plus_secs(-self.settings.inbox_retention_secs);
        let (mut cleaned, mut failure) = match self.store.clean(&self.groups, before).await {
            Ok(cleaned) => (cleaned, None),
            Err(error) => (Cleaned::default(), Some(error)),
        };
        for retention in &self.retentions {
            let before = now.plus_secs(-retention.keep_secs);
            match self.store.remove_old(retention, before).await {
                Ok(rows) => cleaned = cleaned.and_removed(rows),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        (cleaned, failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_of_the_inbox_scan_takes_a_fixed_part_of_the_retention_however_many_marks_there_are()
    {
        let retention_secs = 3_600;
        for marks in [10_000_u64, 10_000_000, 1_000_000_000] {
            let mut scan = InboxScan::default();
            scan.note(&Cleaned {
                scanned: marks,
                is_round: true,
                removed: 0,
            });
            let runs = marks / scan.marks_per_run(retention_secs);
            assert!(runs <= 3_600 / 8, "{marks} marks take {runs} runs");
        }
    }
}

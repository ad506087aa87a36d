//! Cleaning: what everybody has handled goes, a bounded piece at a time; what is undelivered stays.

use crate::{Clock, Shutdown, Store, StoreError, Table};

/// Pause between two cleanings that found nothing much to do.
const PAUSE_MILLIS: i64 = 1_000;
/// A cleaning that removed at least this many rows is followed by another at once.
const MORE_ROWS: u64 = 1_000;

#[derive(Debug, Clone, Copy)]
pub struct CleaningSettings {
    /// How long a handled message is remembered, to know its duplicates.
    pub inbox_retention_secs: i64,
}

/// Rows of a declared table that go when they are old.
#[derive(Debug, Clone, Copy)]
pub struct Expiry {
    pub table: &'static Table,
    /// A text column that holds a [`contract::Timestamp`].
    pub column: &'static str,
    /// Rows for which this predicate, fixed in the source, holds.
    pub only: Option<&'static str>,
    pub keep_secs: i64,
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
        loop {
            let removed = match self.clean().await {
                Ok(removed) => removed,
                Err(StoreError::Poisoned(_)) => return,
                Err(error) => {
                    tracing::warn!(%error, "cleaning waits for the store");
                    0
                }
            };
            let pause = if removed >= MORE_ROWS {
                PAUSE_MILLIS / 10
            } else {
                PAUSE_MILLIS
            };
            tokio::select! {
                () = shutdown.requested() => return,
                () = self.clock.wait_until(self.clock.now().plus_millis(pause)) => {}
            }
        }
    }

    /// One bounded cleaning; returns how many rows went.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer.
    pub async fn clean(&self) -> Result<u64, StoreError> {
        let now = self.clock.now();
        let before = now.plus_secs(-self.settings.inbox_retention_secs);
        let mut removed = self.store.clean(&self.groups, before).await?;
        for expiry in &self.expiries {
            let before = now.plus_secs(-expiry.keep_secs);
            removed += self.store.expire(expiry, before).await?;
        }
        Ok(removed)
    }
}

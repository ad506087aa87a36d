//! A batch whose `COMMIT` was not acknowledged: only the server knows whether it was applied. If the server cannot be
//! asked in time, the submitters get [`Unresolved`], and the outcomes follow later.

use tokio::sync::oneshot;

use super::transaction::Applied;
use crate::{
    StoreError,
    commit_handle::{CommitOutcome, Unresolved},
};

pub(super) struct UnresolvedBatch {
    /// What the batch has done, if it was committed.
    pub(super) applied: Applied,
    /// The submitters that got [`Unresolved`]; one for each submission.
    waiters: Vec<oneshot::Sender<Vec<CommitOutcome>>>,
}

impl UnresolvedBatch {
    pub(super) fn new(applied: Applied) -> Self {
        Self {
            applied,
            waiters: Vec::new(),
        }
    }

    /// Answers the next submission of the batch.
    pub(super) fn add_waiter(&mut self, reason: String) -> Unresolved {
        let (waiter, resolved) = oneshot::channel();
        self.waiters.push(waiter);
        Unresolved::new(reason, resolved)
    }

    /// Whether the submitters were answered; if not, the writer still tries the batch.
    pub(super) fn has_waiters(&self) -> bool {
        !self.waiters.is_empty()
    }

    /// Sends the outcomes. A rejected commit is rejected either way.
    pub(super) fn resolve(self, was_committed: bool) {
        tracing::warn!(
            was_committed,
            "resolved a batch whose COMMIT was not acknowledged"
        );
        for (waiter, outcomes) in self.waiters.into_iter().zip(self.applied.outcomes) {
            let lost = || {
                StoreError::Unavailable(
                    "the connection was lost before the commit was applied".to_owned(),
                )
            };
            let outcome = |outcome: CommitOutcome| match outcome {
                Ok(()) if !was_committed => Err(lost().into()),
                rejected_or_applied => rejected_or_applied,
            };
            // Ignore a dropped waiter.
            let _ = waiter.send(outcomes.into_iter().map(outcome).collect());
        }
    }
}

//! A batch whose `COMMIT` got no answer: applied or not, nobody knows until the server can be asked. Its submitters
//! were told so in time, and are owed the truth.

use tokio::sync::oneshot;

use super::session::Applied;
use crate::{
    StoreError,
    receipt::{Outcome, Unresolved},
};

pub(super) struct Lost {
    /// What the batch has done, if it was committed.
    pub(super) applied: Applied,
    /// Who was told that it is not known; one for each submission.
    owed: Vec<oneshot::Sender<Vec<Outcome>>>,
}

impl Lost {
    pub(super) fn new(applied: Applied) -> Self {
        Self {
            applied,
            owed: Vec::new(),
        }
    }

    /// What the next submission of the batch is answered.
    pub(super) fn owe(&mut self, reason: String) -> Unresolved {
        let (owed, resolved) = oneshot::channel();
        self.owed.push(owed);
        Unresolved { reason, resolved }
    }

    /// Whether the submitters were told that it is not known; else the batch is still being written.
    pub(super) fn is_owed(&self) -> bool {
        !self.owed.is_empty()
    }

    /// Tells the truth. What was refused is refused either way.
    pub(super) fn tell(self, was_committed: bool) {
        tracing::warn!(was_committed, "what became of a commit is known now");
        for (owed, outcomes) in self.owed.into_iter().zip(self.applied.outcomes) {
            let lost = || StoreError::Unavailable("the connection was lost before it".to_owned());
            let truth = |outcome: Outcome| match outcome {
                Ok(()) if !was_committed => Err(lost().into()),
                told => told,
            };
            // Nobody may be left who wants to know.
            let _ = owed.send(outcomes.into_iter().map(truth).collect());
        }
    }
}

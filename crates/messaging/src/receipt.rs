//! The promise of outcomes for what was submitted.

use tokio::sync::oneshot;

use crate::{CommitError, StoreError};

/// The promise of outcomes for a submission.
pub struct Receipt {
    outcomes: Result<oneshot::Receiver<Vec<Result<(), CommitError>>>, StoreError>,
    commits: usize,
}

impl Receipt {
    pub(crate) fn waiting(
        outcomes: oneshot::Receiver<Vec<Result<(), CommitError>>>,
        commits: usize,
    ) -> Self {
        Self {
            outcomes: Ok(outcomes),
            commits,
        }
    }

    pub(crate) fn refused(error: StoreError, commits: usize) -> Self {
        Self {
            outcomes: Err(error),
            commits,
        }
    }

    /// Why nothing of the submission was taken, where that is known at once.
    #[must_use]
    pub fn refusal(&self) -> Option<&StoreError> {
        self.outcomes.as_ref().err()
    }

    /// One outcome for each commit, in order. They are durable when this returns.
    pub async fn outcomes(self) -> Vec<Result<(), CommitError>> {
        let gone = || StoreError::Poisoned("the writer has stopped".to_owned());
        match self.outcomes {
            Ok(receiver) => match receiver.await {
                Ok(outcomes) => outcomes,
                Err(_) => vec![Err(gone().into()); self.commits.max(1)],
            },
            Err(error) => vec![Err(error.into()); self.commits.max(1)],
        }
    }
}

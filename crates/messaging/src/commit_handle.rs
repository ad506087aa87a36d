//! The handle of a submission: its outcomes, once they are known. If they are not known in time, the handle returns
//! [`Unresolved`], which the true outcomes follow.

use tokio::{runtime::Handle, sync::oneshot};

use crate::{CommitError, StoreError};

/// Whether one commit was applied.
pub type CommitOutcome = Result<(), CommitError>;

/// A writer's answer to a submission: one outcome for each of its commits, or that they are not known yet.
pub type SubmissionResult = Result<Vec<CommitOutcome>, Unresolved>;

/// Commits of a transaction whose `COMMIT` was not acknowledged: applied or not, only the server knows.
#[derive(Debug)]
pub struct Unresolved {
    /// Why the outcomes are not known.
    pub reason: String,
    pub(crate) resolved: oneshot::Receiver<Vec<CommitOutcome>>,
}

impl Unresolved {
    /// `resolved` receives the outcomes, if they become known.
    #[must_use]
    pub fn new(reason: String, resolved: oneshot::Receiver<Vec<CommitOutcome>>) -> Self {
        Self { reason, resolved }
    }

    /// One outcome for each commit, once the server has been asked; `None` if the store is closed before that.
    pub async fn resolved(self) -> Option<Vec<CommitOutcome>> {
        self.resolved.await.ok()
    }
}

/// Gives the outcomes of a submission.
pub struct CommitHandle {
    answer: Result<oneshot::Receiver<SubmissionResult>, StoreError>,
    commits: usize,
}

impl CommitHandle {
    pub(crate) fn pending(answer: oneshot::Receiver<SubmissionResult>, commits: usize) -> Self {
        Self {
            answer: Ok(answer),
            commits,
        }
    }

    pub(crate) fn rejected(error: StoreError, commits: usize) -> Self {
        Self {
            answer: Err(error),
            commits,
        }
    }

    /// Why the whole submission was rejected, if it was rejected at once.
    #[must_use]
    pub fn rejection(&self) -> Option<&StoreError> {
        self.answer.as_ref().err()
    }

    /// One outcome for each commit, in order. A commit that is `Ok` is durable when this returns. If the outcomes are not
    /// known in time, each is [`StoreError::Unknown`].
    pub async fn outcomes(mut self) -> Vec<CommitOutcome> {
        let answer = self.answer().await;
        answer.unwrap_or_else(|unresolved| self.unknown(unresolved.reason))
    }

    /// As [`outcomes`](Self::outcomes); if they are not known in time, the way to await them.
    ///
    /// # Errors
    /// [`Unresolved`].
    pub async fn outcomes_or_unresolved(mut self) -> Result<Vec<CommitOutcome>, Unresolved> {
        self.answer().await
    }

    /// As [`outcomes`](Self::outcomes), and calls `settle` with the true outcomes once they are known, even if this
    /// future is dropped or returns before. Never calls it if they do not become known: nothing may be undone then.
    pub async fn settled(
        self,
        settle: impl FnOnce(&[CommitOutcome]) + Send + 'static,
    ) -> Vec<CommitOutcome> {
        let mut unsettled = SettleOnDrop(Some((self, settle)));
        let answer = match &mut unsettled.0 {
            Some((handle, _)) => handle.answer().await,
            None => Ok(Vec::new()),
        };
        let Some((handle, settle)) = unsettled.0.take() else {
            return Vec::new();
        };
        match answer {
            Ok(outcomes) => {
                settle(&outcomes);
                outcomes
            }
            Err(unresolved) => {
                let unknown = handle.unknown(unresolved.reason.clone());
                tokio::spawn(settle_when_resolved(unresolved, settle));
                unknown
            }
        }
    }

    async fn answer(&mut self) -> SubmissionResult {
        let size = self.commits.max(1);
        match &mut self.answer {
            Ok(answer) => answer.await.unwrap_or_else(|_| {
                let stopped = StoreError::Poisoned("the writer has stopped".to_owned());
                Ok(vec![Err(stopped.into()); size])
            }),
            Err(error) => Ok(vec![Err(error.clone().into()); size]),
        }
    }

    fn unknown(&self, reason: String) -> Vec<CommitOutcome> {
        vec![Err(StoreError::Unknown(reason).into()); self.commits.max(1)]
    }
}

async fn settle_when_resolved(unresolved: Unresolved, settle: impl FnOnce(&[CommitOutcome])) {
    if let Some(outcomes) = unresolved.resolved().await {
        settle(&outcomes);
    }
}

/// If the caller is dropped, a task of its own awaits the outcomes and settles them.
struct SettleOnDrop<F: FnOnce(&[CommitOutcome]) + Send + 'static>(Option<(CommitHandle, F)>);

impl<F: FnOnce(&[CommitOutcome]) + Send + 'static> Drop for SettleOnDrop<F> {
    fn drop(&mut self) {
        let Some((mut handle, settle)) = self.0.take() else {
            return;
        };
        // Outside a runtime the process ends, and its memory with it.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            match handle.answer().await {
                Ok(outcomes) => settle(&outcomes),
                Err(unresolved) => settle_when_resolved(unresolved, settle).await,
            }
        });
    }
}

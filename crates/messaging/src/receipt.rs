//! The promise of outcomes for what was submitted. An outcome that nobody knows yet is an outcome of its own, and the
//! truth follows it.

use tokio::{runtime::Handle, sync::oneshot};

use crate::{CommitError, StoreError};

/// Whether one commit was applied.
pub type Outcome = Result<(), CommitError>;

/// What a writer answers to a submission: one outcome for each of its commits, or that nobody knows yet.
pub(crate) type Answer = Result<Vec<Outcome>, Unresolved>;

/// Commits whose transaction was lost in the middle of its end: applied or not, nobody knows yet.
#[derive(Debug)]
pub struct Unresolved {
    /// Why it is not known.
    pub reason: String,
    pub(crate) resolved: oneshot::Receiver<Vec<Outcome>>,
}

impl Unresolved {
    /// One outcome for each commit, once the server says what became of them; `None` if the store is closed before.
    pub async fn resolved(self) -> Option<Vec<Outcome>> {
        self.resolved.await.ok()
    }
}

/// The promise of outcomes for a submission.
pub struct Receipt {
    answer: Result<oneshot::Receiver<Answer>, StoreError>,
    commits: usize,
}

impl Receipt {
    pub(crate) fn waiting(answer: oneshot::Receiver<Answer>, commits: usize) -> Self {
        Self {
            answer: Ok(answer),
            commits,
        }
    }

    pub(crate) fn refused(error: StoreError, commits: usize) -> Self {
        Self {
            answer: Err(error),
            commits,
        }
    }

    /// Why nothing of the submission was taken, where that is known at once.
    #[must_use]
    pub fn refusal(&self) -> Option<&StoreError> {
        self.answer.as_ref().err()
    }

    /// One outcome for each commit, in order. What is `Ok` is durable when this returns. If nobody knows in time
    /// what became of them, each is [`StoreError::Unknown`].
    pub async fn outcomes(mut self) -> Vec<Outcome> {
        let answer = self.answer().await;
        answer.unwrap_or_else(|unresolved| self.unknown(unresolved.reason))
    }

    /// As [`outcomes`](Self::outcomes), and if nobody knows in time, the promise of the truth.
    ///
    /// # Errors
    /// [`Unresolved`].
    pub async fn outcomes_or_unresolved(mut self) -> Result<Vec<Outcome>, Unresolved> {
        self.answer().await
    }

    /// As [`outcomes`](Self::outcomes), and calls `settle` with the true outcomes once they are known, though this
    /// future be dropped or return before. If they never become known, it is not called: nothing may be undone then.
    pub async fn settled(self, settle: impl FnOnce(&[Outcome]) + Send + 'static) -> Vec<Outcome> {
        let mut owed = Owed(Some((self, settle)));
        let answer = match &mut owed.0 {
            Some((receipt, _)) => receipt.answer().await,
            None => Ok(Vec::new()),
        };
        let Some((receipt, settle)) = owed.0.take() else {
            return Vec::new();
        };
        match answer {
            Ok(outcomes) => {
                settle(&outcomes);
                outcomes
            }
            Err(unresolved) => {
                let unknown = receipt.unknown(unresolved.reason.clone());
                tokio::spawn(settle_when_resolved(unresolved, settle));
                unknown
            }
        }
    }

    async fn answer(&mut self) -> Answer {
        let size = self.commits.max(1);
        match &mut self.answer {
            Ok(answer) => answer.await.unwrap_or_else(|_| {
                let gone = StoreError::Poisoned("the writer has stopped".to_owned());
                Ok(vec![Err(gone.into()); size])
            }),
            Err(error) => Ok(vec![Err(error.clone().into()); size]),
        }
    }

    fn unknown(&self, reason: String) -> Vec<Outcome> {
        vec![Err(StoreError::Unknown(reason).into()); self.commits.max(1)]
    }
}

async fn settle_when_resolved(unresolved: Unresolved, settle: impl FnOnce(&[Outcome])) {
    if let Some(outcomes) = unresolved.resolved().await {
        settle(&outcomes);
    }
}

/// A receipt whose caller may go away: what it owes is settled then by a task of its own.
struct Owed<F: FnOnce(&[Outcome]) + Send + 'static>(Option<(Receipt, F)>);

impl<F: FnOnce(&[Outcome]) + Send + 'static> Drop for Owed<F> {
    fn drop(&mut self) {
        let Some((mut receipt, settle)) = self.0.take() else {
            return;
        };
        // Outside a runtime the process ends, and what is in memory with it.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            match receipt.answer().await {
                Ok(outcomes) => settle(&outcomes),
                Err(unresolved) => settle_when_resolved(unresolved, settle).await,
            }
        });
    }
}

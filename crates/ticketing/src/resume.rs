//! Resume: an operator continues a parked saga.

use contract::SagaId;
use messaging::{CommitError, StoreError, coordinator::SagaRecord};

use crate::{Service, progress};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no saga {0}")]
    NotFound(SagaId),
    #[error("saga {0} is not parked")]
    NotParked(SagaId),
    #[error(transparent)]
    Commit(#[from] CommitError),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::Commit(error.into())
    }
}

impl Service {
    /// Sends the pending request of a parked saga again.
    ///
    /// # Errors
    /// [`Error`]; nothing was changed.
    pub async fn resume_saga(&self, saga_id: SagaId) -> Result<(), Error> {
        let saga: Option<SagaRecord> = self.0.store.load(saga_id).await?;
        let saga = saga.ok_or(Error::NotFound(saga_id))?;
        if saga.parked.is_none() {
            return Err(Error::NotParked(saga_id));
        }
        let commit = progress::resume(saga, self.0.clock.now()).map_err(StoreError::from)?;
        Ok(self.0.store.commit(commit).await?)
    }
}

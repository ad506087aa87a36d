//! Committing a decision that is taken again if another writer was first.

use crate::{Commit, CommitError, Store, Table};

impl Store {
    /// Commits; `false` if another writer changed a row of `table` since the commit was decided, so that it must be decided
    /// again.
    ///
    /// # Errors
    /// [`CommitError`], a conflict in another table included.
    pub async fn try_commit(&self, commit: Commit, table: &Table) -> Result<bool, CommitError> {
        match self.commit(commit).await {
            Ok(()) => Ok(true),
            Err(CommitError::Conflict { table: name, .. }) if name == table.name => Ok(false),
            Err(error) => Err(error),
        }
    }
}

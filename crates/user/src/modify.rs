//! Modify a user.

use contract::UserId;
use messaging::Commit;

use crate::{
    Error, Service,
    model::{Status, User, check_name},
};

/// What is said of a user whom the client has seen in `version`.
#[derive(Debug, Clone)]
pub struct ModifyInput {
    pub id: UserId,
    pub name: String,
    pub status: Status,
    /// Stays as it is, where absent: nobody is cleared of fraud by an oversight.
    pub flagged: Option<bool>,
    pub version: i64,
}

impl Service {
    /// Changes a user whom nobody has changed since the client saw it; returns it as stored.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::NotFound`]; [`Error::VersionConflict`]; [`Error::Store`]; [`Error::Commit`].
    pub async fn modify(&self, input: ModifyInput) -> Result<User, Error> {
        check_name(&input.name)?;
        let before = self.show(input.id).await?;
        if before.version != input.version {
            return Err(Error::VersionConflict {
                id: input.id,
                stored: before.version,
                expected: input.version,
            });
        }
        let mut user = User {
            name: input.name,
            status: input.status,
            flagged: input.flagged.unwrap_or(before.flagged),
            updated_at: self.0.clock.now(),
            ..before
        };
        let mut commit = Commit::new();
        commit.put(&user);
        self.0.store.commit(commit).await?;
        user.version += 1;
        Ok(user)
    }
}

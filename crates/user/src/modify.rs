//! Modify a user.

use contract::UserId;
use messaging::{Commit, Record};

use crate::{
    Error, Service,
    model::{Status, User, check_name},
};

/// Tries to commit a change while purchases change the same user.
const TRIES_MAX: u32 = 16;

/// New values for a user whom the client has read in `version`.
#[derive(Debug, Clone)]
pub struct ModifyInput {
    pub id: UserId,
    pub name: String,
    pub status: Status,
    /// Unchanged if `None`, so that an omission never clears a fraud flag.
    pub flagged: Option<bool>,
    pub version: i64,
}

impl Service {
    /// Changes a user if name, status and flag are unchanged since the client read them. Changes by purchases and points
    /// do not conflict, so a user who keeps buying can be blocked. `answer` gets the user as it will be stored, and may
    /// add to the Commit what must become durable with it; it is called for each try.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::NotFound`]; [`Error::VersionConflict`]; [`Error::Contended`]; [`Error::Store`];
    /// [`Error::Commit`].
    pub async fn modify<T>(
        &self,
        input: ModifyInput,
        answer: impl Fn(&mut Commit, &User) -> T,
    ) -> Result<T, Error> {
        check_name(&input.name)?;
        for _ in 0..TRIES_MAX {
            let mut user = self.modified(&input).await?;
            let mut commit = Commit::new();
            commit.put(&user);
            user.version += 1;
            let answer = answer(&mut commit, &user);
            if self.0.store.try_commit(commit, User::TABLE).await? {
                return Ok(answer);
            }
        }
        Err(Error::Contended)
    }

    async fn modified(&self, input: &ModifyInput) -> Result<User, Error> {
        let before = self.show(input.id).await?;
        if !before.has_unchanged_profile_since(input.version) {
            return Err(Error::VersionConflict {
                id: input.id,
                stored: before.version,
                expected: input.version,
            });
        }
        Ok(User {
            name: input.name.clone(),
            status: input.status,
            flagged: input.flagged.unwrap_or(before.flagged),
            updated_at: self.0.clock.now(),
            profile_version: before.version + 1,
            ..before
        })
    }
}

//! Modify a user.

use contract::UserId;
use messaging::Commit;

use crate::{
    Error, Service, is_users_conflict,
    model::{Status, User, check_name},
};

/// Times that a change is decided again because a purchase changed the user first.
const ROUNDS_MAX: u32 = 16;

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
    /// Changes a user whose name, status and flag nobody has changed since the client saw them. Purchases and points do
    /// not get in the way: a user who keeps buying can be blocked. `answer` may add to the Commit what must be durable
    /// with it, as often as it is decided.
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
        for _ in 0..ROUNDS_MAX {
            let mut user = self.modified(&input).await?;
            let mut commit = Commit::new();
            commit.put(&user);
            user.version += 1;
            let answer = answer(&mut commit, &user);
            match self.0.store.commit(commit).await {
                Ok(()) => return Ok(answer),
                Err(error) if is_users_conflict(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Contended)
    }

    async fn modified(&self, input: &ModifyInput) -> Result<User, Error> {
        let before = self.show(input.id).await?;
        if !before.has_profile_of(input.version) {
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

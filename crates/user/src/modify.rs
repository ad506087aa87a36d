//! Modify a user.

use contract::{UserId, text::check_name};
use messaging::{Commit, Record};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    Error, Service,
    model::{Status, User},
};

/// Tries to commit a change while purchases change the same user.
const TRIES_MAX: u32 = 16;

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = ModifyUser)]
pub struct ModifyInput {
    #[schema(schema_with = web::schema::name)]
    pub name: String,
    pub status: Status,
    /// Whether an operator marked this user as fraudulent; unchanged if absent.
    pub flagged: Option<bool>,
    /// The version that the client has read. Refused if the name, the status or the flag has changed since; changes by
    /// purchases and points raise the version too, but do not conflict.
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
        id: UserId,
        input: ModifyInput,
        answer: impl Fn(&mut Commit, &User) -> T,
    ) -> Result<T, Error> {
        check_name(&input.name)?;
        for _ in 0..TRIES_MAX {
            let mut user = self.modified(id, &input).await?;
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

    async fn modified(&self, id: UserId, input: &ModifyInput) -> Result<User, Error> {
        let before = self.show(id).await?;
        if !before.has_unchanged_profile_since(input.version) {
            return Err(Error::VersionConflict {
                id,
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

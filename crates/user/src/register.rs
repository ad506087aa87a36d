//! Register a user.

use contract::UserId;
use messaging::{Commit, Record};

use crate::{
    Error, Service, is_user_conflict, ledger,
    model::{Status, User, check_given_id, check_name},
};

/// Generated ids that are tried: a client may have registered one of them explicitly.
const ID_ATTEMPTS_MAX: u32 = 4096;
const REASON: &str = "registration";

#[derive(Debug, Clone)]
pub struct RegisterInput {
    /// `None`: generated.
    pub id: Option<UserId>,
    pub name: String,
    pub status: Status,
    /// Granted at registration.
    pub points: i64,
}

impl Service {
    /// Registers a user. `answer` gets the user as it will be stored, and may add to the Commit what must become durable
    /// with it; it is called for each try.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Exists`] if the given id is taken; [`Error::Contended`] if too many generated ids in a
    /// row are; [`Error::Store`]; [`Error::Commit`].
    pub async fn register<T>(
        &self,
        input: RegisterInput,
        answer: impl Fn(&mut Commit, &User) -> T,
    ) -> Result<T, Error> {
        check_name(&input.name)?;
        if let Some(id) = input.id {
            check_given_id(id)?;
            return match self.register_as(id, &input, &answer).await {
                Err(Error::Commit(error)) if is_user_conflict(&error) => Err(Error::Exists(id)),
                outcome => outcome,
            };
        }
        // Validate before an id is generated.
        self.new_user(UserId(0), &input)?;
        for _ in 0..ID_ATTEMPTS_MAX {
            let id = UserId(self.0.store.next_id(User::TABLE).await?);
            if self.0.store.load::<User>(id).await?.is_some() {
                continue;
            }
            match self.register_as(id, &input, &answer).await {
                Err(Error::Commit(error)) if is_user_conflict(&error) => {}
                outcome => return outcome,
            }
        }
        Err(Error::Contended)
    }

    async fn register_as<T>(
        &self,
        id: UserId,
        input: &RegisterInput,
        answer: impl Fn(&mut Commit, &User) -> T,
    ) -> Result<T, Error> {
        let (user, mut commit) = self.new_user(id, input)?;
        let stored = User {
            version: user.version + 1,
            ..user
        };
        let answer = answer(&mut commit, &stored);
        self.0.store.commit(commit).await?;
        Ok(answer)
    }

    fn new_user(&self, id: UserId, input: &RegisterInput) -> Result<(User, Commit), Error> {
        let now = self.0.clock.now();
        let user = User::new(id, input.name.clone(), input.status, now);
        if input.points == 0 {
            let mut commit = Commit::new();
            commit.put(&user);
            return Ok((user, commit));
        }
        let reason = Some(REASON.to_owned());
        let change = ledger::grant(user, input.points, reason, now)
            .map_err(|invalid| invalid.with_field("points"))?;
        let user = change.user.clone().expect("a grant changes its user");
        Ok((user, change.into_commit()))
    }
}

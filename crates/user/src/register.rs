//! Register a user.

use contract::{
    UserId,
    text::{Invalid, check_name},
};
use messaging::{Commit, Record};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    Error, Service, ledger,
    model::{Status, User, check_given_id},
};

/// Generated ids that are tried: a client may have registered one of them explicitly.
const ID_TRIES_MAX: u32 = 4096;
const REASON: &str = "registration";

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = RegisterUser)]
pub struct RegisterInput {
    /// Generated if absent.
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 1_000_000_000_000_000_i64)]
    pub id: Option<UserId>,
    #[schema(schema_with = web::schema::name)]
    pub name: String,
    #[serde(default)]
    pub status: Status,
    /// Granted at registration.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 1_000_000_000_000_000_i64)]
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
        input.id.map_or(Ok(()), check_given_id)?;
        // Validate before an id is generated.
        self.new_user(UserId(0), &input)?;
        for _ in 0..input.id.map_or(ID_TRIES_MAX, |_| 1) {
            let id = match input.id {
                Some(id) => id,
                None => UserId(self.0.store.next_id(User::TABLE).await?),
            };
            let (mut user, mut commit) = self.new_user(id, &input)?;
            user.version += 1;
            let answer = answer(&mut commit, &user);
            if self.0.store.try_commit(commit, User::TABLE).await? {
                return Ok(answer);
            }
        }
        Err(input.id.map_or(Error::Contended, Error::Exists))
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
            .map_err(|invalid| Invalid::new("points", invalid.detail))?;
        let user = change.user.clone().expect("a grant changes its user");
        Ok((user, change.into_commit()))
    }
}

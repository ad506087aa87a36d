//! Grant points to a user.

use contract::{Points, UserId};
use messaging::{Commit, Record};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{Error, Service, ledger, model::User};

/// Tries to commit a grant while purchases change the same balance.
const TRIES_MAX: u32 = 16;

#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(as = GrantPoints)]
pub struct GrantInput {
    #[schema(minimum = 1, maximum = 1_000_000_000_000_000_i64)]
    pub amount: i64,
    #[schema(schema_with = web::schema::reason)]
    pub reason: Option<String>,
}

impl Service {
    /// Grants points. `answer` gets the new balance, and may add to the Commit what must become durable with it; it is
    /// called for each try.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::NotFound`]; [`Error::Contended`]; [`Error::Store`]; [`Error::Commit`].
    pub async fn grant<T>(
        &self,
        id: UserId,
        input: GrantInput,
        answer: impl Fn(&mut Commit, Points) -> T,
    ) -> Result<T, Error> {
        for _ in 0..TRIES_MAX {
            let user = self.show(id).await?;
            let now = self.0.clock.now();
            let change = ledger::grant(user, input.amount, input.reason.clone(), now)?;
            let user = change.user.as_ref();
            let balance = user.map_or(Points::ZERO, |user| user.balance);
            let mut commit = change.into_commit();
            let answer = answer(&mut commit, balance);
            if self.0.store.try_commit(commit, User::TABLE).await? {
                return Ok(answer);
            }
        }
        Err(Error::Contended)
    }
}

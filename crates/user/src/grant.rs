//! Grant points to a user.

use contract::{Points, UserId};
use messaging::Commit;

use crate::{Error, Service, is_users_conflict, ledger};

/// Times that a grant is decided again because a purchase changed the balance first.
const ROUNDS_MAX: u32 = 16;

#[derive(Debug, Clone)]
pub struct GrantInput {
    pub id: UserId,
    pub amount: i64,
    pub reason: Option<String>,
}

impl Service {
    /// Grants points. `answer` may add to the Commit what must be durable with it; it is told of the new balance.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::NotFound`]; [`Error::Contended`]; [`Error::Store`]; [`Error::Commit`].
    pub async fn grant<T>(
        &self,
        input: GrantInput,
        answer: impl Fn(&mut Commit, Points) -> T,
    ) -> Result<T, Error> {
        for _ in 0..ROUNDS_MAX {
            let user = self.show(input.id).await?;
            let now = self.0.clock.now();
            let change = ledger::grant(user, input.amount, input.reason.clone(), now)?;
            let balance = change
                .user
                .as_ref()
                .map_or(Points::ZERO, |user| user.balance);
            let mut commit = change.into_commit();
            let answer = answer(&mut commit, balance);
            match self.0.store.commit(commit).await {
                Ok(()) => return Ok(answer),
                Err(error) if is_users_conflict(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Contended)
    }
}

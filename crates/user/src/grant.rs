//! Grant points to a user.

use contract::{Points, UserId};
use messaging::Commit;

use crate::{Error, Service, is_user_conflict, ledger};

/// Tries to commit a grant while purchases change the same balance.
const COMMIT_ATTEMPTS_MAX: u32 = 16;

#[derive(Debug, Clone)]
pub struct GrantInput {
    pub id: UserId,
    pub amount: i64,
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
        input: GrantInput,
        answer: impl Fn(&mut Commit, Points) -> T,
    ) -> Result<T, Error> {
        for _ in 0..COMMIT_ATTEMPTS_MAX {
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
                Err(error) if is_user_conflict(&error) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::Contended)
    }
}

//! Modify an event.

use contract::EventId;
use messaging::Commit;

use crate::{
    Error, Service,
    model::{Changes, Event},
    save,
};

/// New terms for an event that the client has seen in `version`.
#[derive(Debug, Clone)]
pub struct ModifyInput {
    pub id: EventId,
    pub changes: Changes,
    pub version: i64,
}

impl Service {
    /// Puts an event under new terms, where nobody has changed it since the client saw it. `answer` is given it as it
    /// will be stored, and may add to the Commit what must be durable with it.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::NotFound`]; [`Error::VersionConflict`]; [`Error::Store`]; [`Error::Commit`].
    pub async fn modify<T>(
        &self,
        input: ModifyInput,
        answer: impl FnOnce(&mut Commit, &Event) -> T,
    ) -> Result<T, Error> {
        let event = self.show(input.id).await?;
        if event.version != input.version {
            return Err(Error::VersionConflict {
                id: input.id,
                stored: event.version,
                expected: input.version,
            });
        }
        let terms = input.changes.of(&event)?;
        terms.check_change()?;
        let now = self.0.clock.now();
        let mut event = event.under(terms, now);
        let mut commit = save(&event, now);
        event.version += 1;
        let answer = answer(&mut commit, &event);
        self.0.store.commit(commit).await?;
        Ok(answer)
    }
}

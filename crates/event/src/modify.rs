//! Modify an event.

use contract::EventId;
use messaging::Commit;

use crate::{
    Error, Service,
    model::{Event, EventChanges},
    save,
};

/// Changes to an event that the client has read in `version`.
#[derive(Debug, Clone)]
pub struct ModifyInput {
    pub id: EventId,
    pub changes: EventChanges,
    pub version: i64,
}

impl Service {
    /// Changes an event if its version is still the one that the client read. `answer` gets the event as it will be
    /// stored, and may add to the Commit what must become durable with it.
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
        let details = input.changes.apply_to(&event)?;
        details.check_change()?;
        let now = self.0.clock.now();
        let mut event = event.with_details(details, now);
        let mut commit = save(&event, now);
        event.version += 1;
        let answer = answer(&mut commit, &event);
        self.0.store.commit(commit).await?;
        Ok(answer)
    }
}

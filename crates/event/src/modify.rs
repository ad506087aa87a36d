//! Modify an event.

use contract::EventId;

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
    /// Puts an event under new terms, where nobody has changed it since the client saw it; returns it as stored.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::NotFound`]; [`Error::VersionConflict`]; [`Error::Store`]; [`Error::Commit`].
    pub async fn modify(&self, input: ModifyInput) -> Result<Event, Error> {
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
        self.0.store.commit(save(&event, now)).await?;
        event.version += 1;
        Ok(event)
    }
}

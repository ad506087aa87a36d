//! Register an event.

use contract::EventId;
use messaging::{Commit, Record};

use crate::{
    Error, Service,
    model::{Event, EventDetails},
    save,
};

impl Service {
    /// Registers an event under a new id. `answer` gets the event as it will be stored, and may add to the Commit what
    /// must become durable with it. The id is taken after validation, so a refusal leaves no gap.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Store`]; [`Error::Commit`].
    pub async fn register<T>(
        &self,
        details: EventDetails,
        answer: impl FnOnce(&mut Commit, &Event) -> T,
    ) -> Result<T, Error> {
        details.check_new()?;
        let id = EventId(self.0.store.next_id(Event::TABLE).await?);
        let now = self.0.clock.now();
        let mut event = Event::new(id, details, now);
        let mut commit = save(&event, now);
        event.version += 1;
        let answer = answer(&mut commit, &event);
        self.0.store.commit(commit).await?;
        Ok(answer)
    }
}

//! Register an event.

use contract::EventId;
use messaging::{Commit, Record};

use crate::{
    Error, Service,
    model::{Event, Terms},
    save,
};

impl Service {
    /// Registers an event under an id of its own. `answer` may add to the Commit what must be durable with it.
    /// An id is drawn only for terms that can be, so a refusal leaves no gap.
    ///
    /// # Errors
    /// [`Error::Invalid`]; [`Error::Store`]; [`Error::Commit`].
    pub async fn register<T>(
        &self,
        terms: Terms,
        answer: impl FnOnce(&mut Commit, &Event) -> T,
    ) -> Result<T, Error> {
        terms.check_new()?;
        let id = EventId(self.0.store.next_id(Event::TABLE).await?);
        let now = self.0.clock.now();
        let event = Event::new(id, terms, now);
        let mut commit = save(&event, now);
        let answer = answer(&mut commit, &event);
        self.0.store.commit(commit).await?;
        Ok(answer)
    }
}

//! Read events.

use contract::EventId;
use messaging::{Find, Record};

use crate::{Error, Service, model::Event};

impl Service {
    /// One event.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Store`].
    pub async fn show(&self, id: EventId) -> Result<Event, Error> {
        self.0.store.load(id).await?.ok_or(Error::NotFound(id))
    }

    /// Events after the id `after`, in the order of their registration.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn list(&self, after: Option<EventId>, limit: u32) -> Result<Vec<Event>, Error> {
        let find = Find::all(Event::TABLE, limit).after(after);
        Ok(self.0.store.find(find).await?)
    }
}

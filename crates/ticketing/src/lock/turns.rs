//! Whose turn it is among the tasks of one process, name by name. State: a fair queue for each name that somebody
//! holds or waits for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

use super::Error;

/// Tasks of one process waiting for one lease; one more is refused.
pub const WAITERS_MAX: usize = 1024;

/// The right to ask the backend for the lease, and to hold it. The next in the queue has it when this is dropped.
pub(super) type Turn = tokio::sync::OwnedMutexGuard<()>;

type Queue = tokio::sync::Mutex<()>;

#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<String, Weak<Queue>>>);

impl Turns {
    /// Waits in the order of asking. Dropping the future leaves the queue.
    pub(super) async fn wait(&self, name: &str) -> Result<Turn, Error> {
        Ok(self.queue(name)?.lock_owned().await)
    }

    /// The turn, where nobody has it or waits for it.
    pub(super) fn try_take(&self, name: &str) -> Result<Option<Turn>, Error> {
        Ok(self.queue(name)?.try_lock_owned().ok())
    }

    fn queue(&self, name: &str) -> Result<Arc<Queue>, Error> {
        let mut queues = self.0.lock().expect("no holder of this lock panics");
        // Names in use at one moment are few; those that nobody uses any more are not kept.
        queues.retain(|_, queue| queue.strong_count() > 0);
        let Some(queue) = queues.get(name).and_then(Weak::upgrade) else {
            let queue = Arc::new(Queue::default());
            queues.insert(name.to_owned(), Arc::downgrade(&queue));
            return Ok(queue);
        };
        // Whoever holds or waits owns one count, and so does this call.
        if Arc::strong_count(&queue) > WAITERS_MAX + 1 {
            return Err(Error::Crowded {
                lease: name.to_owned(),
            });
        }
        Ok(queue)
    }
}

//! The order in which tasks of one process get a lease. State: a fair queue for each name that a task holds or waits
//! for.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

use super::Error;

/// Tasks of one process waiting for one lease; one more is refused.
pub const WAITERS_MAX: usize = 1024;

/// The right to ask the store for the lease, and to hold it. Dropping it passes it to the next in the queue.
pub(super) type QueueTurn = tokio::sync::OwnedMutexGuard<()>;

type Queue = tokio::sync::Mutex<()>;

#[derive(Default)]
pub(super) struct Queues(Mutex<HashMap<String, Weak<Queue>>>);

impl Queues {
    /// Waits in the order of the calls. Dropping the future leaves the queue.
    pub(super) async fn wait(&self, name: &str) -> Result<QueueTurn, Error> {
        Ok(self.queue(name)?.lock_owned().await)
    }

    /// The turn, if no task has it or waits for it.
    pub(super) fn try_take(&self, name: &str) -> Result<Option<QueueTurn>, Error> {
        Ok(self.queue(name)?.try_lock_owned().ok())
    }

    fn queue(&self, name: &str) -> Result<Arc<Queue>, Error> {
        let mut queues = self.0.lock().expect("no holder of this lock panics");
        // Few names are in use at one moment; unused queues are dropped.
        queues.retain(|_, queue| queue.strong_count() > 0);
        let Some(queue) = queues.get(name).and_then(Weak::upgrade) else {
            let queue = Arc::new(Queue::default());
            queues.insert(name.to_owned(), Arc::downgrade(&queue));
            return Ok(queue);
        };
        // Each holder or waiter owns one count, and so does this call.
        if Arc::strong_count(&queue) > WAITERS_MAX + 1 {
            return Err(Error::Crowded {
                lease: name.to_owned(),
            });
        }
        Ok(queue)
    }
}

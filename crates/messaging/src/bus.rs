//! The bus: consumer groups read messages in the order in which they were committed. A closed choice of backends,
//! matched here only.
//!
//! **Local:** the message table of the store is the log. A group's position is stored in the same transaction as
//! its work, so nothing is handled twice; there is nothing to acknowledge apart from it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{Message, Store, StoreError, store::Position};

/// A handle to the bus.
#[derive(Clone)]
pub enum Bus {
    /// The log of the store: of the embedded one, or of PostgreSQL with [`crate::MessageTable::Log`].
    Local(Store),
}

/// Messages in order, and the place behind the last of them.
#[derive(Debug, Clone)]
pub struct Batch {
    pub messages: Vec<Arc<Message>>,
    pub position: Position,
}

/// One consumer group's reading place.
pub struct Subscription {
    store: Store,
    group: &'static str,
    topics: &'static [&'static str],
    /// Everything up to here was looked at; ahead of the stored position where the last messages were for others.
    looked_at: i64,
    head: watch::Receiver<i64>,
}

impl Bus {
    /// Reading goes on behind what the group has handled.
    ///
    /// # Errors
    /// [`StoreError`] where the group's position cannot be read.
    pub fn subscribe(
        &self,
        group: &'static str,
        topics: &'static [&'static str],
    ) -> Result<Subscription, StoreError> {
        match self {
            Self::Local(store) => {
                let (head, looked_at) = (store.head(), store.position(group)?);
                Ok(Subscription {
                    store: store.clone(),
                    group,
                    topics,
                    looked_at,
                    head,
                })
            }
        }
    }
}

impl Subscription {
    /// Up to `max` messages that are there now; `None` where there are none.
    ///
    /// # Errors
    /// [`StoreError`] where the log cannot be read.
    pub async fn try_next(&mut self, max: usize) -> Result<Option<Batch>, StoreError> {
        loop {
            let head = *self.head.borrow_and_update();
            if self.looked_at >= head {
                return Ok(None);
            }
            let wanted = |message: &Message| message.is_for(self.group, self.topics);
            let read = self.store.read_log(self.looked_at, max, &wanted);
            let (found, looked_at) = read.await?;
            if looked_at == self.looked_at {
                return Ok(None);
            }
            self.looked_at = looked_at;
            if !found.is_empty() {
                let position = self.position();
                let messages = found.into_iter().map(|stored| stored.message).collect();
                return Ok(Some(Batch { messages, position }));
            }
        }
    }

    /// Waits until something was committed since the last look.
    pub async fn changed(&mut self) {
        // The store lives in self, so the sender does too.
        let _ = self.head.changed().await;
    }

    /// How far this group has looked: what a stored position may be moved to where nothing in between was for it.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            group: self.group.to_owned(),
            offset: self.looked_at,
        }
    }

    /// Messages on the log that this group has not looked at.
    #[must_use]
    pub fn lag(&self) -> i64 {
        (*self.head.borrow() - self.looked_at).max(0)
    }
}

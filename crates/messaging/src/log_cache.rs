//! The newest messages of the log in memory, so that a consumer that keeps up never reads them from the store.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use parking_lot::RwLock;

use crate::Message;

/// Messages kept in memory.
const CACHED_MESSAGES_MAX: usize = 32_768;

/// A message with its offset in the log.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    pub offset: i64,
    pub message: Arc<Message>,
}

pub(crate) struct LogCache {
    state: RwLock<State>,
}

struct State {
    /// Every message after this offset is in `messages`.
    from: i64,
    messages: VecDeque<StoredMessage>,
}

impl LogCache {
    pub(crate) fn new(head: i64) -> Self {
        Self {
            state: RwLock::new(State {
                from: head,
                messages: VecDeque::new(),
            }),
        }
    }

    /// Empties the cache; the next message comes after this offset.
    pub(crate) fn start_at(&self, head: i64) {
        let mut state = self.state.write();
        *state = State {
            from: head,
            messages: VecDeque::new(),
        };
    }

    pub(crate) fn append(&self, committed: Vec<StoredMessage>) {
        let mut state = self.state.write();
        state.messages.extend(committed);
        while state.messages.len() > CACHED_MESSAGES_MAX {
            if let Some(oldest) = state.messages.pop_front() {
                state.from = oldest.offset;
            }
        }
    }

    /// `None` if some messages after `offset` are not cached.
    pub(crate) fn read(
        &self,
        offset: i64,
        max: usize,
        wanted: &dyn Fn(&Message) -> bool,
    ) -> Option<(Vec<StoredMessage>, i64)> {
        let state = self.state.read();
        if offset < state.from {
            return None;
        }
        let is_before = |stored: &StoredMessage| stored.offset <= offset;
        let start = state.messages.partition_point(is_before);
        let messages = state.messages.range(start..).cloned();
        let Ok(found) = select(messages.map(Ok::<_, Infallible>), offset, max, wanted);
        Some(found)
    }
}

/// At most `max` of these messages that are `wanted`, and the offset up to which this has looked. `messages` begin after
/// `offset`.
pub(crate) fn select<E>(
    messages: impl IntoIterator<Item = Result<StoredMessage, E>>,
    offset: i64,
    max: usize,
    wanted: &dyn Fn(&Message) -> bool,
) -> Result<(Vec<StoredMessage>, i64), E> {
    let (mut found, mut looked_at) = (Vec::new(), offset);
    let mut messages = messages.into_iter();
    while found.len() < max
        && let Some(stored) = messages.next().transpose()?
    {
        looked_at = stored.offset;
        if wanted(&stored.message) {
            found.push(stored);
        }
    }
    Ok((found, looked_at))
}

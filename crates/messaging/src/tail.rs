//! The newest messages of the log, in memory: a consumer that keeps up never reads them from the file.

use std::{
    collections::VecDeque,
    sync::{Arc, RwLock},
};

use crate::Message;

/// Messages kept in memory.
const TAIL_MESSAGES_MAX: usize = 32_768;

/// A message with its place in the log.
#[derive(Debug, Clone)]
pub struct Stored {
    pub offset: i64,
    pub message: Arc<Message>,
}

pub(crate) struct Tail {
    state: RwLock<State>,
}

struct State {
    /// Every message behind this offset is in `messages`.
    from: i64,
    messages: VecDeque<Stored>,
}

impl Tail {
    pub(crate) fn new(head: i64) -> Self {
        Self {
            state: RwLock::new(State {
                from: head,
                messages: VecDeque::new(),
            }),
        }
    }

    /// Forgets everything and begins behind this offset.
    pub(crate) fn start_at(&self, head: i64) {
        let mut state = self.state.write().expect("no holder of this lock panics");
        *state = State {
            from: head,
            messages: VecDeque::new(),
        };
    }

    pub(crate) fn append(&self, committed: Vec<Stored>) {
        let mut state = self.state.write().expect("no holder of this lock panics");
        state.messages.extend(committed);
        while state.messages.len() > TAIL_MESSAGES_MAX {
            if let Some(oldest) = state.messages.pop_front() {
                state.from = oldest.offset;
            }
        }
    }

    /// `None` where the messages after `offset` are no longer all here.
    pub(crate) fn read(
        &self,
        offset: i64,
        max: usize,
        wanted: &dyn Fn(&Message) -> bool,
    ) -> Option<(Vec<Stored>, i64)> {
        let state = self.state.read().expect("no holder of this lock panics");
        if offset < state.from {
            return None;
        }
        let mut looked_at = offset;
        let mut found = Vec::new();
        let start = state
            .messages
            .partition_point(|stored| stored.offset <= offset);
        for stored in state.messages.range(start..) {
            if found.len() == max {
                break;
            }
            looked_at = stored.offset;
            if wanted(&stored.message) {
                found.push(stored.clone());
            }
        }
        Some((found, looked_at))
    }
}

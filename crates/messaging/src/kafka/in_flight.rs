//! What one process has sent and has no answer to, and what became of the rest. A producer that failed is replaced by
//! another: answers carry the number of theirs, and a failure that an earlier one tells of is of no concern any more,
//! because everything that had no answer was taken back with it. State: the rows under way.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::producer::{Delivery, Refusal};
use crate::tail::Stored;

/// Sends that may wait for their acknowledgement.
const WINDOW_MESSAGES: usize = 8_192;

#[derive(Default)]
pub(super) struct InFlight {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Of the producer that sends now.
    generation: u64,
    unanswered: HashMap<i64, Stored>,
    /// The brokers have them; their rows are not deleted yet.
    acknowledged: HashSet<i64>,
    failed: Vec<(Stored, Refusal)>,
    /// When the first of those under way was sent, or the last answer came.
    moved_at: Option<Instant>,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    /// Counts a row as sent, from before it is.
    pub(super) fn add(&self, stored: &Stored) {
        let mut state = self.lock();
        if state.unanswered.is_empty() {
            state.moved_at = Some(Instant::now());
        }
        state.unanswered.insert(stored.offset, stored.clone());
    }

    /// It was not sent after all.
    pub(super) fn remove(&self, offset: i64) {
        self.lock().unanswered.remove(&offset);
    }

    /// Takes answers in; returns what the brokers have.
    pub(super) fn answer(&self, deliveries: impl Iterator<Item = Delivery>) -> Vec<i64> {
        let mut state = self.lock();
        let mut acknowledged = Vec::new();
        for Delivery {
            generation,
            offset,
            outcome,
        } in deliveries
        {
            match outcome {
                Ok(()) => {
                    state.unanswered.remove(&offset);
                    state.acknowledged.insert(offset);
                    acknowledged.push(offset);
                }
                Err(refusal) if generation == state.generation => {
                    if let Some(stored) = state.unanswered.remove(&offset) {
                        state.failed.push((stored, refusal));
                    }
                }
                // It was taken back, and perhaps sent again.
                Err(_) => {}
            }
        }
        state.moved_at = Some(Instant::now());
        drop(state);
        self.changed.notify_one();
        acknowledged
    }

    /// Rows that are gone from the table.
    pub(super) fn deleted(&self, offsets: &[i64]) {
        let mut state = self.lock();
        for offset in offsets {
            state.acknowledged.remove(offset);
        }
    }

    /// Rows of the table that need not be waited for.
    pub(super) fn own(&self) -> HashSet<i64> {
        let state = self.lock();
        let unanswered = state.unanswered.keys().copied();
        unanswered
            .chain(state.acknowledged.iter().copied())
            .collect()
    }

    /// Whether everything that was sent is answered.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().unanswered.is_empty()
    }

    /// Whether a send failed, or nothing was answered for so long.
    pub(super) fn has_failed(&self, patience: Duration) -> bool {
        let state = self.lock();
        let is_stale = state.moved_at.is_some_and(|at| at.elapsed() >= patience);
        !state.failed.is_empty() || (is_stale && !state.unanswered.is_empty())
    }

    /// Waits until one more may be sent: not where a send failed.
    pub(super) async fn room(&self, patience: Duration) -> bool {
        loop {
            let changed = self.changed.notified();
            if self.has_failed(patience) {
                return false;
            }
            if self.lock().unanswered.len() < WINDOW_MESSAGES {
                return true;
            }
            // Woken by an answer; where none comes, to see that none came.
            let _ = tokio::time::timeout(patience, changed).await;
        }
    }

    /// Waits until a send has failed, or nothing was answered for so long.
    pub(super) async fn failure(&self, patience: Duration) {
        loop {
            let changed = self.changed.notified();
            if self.has_failed(patience) {
                return;
            }
            let _ = tokio::time::timeout(patience, changed).await;
        }
    }

    /// Everything that failed, and everything that has no answer: another producer sends from now on, and this is its
    /// number.
    pub(super) fn take_back(&self) -> (u64, Vec<(Stored, Refusal)>) {
        let mut state = self.lock();
        state.generation += 1;
        let mut all = std::mem::take(&mut state.failed);
        let unanswered = state.unanswered.drain().map(|(_, stored)| stored);
        all.extend(unanswered.map(|stored| (stored, Refusal::Passing("no answer".to_owned()))));
        (state.generation, all)
    }
}

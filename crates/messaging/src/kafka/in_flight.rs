//! The sends that are in flight. A producer that failed is replaced by one of the next generation, which sends again what
//! was in flight: a failure that an earlier generation reports later is ignored. State: the rows in flight.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::Notify, time::Instant};

use super::producer::{Delivery, SendError};
use crate::log_cache::StoredMessage;

/// Sends in flight.
const WINDOW_MESSAGES: usize = 8_192;

#[derive(Default)]
pub(super) struct InFlight {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    /// Of the current producer.
    generation: u64,
    in_flight: HashMap<i64, StoredMessage>,
    /// Acknowledged by the brokers, and not yet deleted from the outbox.
    acknowledged: HashSet<i64>,
    failed: Vec<(StoredMessage, SendError)>,
    /// When the oldest send in flight was started, or the last delivery was reported.
    progress_at: Option<Instant>,
}

impl InFlight {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Must be called before the row is sent: its delivery may be reported before the send returns.
    pub(super) fn add(&self, stored: &StoredMessage) {
        let mut state = self.lock();
        if state.in_flight.is_empty() {
            state.progress_at = Some(Instant::now());
        }
        state.in_flight.insert(stored.offset, stored.clone());
    }

    /// The row was not sent.
    pub(super) fn remove(&self, offset: i64) {
        self.lock().in_flight.remove(&offset);
    }

    /// Records deliveries; returns the acknowledged rows.
    pub(super) fn record(&self, deliveries: impl Iterator<Item = Delivery>) -> Vec<i64> {
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
                    state.in_flight.remove(&offset);
                    state.acknowledged.insert(offset);
                    acknowledged.push(offset);
                }
                Err(error) if generation == state.generation => {
                    if let Some(stored) = state.in_flight.remove(&offset) {
                        state.failed.push((stored, error));
                    }
                }
                // The current generation sends it.
                Err(_) => {}
            }
        }
        state.progress_at = Some(Instant::now());
        drop(state);
        self.changed.notify_one();
        acknowledged
    }

    /// These rows are deleted from the outbox.
    pub(super) fn deleted(&self, offsets: &[i64]) {
        let mut state = self.lock();
        for offset in offsets {
            state.acknowledged.remove(offset);
        }
    }

    /// Rows that this process has sent.
    pub(super) fn sent(&self) -> HashSet<i64> {
        let state = self.lock();
        let in_flight = state.in_flight.keys().copied();
        in_flight
            .chain(state.acknowledged.iter().copied())
            .collect()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lock().in_flight.is_empty()
    }

    /// Whether a send failed, or no delivery was reported for this time.
    pub(super) fn has_failed(&self, timeout: Duration) -> bool {
        let state = self.lock();
        let is_stale = state.progress_at.is_some_and(|at| at.elapsed() >= timeout);
        !state.failed.is_empty() || (is_stale && !state.in_flight.is_empty())
    }

    /// Waits until one more row may be sent; `false` if a send failed.
    pub(super) async fn has_capacity(&self, timeout: Duration) -> bool {
        loop {
            let changed = self.changed.notified();
            if self.has_failed(timeout) {
                return false;
            }
            if self.lock().in_flight.len() < WINDOW_MESSAGES {
                return true;
            }
            // A delivery wakes it, or the time is over and the sends have failed.
            let _ = tokio::time::timeout(timeout, changed).await;
        }
    }

    /// Waits until a send failed, or no delivery was reported for this time.
    pub(super) async fn failure(&self, timeout: Duration) {
        loop {
            let changed = self.changed.notified();
            if self.has_failed(timeout) {
                return;
            }
            let _ = tokio::time::timeout(timeout, changed).await;
        }
    }

    /// Starts the next generation: returns it, and all rows that failed or are in flight.
    pub(super) fn next_generation(&self) -> (u64, Vec<(StoredMessage, SendError)>) {
        let mut state = self.lock();
        state.generation += 1;
        let mut all = std::mem::take(&mut state.failed);
        let in_flight = state.in_flight.drain().map(|(_, stored)| stored);
        all.extend(in_flight.map(|stored| {
            (
                stored,
                SendError::Transient("no acknowledgement".to_owned()),
            )
        }));
        (state.generation, all)
    }
}

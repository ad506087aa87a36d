//! When to ask the gateway again about what it left open. In memory only: after a restart everything is due at once.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, MutexGuard},
};

use contract::Timestamp;
use messaging::{BackoffPolicy, Random};

/// An entry that is overdue by this much was settled by another process, and is forgotten.
const OVERDUE_MILLIS_MAX: i64 = 600_000;

/// The next try for each key.
#[derive(Debug)]
pub struct Retries<K> {
    backoff: BackoffPolicy,
    states: Mutex<HashMap<K, RetryState>>,
}

#[derive(Debug, Clone, Copy)]
struct RetryState {
    tries: u32,
    /// How often the request that moves money was repeated.
    repeats: u32,
    not_before: Timestamp,
    /// When the request that moves money was last sent, or ended with an unknown outcome.
    unknown_at: Option<Timestamp>,
}

impl RetryState {
    fn due_at(not_before: Timestamp) -> Self {
        Self {
            tries: 0,
            repeats: 0,
            not_before,
            unknown_at: None,
        }
    }
}

impl<K: Eq + Hash + Clone> Retries<K> {
    #[must_use]
    pub fn new(backoff: BackoffPolicy) -> Self {
        Self {
            backoff,
            states: Mutex::default(),
        }
    }

    /// Whether the next try is due; `None` if nothing was tried so far.
    pub fn is_due(&self, key: &K, now: Timestamp) -> Option<bool> {
        let state = self.lock().get(key).copied()?;
        Some(now >= state.not_before)
    }

    /// Tries without a result.
    pub fn tries(&self, key: &K) -> u32 {
        self.lock().get(key).map_or(0, |state| state.tries)
    }

    /// How often the request that moves money was repeated.
    pub fn repeats(&self, key: &K) -> u32 {
        self.lock().get(key).map_or(0, |state| state.repeats)
    }

    /// The request that moves money is repeated now.
    pub fn count_repeat(&self, key: &K, now: Timestamp) {
        self.update(key, now, |state| {
            state.repeats = state.repeats.saturating_add(1);
            state.unknown_at = Some(now);
        });
    }

    /// A refund was requested, and its outcome is unknown.
    pub fn note_unknown(&self, key: &K, now: Timestamp) {
        self.update(key, now, |state| state.unknown_at = Some(now));
    }

    pub fn unknown_at(&self, key: &K) -> Option<Timestamp> {
        self.lock().get(key).and_then(|state| state.unknown_at)
    }

    /// Makes the first try due at once.
    pub fn retry_now(&self, key: &K, now: Timestamp) {
        self.lock().insert(key.clone(), RetryState::due_at(now));
    }

    /// Counts a try without a result; the next one is due at `not_before`.
    pub fn retry_at(&self, key: &K, not_before: Timestamp) {
        self.update(key, not_before, |state| {
            state.tries = state.tries.saturating_add(1);
            state.not_before = not_before;
        });
    }

    /// Counts a try without a result; the next one is due after the backoff.
    pub fn retry_later(&self, key: &K, random: &Random, now: Timestamp) {
        let wait = self.backoff.jittered_millis(self.tries(key), random);
        let wait = i64::try_from(wait).unwrap_or(i64::MAX);
        self.retry_at(key, now.plus_millis(wait));
    }

    /// The next try is not due before `at`.
    pub fn not_before(&self, key: &K, at: Timestamp) {
        self.update(key, at, |state| {
            state.not_before = state.not_before.max(at);
        });
    }

    pub fn forget(&self, key: &K) {
        self.lock().remove(key);
    }

    /// Forgets what another process has settled.
    pub fn forget_stale(&self, now: Timestamp) {
        self.lock()
            .retain(|_, state| now.millis_since(state.not_before) < OVERDUE_MILLIS_MAX);
    }

    fn update(&self, key: &K, due_at: Timestamp, change: impl FnOnce(&mut RetryState)) {
        let mut states = self.lock();
        change(
            states
                .entry(key.clone())
                .or_insert(RetryState::due_at(due_at)),
        );
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, RetryState>> {
        self.states.lock().expect("no holder of this lock panics")
    }
}

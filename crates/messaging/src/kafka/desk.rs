//! Where a group's polling thread and its worker meet: what has arrived, what is in hand, what is handled. Pure but
//! for its lock.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, atomic::AtomicI64},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::Message;

/// A partition, as the brokers call it.
pub(super) type Place = (Arc<str>, i32);

/// Everything of a partition before this offset is handled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub(super) place: Place,
    pub(super) next: i64,
    /// Which assignment of the partition this belongs to: what comes after it was taken away counts for nothing.
    pub(super) assignment: u64,
}

pub(super) struct Arrived {
    pub(super) place: Place,
    pub(super) offset: i64,
    /// `None` where it is for another group.
    pub(super) message: Option<Arc<Message>>,
}

pub(super) struct Desk {
    state: Mutex<State>,
    handled: Condvar,
    pub(super) arrived: Notify,
    pub(super) lag: AtomicI64,
}

struct State {
    assignments: HashMap<Place, u64>,
    last_assignment: u64,
    waiting: VecDeque<(u64, Arrived)>,
    in_hand: Vec<Mark>,
    /// What the brokers are still to confirm.
    untold: HashMap<Place, Mark>,
    /// When the batch in hand was last tried.
    tried_at: Option<Instant>,
    polled_at: Instant,
    stopping: bool,
    ended: bool,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                assignments: HashMap::new(),
                last_assignment: 0,
                waiting: VecDeque::new(),
                in_hand: Vec::new(),
                untold: HashMap::new(),
                tried_at: None,
                polled_at: Instant::now(),
                stopping: false,
                ended: false,
            }),
            handled: Condvar::new(),
            arrived: Notify::new(),
            lag: AtomicI64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    // ---- the worker's side

    /// Up to `max` messages in their order, and how far each of their partitions is with them.
    pub(super) fn take(&self, max: usize) -> Option<(Vec<Arc<Message>>, Vec<Mark>)> {
        let mut state = self.lock();
        let mut messages = Vec::new();
        let mut marks: HashMap<Place, Mark> = HashMap::new();
        while messages.len() < max
            && let Some((assignment, arrived)) = state.waiting.pop_front()
        {
            let next = arrived.offset + 1;
            let mark = Mark {
                place: arrived.place.clone(),
                next,
                assignment,
            };
            marks.insert(arrived.place, mark);
            messages.extend(arrived.message);
        }
        if marks.is_empty() {
            return None;
        }
        let marks: Vec<Mark> = marks.into_values().collect();
        state.in_hand.clone_from(&marks);
        state.tried_at = Some(Instant::now());
        Some((messages, marks))
    }

    /// The batch in hand is tried once more.
    pub(super) fn trying(&self) {
        let mut state = self.lock();
        if state.tried_at.is_some() {
            state.tried_at = Some(Instant::now());
        }
    }

    /// The batch in hand is committed.
    pub(super) fn acknowledge(&self, marks: &[Mark]) {
        let mut state = self.lock();
        state.in_hand.clear();
        state.tried_at = None;
        for mark in marks {
            // Batches of one partition come in order.
            state.untold.insert(mark.place.clone(), mark.clone());
        }
        drop(state);
        self.handled.notify_all();
    }

    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.handled.notify_all();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    // ---- the polling thread's side

    /// Says that the thread lives; whether it is to go on.
    pub(super) fn polled(&self) -> bool {
        let mut state = self.lock();
        state.polled_at = Instant::now();
        !state.stopping
    }

    pub(super) fn ended(&self) {
        self.lock().ended = true;
        self.arrived.notify_one();
    }

    /// Puts a message down; returns how many wait.
    pub(super) fn put(&self, arrived: Arrived) -> usize {
        let mut state = self.lock();
        // What was fetched before its partition was taken away comes again, to whoever has it now.
        if let Some(assignment) = state.assignments.get(&arrived.place).copied() {
            state.waiting.push_back((assignment, arrived));
            self.arrived.notify_one();
        }
        state.waiting.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// What was handled and the brokers have not confirmed, of partitions that are still assigned.
    pub(super) fn untold(&self) -> Vec<Mark> {
        let mut state = self.lock();
        let state = &mut *state;
        let assignments = &state.assignments;
        state
            .untold
            .retain(|place, mark| assignments.get(place) == Some(&mark.assignment));
        state.untold.values().cloned().collect()
    }

    /// The brokers know that everything before this is handled.
    pub(super) fn told(&self, place: &Place, next: i64) {
        let mut state = self.lock();
        if state
            .untold
            .get(place)
            .is_some_and(|mark| mark.next <= next)
        {
            state.untold.remove(place);
        }
    }

    pub(super) fn assign(&self, places: Vec<Place>) {
        let mut state = self.lock();
        for place in places {
            state.last_assignment += 1;
            let assignment = state.last_assignment;
            state.assignments.insert(place, assignment);
        }
    }

    /// What waits of these partitions is dropped, and a batch in hand with some of theirs is waited for.
    pub(super) fn finish(&self, places: &[Place], patience: Duration) -> bool {
        let mut state = self.lock();
        state
            .waiting
            .retain(|(_, arrived)| !places.contains(&arrived.place));
        let concerned = |state: &mut State| {
            !state.stopping
                && state
                    .in_hand
                    .iter()
                    .any(|mark| places.contains(&mark.place))
        };
        let waited = self.handled.wait_timeout_while(state, patience, concerned);
        let (_state, timeout) = waited.expect("no holder of this lock panics");
        !timeout.timed_out()
    }

    pub(super) fn revoke(&self, places: &[Place]) {
        let mut state = self.lock();
        for place in places {
            state.assignments.remove(place);
        }
    }

    /// Why this group stands still, where it does.
    pub(super) fn stall(&self, after: Duration) -> Option<&'static str> {
        let state = self.lock();
        if state.ended || state.stopping {
            return None;
        }
        if state.polled_at.elapsed() > after {
            return Some("its consumer does not poll");
        }
        let tried = state.tried_at?;
        (tried.elapsed() > after).then_some("a batch in hand is not tried any more")
    }
}

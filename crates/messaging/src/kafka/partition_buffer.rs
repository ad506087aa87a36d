//! The buffer between a group's polling thread and its worker, and the offsets of both sides. State: fetched records,
//! the batch in progress, and offsets that are processed but not committed to the brokers.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::AtomicI64},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::Message;

pub(super) type TopicPartition = (Arc<str>, i32);

/// A position in a partition: every record before `next` is processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionOffset {
    pub(super) partition: TopicPartition,
    pub(super) next: i64,
    /// The assignment during which the records were fetched. Once the partition is revoked, this offset is discarded.
    pub(super) assignment: u64,
}

pub(super) struct BufferedRecord {
    pub(super) partition: TopicPartition,
    pub(super) offset: i64,
    /// `None` if the record is for another group: only its offset counts.
    pub(super) message: Option<Arc<Message>>,
}

pub(super) struct PartitionBuffer {
    state: Mutex<State>,
    batch_done: Condvar,
    pub(super) changed: Notify,
    pub(super) lag: AtomicI64,
}

struct State {
    assignments: HashMap<TopicPartition, u64>,
    last_assignment: u64,
    queue: VecDeque<(u64, BufferedRecord)>,
    in_progress: Vec<PartitionOffset>,
    /// Processed, and not yet confirmed by the brokers.
    uncommitted: HashMap<TopicPartition, PartitionOffset>,
    /// The last attempt at the batch in progress.
    attempted_at: Option<Instant>,
    polled_at: Instant,
    stopping: bool,
    ended: bool,
}

impl PartitionBuffer {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                assignments: HashMap::new(),
                last_assignment: 0,
                queue: VecDeque::new(),
                in_progress: Vec::new(),
                uncommitted: HashMap::new(),
                attempted_at: None,
                polled_at: Instant::now(),
                stopping: false,
                ended: false,
            }),
            batch_done: Condvar::new(),
            changed: Notify::new(),
            lag: AtomicI64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    // ---- called by the worker

    /// Up to `max` messages in order, and the offset of each of their partitions after them.
    pub(super) fn take(&self, max: usize) -> Option<(Vec<Arc<Message>>, Vec<PartitionOffset>)> {
        let mut state = self.lock();
        let mut messages = Vec::new();
        let mut offsets: HashMap<TopicPartition, PartitionOffset> = HashMap::new();
        while messages.len() < max
            && let Some((assignment, record)) = state.queue.pop_front()
        {
            let offset = PartitionOffset {
                partition: record.partition.clone(),
                next: record.offset + 1,
                assignment,
            };
            offsets.insert(record.partition, offset);
            messages.extend(record.message);
        }
        if offsets.is_empty() {
            return None;
        }
        let offsets: Vec<PartitionOffset> = offsets.into_values().collect();
        state.in_progress.clone_from(&offsets);
        state.attempted_at = Some(Instant::now());
        Some((messages, offsets))
    }

    /// Resets the stall timer of the batch in progress.
    pub(super) fn record_attempt(&self) {
        let mut state = self.lock();
        if state.attempted_at.is_some() {
            state.attempted_at = Some(Instant::now());
        }
    }

    /// Ends the batch in progress: the store has committed it.
    pub(super) fn acknowledge(&self, offsets: &[PartitionOffset]) {
        let mut state = self.lock();
        state.in_progress.clear();
        state.attempted_at = None;
        for offset in offsets {
            // Batches of a partition are acknowledged in order, so the newer offset is the higher one.
            state
                .uncommitted
                .insert(offset.partition.clone(), offset.clone());
        }
        drop(state);
        self.batch_done.notify_all();
    }

    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.batch_done.notify_all();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.lock().ended
    }

    // ---- called by the polling thread

    /// Resets the stall timer of the thread; returns whether it shall continue.
    pub(super) fn record_poll(&self) -> bool {
        let mut state = self.lock();
        state.polled_at = Instant::now();
        !state.stopping
    }

    pub(super) fn set_ended(&self) {
        self.lock().ended = true;
        self.changed.notify_one();
    }

    /// Adds a record; returns the length of the queue.
    pub(super) fn push(&self, record: BufferedRecord) -> usize {
        let mut state = self.lock();
        // A record of a revoked partition is dropped: the partition's new owner fetches it again.
        if let Some(assignment) = state.assignments.get(&record.partition).copied() {
            state.queue.push_back((assignment, record));
            self.changed.notify_one();
        }
        state.queue.len()
    }

    pub(super) fn queue_len(&self) -> usize {
        self.lock().queue.len()
    }

    /// The uncommitted offsets of partitions that are still assigned.
    pub(super) fn uncommitted(&self) -> Vec<PartitionOffset> {
        let mut state = self.lock();
        let state = &mut *state;
        let assignments = &state.assignments;
        state
            .uncommitted
            .retain(|partition, offset| assignments.get(partition) == Some(&offset.assignment));
        state.uncommitted.values().cloned().collect()
    }

    /// The brokers have committed this offset.
    pub(super) fn set_committed(&self, partition: &TopicPartition, next: i64) {
        let mut state = self.lock();
        if state
            .uncommitted
            .get(partition)
            .is_some_and(|offset| offset.next <= next)
        {
            state.uncommitted.remove(partition);
        }
    }

    pub(super) fn assign(&self, partitions: Vec<TopicPartition>) {
        let mut state = self.lock();
        for partition in partitions {
            state.last_assignment += 1;
            let assignment = state.last_assignment;
            state.assignments.insert(partition, assignment);
        }
    }

    /// Drops the queued records of these partitions, and waits for a batch in progress that contains others of them;
    /// returns whether it finished in time.
    pub(super) fn drain(&self, partitions: &[TopicPartition], timeout: Duration) -> bool {
        let mut state = self.lock();
        state
            .queue
            .retain(|(_, record)| !partitions.contains(&record.partition));
        let is_in_progress = |state: &mut State| {
            !state.stopping
                && state
                    .in_progress
                    .iter()
                    .any(|offset| partitions.contains(&offset.partition))
        };
        let waited = self
            .batch_done
            .wait_while_for(&mut state, is_in_progress, timeout);
        !waited.timed_out()
    }

    pub(super) fn revoke(&self, partitions: &[TopicPartition]) {
        let mut state = self.lock();
        for partition in partitions {
            state.assignments.remove(partition);
        }
    }

    /// Why this group makes no progress; `None` if it does.
    pub(super) fn stall_reason(&self, after: Duration) -> Option<&'static str> {
        let state = self.lock();
        if state.ended || state.stopping {
            return None;
        }
        if state.polled_at.elapsed() > after {
            return Some("its consumer does not poll");
        }
        let attempted = state.attempted_at?;
        (attempted.elapsed() > after).then_some("its batch in progress is not retried")
    }
}

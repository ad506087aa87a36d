//! What the writer shares with the store's handle: the log in memory, the groups' positions, and the store's health.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use tokio::sync::watch;

use crate::{
    StoreError,
    log_cache::{LogCache, StoredMessage},
};

pub(super) struct SharedState {
    pub(super) log_cache: LogCache,
    pub(super) committed: watch::Sender<i64>,
    /// The offset of the last message that this process committed.
    pub(super) published: watch::Sender<i64>,
    pub(super) failure: watch::Sender<Option<String>>,
    /// Why the server is unreachable; `None` while it is not.
    unreachable: Mutex<Option<String>>,
    /// The position of each group. Only this process reads the log, so that these equal the stored ones.
    positions: Mutex<HashMap<String, i64>>,
}

impl SharedState {
    pub(super) fn new() -> Self {
        Self {
            log_cache: LogCache::new(0),
            committed: watch::Sender::new(0),
            published: watch::Sender::new(0),
            failure: watch::Sender::new(None),
            unreachable: Mutex::default(),
            positions: Mutex::default(),
        }
    }

    pub(super) fn set_positions(&self, positions: HashMap<String, i64>) {
        *self
            .positions
            .lock()
            .expect("no holder of this lock panics") = positions;
    }

    pub(super) fn start_at(&self, head: i64) {
        self.log_cache.start_at(head);
        self.published.send_replace(head);
    }

    pub(super) fn head(&self) -> i64 {
        *self.published.borrow()
    }

    pub(super) fn position(&self, group: &str) -> i64 {
        let positions = self
            .positions
            .lock()
            .expect("no holder of this lock panics");
        positions.get(group).copied().unwrap_or(0)
    }

    /// Publishes what a transaction committed: first the messages, then the notification.
    pub(super) fn take_effect(&self, published: Vec<StoredMessage>, moved: BTreeMap<String, i64>) {
        if !moved.is_empty() {
            let mut positions = self
                .positions
                .lock()
                .expect("no holder of this lock panics");
            for (group, offset) in moved {
                let position = positions.entry(group).or_insert(0);
                *position = offset.max(*position);
            }
        }
        if let Some(last) = published.last().map(|stored| stored.offset) {
            self.log_cache.append(published);
            self.published.send_replace(last);
        }
        self.committed.send_modify(|commits| *commits += 1);
    }

    pub(super) fn set_unreachable(&self, reason: &str) {
        let mut unreachable = self
            .unreachable
            .lock()
            .expect("no holder of this lock panics");
        if unreachable.is_none() {
            tracing::warn!(reason, "PostgreSQL cannot be reached; commits wait");
        }
        *unreachable = Some(reason.to_owned());
    }

    pub(super) fn set_reachable(&self) {
        let mut unreachable = self
            .unreachable
            .lock()
            .expect("no holder of this lock panics");
        if unreachable.take().is_some() {
            tracing::info!("PostgreSQL can be reached again");
        }
    }

    pub(super) fn poison(&self, reason: &str) -> StoreError {
        tracing::error!(reason, "the store has failed; stop the process");
        self.failure.send_replace(Some(reason.to_owned()));
        StoreError::Poisoned(reason.to_owned())
    }

    /// Fails if the store has failed for good.
    pub(super) fn check_failure(&self) -> Result<(), StoreError> {
        match self.failure.borrow().as_ref() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Poisoned(reason.clone())),
        }
    }

    /// Fails if the store cannot commit now.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.check_failure()?;
        let unreachable = self
            .unreachable
            .lock()
            .expect("no holder of this lock panics");
        match unreachable.as_ref() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Unavailable(reason.clone())),
        }
    }
}

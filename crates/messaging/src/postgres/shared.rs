//! What the writer shares with the store's handle beside [`WriterState`]: the groups' positions, and whether the server is
//! reachable.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::{
    Metrics, StoreError, housekeeping::passed_by_all, log_cache::StoredMessage,
    writer_state::WriterState,
};

pub(super) struct SharedState {
    pub(super) writer: WriterState,
    /// Why the server is unreachable; `None` while it is not.
    unreachable: Mutex<Option<String>>,
    /// The position of each group. Only this process reads the log, so that these equal the stored ones.
    positions: Mutex<HashMap<String, i64>>,
}

impl SharedState {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            writer: WriterState::new(0, metrics),
            unreachable: Mutex::default(),
            positions: Mutex::default(),
        }
    }

    pub(super) fn set_positions(&self, positions: HashMap<String, i64>) {
        *self.positions.lock() = positions;
    }

    pub(super) fn position(&self, group: &str) -> i64 {
        let positions = self.positions.lock();
        positions.get(group).copied().unwrap_or(0)
    }

    pub(super) fn forget(&self, group: &str) {
        self.positions.lock().remove(group);
    }

    pub(super) fn passed_by_all(&self, groups: &[&str]) -> i64 {
        passed_by_all(&self.positions.lock(), groups)
    }

    /// Applies what a transaction committed: the positions, then the messages.
    pub(super) fn take_effect(&self, published: Vec<StoredMessage>, moved: BTreeMap<String, i64>) {
        if !moved.is_empty() {
            let mut positions = self.positions.lock();
            for (group, offset) in moved {
                let position = positions.entry(group).or_insert(0);
                *position = offset.max(*position);
            }
        }
        self.writer.publish(published);
    }

    pub(super) fn set_unreachable(&self, reason: &str) {
        let mut unreachable = self.unreachable.lock();
        if unreachable.is_none() {
            tracing::warn!(reason, "PostgreSQL cannot be reached; commits wait");
        }
        *unreachable = Some(reason.to_owned());
    }

    pub(super) fn set_reachable(&self) {
        let mut unreachable = self.unreachable.lock();
        if unreachable.take().is_some() {
            tracing::info!("PostgreSQL can be reached again");
        }
    }

    /// Fails if the store cannot commit now.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.writer.check_failure()?;
        let unreachable = self.unreachable.lock();
        match unreachable.as_ref() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Unavailable(reason.clone())),
        }
    }
}

//! What the writer tells everybody: how far the log has come, and how the store is.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use tokio::sync::watch;

use crate::{
    StoreError,
    tail::{Stored, Tail},
};

pub(super) struct Shared {
    pub(super) tail: Tail,
    pub(super) committed: watch::Sender<i64>,
    /// The offset of the last message that was committed here.
    pub(super) published: watch::Sender<i64>,
    pub(super) failure: watch::Sender<Option<String>>,
    /// Why the server cannot be reached, as long as it cannot.
    away: Mutex<Option<String>>,
    /// How far each group has come. One process reads the log, so what is here is what is stored.
    positions: Mutex<HashMap<String, i64>>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            tail: Tail::new(0),
            committed: watch::Sender::new(0),
            published: watch::Sender::new(0),
            failure: watch::Sender::new(None),
            away: Mutex::default(),
            positions: Mutex::default(),
        }
    }

    pub(super) fn start_with(&self, positions: HashMap<String, i64>) {
        *self
            .positions
            .lock()
            .expect("no holder of this lock panics") = positions;
    }

    pub(super) fn start_at(&self, head: i64) {
        self.tail.start_at(head);
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

    /// What was committed is told: first the messages, then that there are some.
    pub(super) fn take_effect(&self, published: Vec<Stored>, moved: BTreeMap<String, i64>) {
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
            self.tail.append(published);
            self.published.send_replace(last);
        }
        self.committed.send_modify(|commits| *commits += 1);
    }

    pub(super) fn is_away(&self, reason: &str) {
        let mut away = self.away.lock().expect("no holder of this lock panics");
        if away.is_none() {
            tracing::warn!(reason, "PostgreSQL cannot be reached; commits wait");
        }
        *away = Some(reason.to_owned());
    }

    pub(super) fn is_back(&self) {
        let mut away = self.away.lock().expect("no holder of this lock panics");
        if away.take().is_some() {
            tracing::info!("PostgreSQL can be reached again");
        }
    }

    pub(super) fn poison(&self, reason: &str) -> StoreError {
        tracing::error!(reason, "the store has failed; the process must stop");
        self.failure.send_replace(Some(reason.to_owned()));
        StoreError::Poisoned(reason.to_owned())
    }

    /// Whether anything will ever be committed again.
    pub(super) fn check_failure(&self) -> Result<(), StoreError> {
        match self.failure.borrow().as_ref() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Poisoned(reason.clone())),
        }
    }

    /// Whether something would be committed now.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.check_failure()?;
        let away = self.away.lock().expect("no holder of this lock panics");
        match away.as_ref() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Unavailable(reason.clone())),
        }
    }
}

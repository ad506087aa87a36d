//! What a store's writer shares with the store's handle: the newest messages of the log, the notifications of commits, and
//! the failure that stops the store.

use tokio::sync::watch;

use crate::{
    StoreError,
    log_cache::{LogCache, StoredMessage},
};

pub(crate) struct WriterState {
    pub(crate) log_cache: LogCache,
    /// Counts transactions.
    committed: watch::Sender<i64>,
    /// The offset of the last message.
    head: watch::Sender<i64>,
    failure: watch::Sender<Option<String>>,
}

impl WriterState {
    pub(crate) fn new(head: i64) -> Self {
        Self {
            log_cache: LogCache::new(head),
            committed: watch::Sender::new(0),
            head: watch::Sender::new(head),
            failure: watch::Sender::new(None),
        }
    }

    pub(crate) fn start_at(&self, head: i64) {
        self.log_cache.start_at(head);
        self.head.send_replace(head);
    }

    pub(crate) fn next_offset(&self) -> i64 {
        *self.head.borrow() + 1
    }

    pub(crate) fn head(&self) -> watch::Receiver<i64> {
        self.head.subscribe()
    }

    pub(crate) fn committed(&self) -> watch::Receiver<i64> {
        self.committed.subscribe()
    }

    /// Publishes what a transaction committed: first the messages, then the notifications. Only messages wake consumers:
    /// most commits of a sale publish none.
    pub(crate) fn publish(&self, messages: Vec<StoredMessage>) {
        if let Some(last) = messages.last().map(|stored| stored.offset) {
            self.log_cache.append(messages);
            self.head.send_replace(last);
        }
        self.committed.send_modify(|commits| *commits += 1);
    }

    pub(crate) fn poison(&self, reason: &str) -> StoreError {
        tracing::error!(reason, "the store has failed; stop the process");
        self.failure.send_replace(Some(reason.to_owned()));
        StoreError::Poisoned(reason.to_owned())
    }

    /// Fails if the store has failed for good.
    pub(crate) fn check_failure(&self) -> Result<(), StoreError> {
        match self.failure.borrow().as_ref() {
            None => Ok(()),
            Some(reason) => Err(StoreError::Poisoned(reason.clone())),
        }
    }

    /// Resolves when the store has failed for good.
    pub(crate) async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => std::future::pending().await,
        }
    }
}

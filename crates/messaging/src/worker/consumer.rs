//! What a program writes to handle messages: a [`Consumer`]; and the [`WorkerContext`] in which workers run.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::Records;
use crate::{
    Bus, Clock, Commit, DeadLetterSettings, Message, Metrics, Random, Ref, Rejection, Store,
    StoreError, Timestamp,
};

/// A group's decision about its messages.
pub trait Consumer: Send + Sync + 'static {
    /// What [`prefetch`](Self::prefetch) returns; `()` if it asks nothing.
    type Prefetched: Default + Send + Sync;

    fn group(&self) -> &'static str;

    fn topics(&self) -> &'static [&'static str];

    /// The records on which this message is decided.
    ///
    /// # Errors
    /// A [`Rejection`] if the message cannot be read.
    fn required_records(&self, message: &Message) -> Result<Vec<Ref>, Rejection>;

    /// Asks other systems than the store, once for the whole batch. It may be repeated for the same messages, so it must
    /// be idempotent.
    fn prefetch<'a>(
        &'a self,
        _messages: &'a [Arc<Message>],
    ) -> BoxFuture<'a, Result<Self::Prefetched, StoreError>> {
        Box::pin(async { Ok(Self::Prefetched::default()) })
    }

    /// What this message changes.
    ///
    /// # Errors
    /// A [`Rejection`] if this message can never be handled.
    fn decide(
        &self,
        message: &Message,
        records: &Records,
        prefetched: &Self::Prefetched,
        now: Timestamp,
    ) -> Result<Commit, Rejection>;

    /// Called after its Commit is durable; for counting, not for effects.
    fn committed(&self, _message: &Message, _commit: &Commit) {}
}

/// What all workers of a process share.
#[derive(Clone)]
pub struct WorkerContext {
    pub store: Store,
    pub bus: Bus,
    pub clock: Clock,
    pub random: Random,
    pub metrics: Arc<Metrics>,
    pub dead_letters: DeadLetterSettings,
}

impl WorkerContext {
    /// With the system's clock and random source, metrics that are not exported, and default settings.
    #[must_use]
    pub fn new(store: Store, bus: Bus) -> Self {
        Self {
            store,
            bus,
            clock: Clock::steady(),
            random: Random::System,
            metrics: Metrics::unregistered(),
            dead_letters: DeadLetterSettings::default(),
        }
    }
}

//! What a program writes to handle messages: a [`Consumer`]; and the [`WorkerContext`] in which workers run.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::Records;
use crate::{
    Bus, Clock, Commit, DeadLetterSettings, Group, Message, Metrics, Random, Ref, Rejection, Store,
    StoreError, Timestamp,
};

/// A group's decision about its messages.
pub trait Consumer: Send + Sync + 'static {
    /// A parsed message.
    type Input: Send + Sync;
    /// What [`prefetch`](Self::prefetch) returns; `()` if it asks nothing.
    type Prefetched: Default + Send + Sync;
    /// What [`committed`](Self::committed) counts or logs; `()` if it does nothing.
    type Outcome: Send;

    fn group(&self) -> Group;

    /// Parses a message, once for all decisions about it.
    ///
    /// # Errors
    /// A [`Rejection`] if the message cannot be read.
    fn read(&self, message: &Message) -> Result<Self::Input, Rejection>;

    /// The records on which this message is decided.
    fn required_records(&self, input: &Self::Input) -> Vec<Ref>;

    /// Asks other systems than the store, once for the whole batch. It may be repeated for the same messages, so it must
    /// be idempotent.
    fn prefetch<'a>(
        &'a self,
        _inputs: Vec<&'a Self::Input>,
    ) -> BoxFuture<'a, Result<Self::Prefetched, StoreError>> {
        Box::pin(async { Ok(Self::Prefetched::default()) })
    }

    /// What this message changes. A reply takes its id from `message`.
    ///
    /// # Errors
    /// A [`Rejection`] if this message can never be handled.
    fn decide(
        &self,
        message: &Message,
        input: &Self::Input,
        records: &Records,
        prefetched: &Self::Prefetched,
        now: Timestamp,
    ) -> Result<Decision<Self::Outcome>, Rejection>;

    /// Called after the Commit of a decision is durable; for counting, not for effects.
    fn committed(&self, _outcome: Self::Outcome) {}
}

/// What a consumer decides. A [`Commit`] converts into one with the default outcome.
#[derive(Debug, Clone, Default)]
pub struct Decision<O = ()> {
    pub commit: Commit,
    pub outcome: O,
}

impl<O: Default> From<Commit> for Decision<O> {
    fn from(commit: Commit) -> Self {
        Self {
            commit,
            outcome: O::default(),
        }
    }
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

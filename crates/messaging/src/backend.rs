//! The seam below [`Store`] and [`Bus`](crate::Bus) for engines that this crate does not have: another database or broker,
//! or a simulated one. What a store must promise of records is what `tests/store_contract/records.rs` asks.
//!
//! State: none.

use std::{collections::HashSet, sync::Arc};

use futures::future::BoxFuture;

use crate::{
    CommitHandle, Message, StoreError, Timestamp,
    housekeeping::{Cleaned, RowRetention},
    record::{Key, Table},
    row::Row,
    store::{DueTimer, Find, Submission},
    writer_state::WriterState,
};

/// The answer of an engine.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// An engine of a store; the methods are those of [`Store`](crate::Store). Its messages are an outbox, which its
/// [`BusEngine`] reads.
pub trait StoreEngine: Send + Sync + 'static {
    /// Counts commits, and knows whether the store has failed.
    fn state(&self) -> &WriterState;

    fn load<'a>(&'a self, table: &'static Table, keys: &'a [Key]) -> Answer<'a, Vec<Row>>;

    fn find(&self, find: Find) -> Answer<'_, Vec<Row>>;

    fn count_by(
        &self,
        table: &'static Table,
        column: &'static str,
        only: Option<&'static str>,
    ) -> Answer<'_, Vec<(String, i64)>>;

    fn next_id(&self, table: &'static Table) -> Answer<'_, i64>;

    fn submit(&self, submission: Submission) -> CommitHandle;

    fn seen<'a>(
        &'a self,
        group: &'a str,
        message_ids: &'a [&'a str],
    ) -> Answer<'a, HashSet<String>>;

    /// Those that are due after the first time, up to the second, earliest first.
    fn timers(&self, range: (Timestamp, Timestamp), limit: u32) -> Answer<'_, Vec<DueTimer>>;

    fn clean<'a>(
        &'a self,
        groups: &'a [&'static str],
        inbox_before: Timestamp,
    ) -> Answer<'a, Cleaned>;

    fn retire_group<'a>(&'a self, group: &'a str) -> Answer<'a, ()>;

    fn remove_old<'a>(&'a self, retention: &'a RowRetention, before: Timestamp) -> Answer<'a, u64>;
}

/// An engine of a bus: at least once, in the order of each key.
pub trait BusEngine: Send + Sync + 'static {
    fn subscribe(
        &self,
        group: &'static str,
        topics: &'static [&'static str],
    ) -> Result<Box<dyn SubscriptionEngine>, StoreError>;

    /// Messages that `group` has not handled, in all processes.
    fn backlog<'a>(&'a self, group: &'a str, topics: &'a [&'static str]) -> Answer<'a, i64>;

    /// Committed messages that are not on the bus yet.
    fn unpublished(&self) -> Answer<'_, i64>;
}

/// One process's membership in a consumer group. Dropping it leaves the group without a word.
pub trait SubscriptionEngine: Send + Sync {
    /// Up to `max` messages that are there now, in the order of each key, and a number that names the batch.
    fn take(&mut self, max: usize) -> Option<(Vec<Arc<Message>>, u64)>;

    /// The batch's commits are durable.
    fn acknowledge(&self, batch: u64);

    /// Resolves when there may be new messages since the last call of `take`.
    fn changed(&mut self) -> BoxFuture<'_, ()>;

    fn lag(&self) -> i64;

    /// Leaves the group, so that others take over at once.
    fn close(&self) -> BoxFuture<'_, ()>;
}

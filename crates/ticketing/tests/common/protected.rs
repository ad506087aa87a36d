//! What the lock of an event's stock protects: a record that only the holder may change.

use contract::EventId;
use messaging::{Commit, CommitError, Fence, Store};
use ticketing::model::Allocation;

pub const STOCK: &str = "stock 1";
pub const EVENT: EventId = EventId(1);

/// What only the holder may do.
pub async fn resize(store: &Store, quantity: i64, fence: Fence) -> Result<(), CommitError> {
    let known: Option<Allocation> = store.load(EVENT).await.unwrap();
    let mut commit = Commit::new();
    commit
        .put(&Allocation {
            event_id: EVENT,
            quantity,
            lowered_to: None,
            sold: 0,
            price: None,
            sale_opens_at: None,
            sale_closes_at: None,
            event_version: 1,
            version: known.map_or(0, |known| known.version),
        })
        .fenced_by(fence);
    store.commit(commit).await
}

pub async fn quantity(store: &Store) -> Option<i64> {
    let known: Option<Allocation> = store.load(EVENT).await.unwrap();
    known.map(|known| known.quantity)
}

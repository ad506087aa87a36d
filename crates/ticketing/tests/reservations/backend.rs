//! Reservations in memory.

use messaging::Store;
use ticketing::Reservations;

pub struct Backend;

impl Backend {
    pub fn new(_claim_millis_min: i64) -> Self {
        Self
    }

    pub async fn open(&self, store: Store) -> Reservations {
        // Later than all that the suite plays, so that nothing looks as if the clock had been set back.
        let now = crate::suite::at(1_000_000_000_000);
        Reservations::open_local(store, now).await.unwrap()
    }
}

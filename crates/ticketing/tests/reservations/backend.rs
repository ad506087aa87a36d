//! Reservations in memory.

use messaging::Store;
use ticketing::Reservations;

pub const CLAIMS_ARE_ROWS: bool = true;

pub struct Backend;

impl Backend {
    pub fn new(_claim_millis_min: i64) -> Self {
        Self
    }

    pub async fn open(&self, store: Store) -> Reservations {
        // Later than every time of the suite, so that no claim seems to be from before the clock was set back.
        let now = crate::suite::at(1_000_000_000_000);
        Reservations::open_local(store, now).await.unwrap()
    }
}

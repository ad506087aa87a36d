//! Expiry: reservations that were not paid in time lapse, each exactly once, and their tickets are on sale again. One whose
//! purchase was begun stays until its payment is closed: an attempt may be at the gateway, and keeps its ticket.

use messaging::{Pace, Shutdown, StoreError};

use crate::{
    Service,
    release::take_back,
    reservations::{Claimed, Lapse},
};

/// How late a lapse may be looked at.
const TICK_MILLIS: i64 = 200;
/// Reservations lapsed by one commit.
const LAPSED_MAX: usize = 512;

impl Service {
    /// Lapses what is due until told to stop. It begins a grace period after its start: who paid before the process
    /// stopped, or was being charged, has the ticket before its reservation lapses, however long the process was away.
    pub async fn run_expiry(self, mut shutdown: Shutdown) {
        let clock = self.0.clock.clone();
        let begins_at = clock.now().plus_secs(self.0.settings.hold_grace_secs);
        tokio::select! {
            () = shutdown.requested() => return,
            () = clock.wait_until(begins_at) => {}
        }
        let mut pace = Pace::every(TICK_MILLIS);
        loop {
            // Before looking: what becomes due during a look is looked for at once.
            let now = clock.now();
            let lapsed = self.expire_due().await;
            let pause_millis = pace.after(&lapsed);
            match lapsed {
                Ok(_) => {}
                Err(StoreError::Poisoned(_)) => return,
                Err(error) => tracing::warn!(%error, pause_millis, "expiry waits for the store"),
            }
            tokio::select! {
                () = shutdown.requested() => return,
                () = clock.wait_until(now.plus_millis(pause_millis)) => {}
            }
        }
    }

    /// Lapses everything that is due now, and tells which are free.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot answer; what did not lapse stays due.
    pub async fn expire_due(&self) -> Result<Vec<Claimed>, StoreError> {
        let mut all = Vec::new();
        loop {
            let now = self.0.clock.now();
            // The same lapse is told of in the same words, whoever ends it; another lapse of the same claim is not.
            let telling =
                |lapse: Lapse| take_back(lapse.claimed, &lapse.lapses_at.as_millis(), now);
            let lapsed = self.0.reservations.expire(now, LAPSED_MAX, telling).await?;
            if lapsed.is_empty() {
                return Ok(all);
            }
            fail::fail_point!("ticketing.after_lapse", |_| std::process::abort());
            let metrics = &self.0.metrics;
            lapsed
                .freed
                .iter()
                .for_each(|_| metrics.reservation("lapsed"));
            lapsed
                .closing
                .iter()
                .for_each(|_| metrics.reservation("closing"));
            all.extend(lapsed.freed);
        }
    }
}

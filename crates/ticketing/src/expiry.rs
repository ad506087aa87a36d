//! Expiry: unpaid reservations expire, each exactly once, and their tickets are on sale again. One whose purchase has begun
//! stays until its payment is closed: an attempt may be at the gateway, and keeps its ticket.

use messaging::{Pace, Shutdown, StoreError};

use crate::{
    Service,
    release::publish_expiry,
    reservations::{ClaimId, DueClaim},
};

/// How late an expiry may be.
const TICK_MILLIS: i64 = 200;
/// Reservations that one submission expires.
const BATCH_CLAIMS_MAX: usize = 512;

impl Service {
    /// Expires reservations until shutdown. The first round is a grace period after the start, so that payments made
    /// before the process stopped are handled before their reservations expire, however long the process was down.
    pub async fn run_expiry(self, mut shutdown: Shutdown) {
        let clock = self.0.clock.clone();
        let begins_at = clock.now().plus_secs(self.0.settings.hold_grace_secs);
        tokio::select! {
            () = shutdown.requested() => return,
            () = clock.wait_until(begins_at) => {}
        }
        let mut pace = Pace::every(TICK_MILLIS);
        loop {
            // Taken before the round: claims that become due during it do not wait a whole tick more.
            let now = clock.now();
            let expired = self.expire_due().await;
            let pause_millis = pace.after(&expired);
            match expired {
                Ok(_) => {}
                Err(StoreError::Poisoned(_)) => return,
                Err(error) => {
                    tracing::warn!(%error, pause_millis, "cannot expire reservations; trying again")
                }
            }
            tokio::select! {
                () = shutdown.requested() => return,
                () = clock.wait_until(now.plus_millis(pause_millis)) => {}
            }
        }
    }

    /// Expires all reservations that are due now, and returns those whose tickets are on sale again.
    ///
    /// # Errors
    /// [`StoreError`] if the store does not answer; what did not expire stays due.
    pub async fn expire_due(&self) -> Result<Vec<ClaimId>, StoreError> {
        let mut all = Vec::new();
        loop {
            let now = self.0.clock.now();
            // The message id is the same in every process that ends this expiry, and another for a later expiry.
            let publish =
                |due: DueClaim| publish_expiry(due.claim, &due.lapses_at.as_millis(), now);
            let reservations = &self.0.reservations;
            let expired = reservations.expire(now, BATCH_CLAIMS_MAX, publish).await?;
            if expired.is_empty() {
                return Ok(all);
            }
            fail::fail_point!("ticketing.after_lapse", |_| std::process::abort());
            let metrics = &self.0.metrics;
            expired
                .freed
                .iter()
                .for_each(|_| metrics.reservation("lapsed"));
            expired
                .closing
                .iter()
                .for_each(|_| metrics.reservation("closing"));
            all.extend(expired.freed);
        }
    }
}

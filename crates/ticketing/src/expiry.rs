//! Expiry: unpaid reservations expire, each exactly once, and their tickets are on sale again. One whose purchase has begun
//! stays until its payment is closed: an attempt may be at the gateway, and keeps its ticket.
//!
//! 1. [`Service::expire_due`] frees what is due, or keeps it if its purchase has begun, and publishes `ticketing.expire`
//!    for each, in the same Commit.
//! 2. `progress::expire`: a purchase in progress is aborted and compensated; one that waits for its payment is undone by the
//!    saga `ticketing.expire` (first `payment.delete`, then the points); one whose `ticketing.process` is not handled yet is
//!    stored as cancelled before its start.
//! 3. When no payment can succeed any more, `ticketing.release` frees the claim. A payment that has succeeded refuses its
//!    deletion, and `StockConsumer` issues the ticket on the claim that was kept.
//!
//! **When an unpaid ticket is on sale again:**
//!
//! | its reservation | ends |
//! |---|---|
//! | has no purchase | at `lapses_at`: `hold_ttl_secs` + `hold_grace_secs` after the grant, and one tick of 200 ms |
//! | has an open purchase (`open_purchases`) | not before `lapses_at`, and when its payment is closed; until then it is due every minute (`RECHECK_SECS`), also while its saga is parked |
//! | was rebuilt after a loss of Redis, which has an open purchase | as before; `lapses_at` is a grace period after the rebuild, or after its deadline if that is later |
//! | was lost by Redis and has no purchase | at the rebuild |
//! | is released by its buyer, or its purchase was compensated | at once ([`Service::release`]; `ticketing.release`) |
//!
//! In memory `State::due` finds due claims in a queue by `lapses_at`. In Redis each event has such a queue, and a set over all
//! events says which to look at (`redis/expiry.rs`); a claim whose expiry began in a process that died is due again after
//! 30 s. Each process begins a grace period after its start ([`ExpiryTask`]).

use contract::Timestamp;
use messaging::{Periodic, Schedule, StoreError, Tick};

use crate::{
    Service,
    release::publish_expiry,
    reservations::{ClaimId, DueClaim},
};

/// How late an expiry may be.
const TICK_MILLIS: i64 = 200;
/// Reservations that one submission expires.
const BATCH_CLAIMS_MAX: usize = 512;

/// Expires reservations. It begins a grace period after the start of the process: a buyer who paid before the process
/// stopped, or was being charged, gets the ticket before the reservation expires, however long the process was away.
pub struct ExpiryTask {
    service: Service,
    begins_at: Timestamp,
}

impl ExpiryTask {
    #[must_use]
    pub fn new(service: Service) -> Self {
        let grace_secs = service.0.settings.hold_grace_secs;
        let begins_at = service.0.clock.now().plus_secs(grace_secs);
        Self { service, begins_at }
    }
}

impl Periodic for ExpiryTask {
    fn schedule(&self) -> Schedule {
        Schedule {
            name: "ticketing.expiry",
            interval_millis: TICK_MILLIS,
            is_interruptible: false,
        }
    }

    async fn begin(&mut self) -> Result<(), StoreError> {
        self.service.0.clock.wait_until(self.begins_at).await;
        Ok(())
    }

    async fn tick(&mut self) -> Result<Tick, StoreError> {
        self.service.expire_due().await.map(|_| Tick::Done)
    }
}

impl Service {
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

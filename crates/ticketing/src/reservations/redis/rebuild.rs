//! Rebuilds what Redis lost from the store, event by event, under the event's lease.
//!
//! The lease's token is the event's **epoch**. It is raised before anything is read, and every Commit that pays or releases
//! a claim, or changes a sale, carries the epoch of Redis' reply as a fence: none that was decided on the old state becomes
//! durable once the store is being read. A purchase that is committed then has no fence: it is read, or `SagaConsumer` finds
//! no claim of it and compensates it. In Redis the epoch fences the other way: a rebuilder that was paused writes nothing
//! over a newer epoch. While an event has no `sale` key nothing is granted.
//!
//! **Who rebuilds:** the process that notices. A request for an event that Redis does not know (`Core::unknown_event`), or a
//! consumer that meets another epoch than the store's (`Core::verify_epoch`), starts it in the background; the expiry's tick
//! does it for all events if the key `whole` is missing (`rebuild_lost_events`), but begins a grace period after the start of
//! its process. Others end as [`RebuildOutcome::ByAnother`].
//!
//! **What users see** meanwhile, for each event: `RESERVATIONS_REBUILDING` (503) when they reserve, start a purchase, release
//! one, or read the stock or their reservation. Paying goes on: `domain.payment` is retried (`Core::rebuild_first`), and the
//! ticket is issued afterwards.
//!
//! **What comes back:** RESERVED tickets as completed claims (`fill_completed`), and purchases that are open (`leave_open`) as
//! waiting claims with a grace period (`fill_waiting`). **What is lost:** a reservation without a purchase is only in Redis.
//! Releasing it gets 404, as does starting its purchase afterwards; its buyer reserves again, with the same `Idempotency-Key` too.

use std::collections::{HashMap, HashSet};

use contract::{EventId, SagaId, TicketId, Timestamp};
use messaging::{
    Find, Key, Record as _, Row, StoreError, coordinator::SagaRecord, lease::LeaseRecord,
};
use saga::SagaState;
use serde::de::DeserializeOwned;

use super::{
    core::{Core, lease_name},
    scripts::{key, on_event},
};
use crate::{
    model::{Allocation, Purchase, Ticket},
    refund::PurchaseRefund,
    reservations::{Deadlines, claim::Claim},
    sagas::is_payment_closed,
};

/// Rows of one page: bounds the memory of a rebuild.
const PAGE_ROWS: u32 = 500;
/// How long other processes wait for a rebuilder that crashed. Renewed with every page.
const LEASE_MILLIS: i64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RebuildOutcome {
    /// The event is known to Redis in the current epoch.
    Done,
    /// Another process holds the lease, or was faster.
    ByAnother,
}

/// Rebuilds an event of the store, unless Redis has it in the current epoch.
pub(super) async fn rebuild(core: &Core, event_id: EventId) -> Result<RebuildOutcome, StoreError> {
    let Some(mut lease) = RebuildLease::acquire(core, event_id).await? else {
        return Ok(RebuildOutcome::ByAnother);
    };
    let rebuilt = async {
        if lease.epoch_in_redis().await? == Some(lease.record.token) {
            return Ok(RebuildOutcome::Done);
        }
        if !lease.raise_epoch().await? || !lease.begin().await? {
            return Ok(RebuildOutcome::ByAnother);
        }
        tracing::info!(event.id = %event_id, epoch = lease.record.token, "rebuilding the reservations of an event");
        let is_filled = lease.fill_completed().await? && lease.fill_waiting().await?;
        let allocation: Option<Allocation> = core.store.load(event_id).await?;
        let Some(allocation) = allocation.filter(|_| is_filled) else {
            return Ok(RebuildOutcome::ByAnother);
        };
        lease.finish(&allocation).await
    };
    let rebuilt = rebuilt.await;
    lease.release().await;
    rebuilt
}

/// Opens an event that is not in the store yet, with nothing claimed.
pub(super) async fn open(core: &Core, sale: &Allocation) -> Result<RebuildOutcome, StoreError> {
    let Some(mut lease) = RebuildLease::acquire(core, sale.event_id).await? else {
        return Ok(RebuildOutcome::ByAnother);
    };
    let opened = async {
        if !lease.raise_epoch().await? || !lease.begin().await? {
            return Ok(RebuildOutcome::ByAnother);
        }
        lease.finish(sale).await
    };
    let opened = opened.await;
    lease.release().await;
    opened
}

/// The event's lease, held.
struct RebuildLease<'a> {
    core: &'a Core,
    event_id: EventId,
    record: LeaseRecord,
}

impl<'a> RebuildLease<'a> {
    /// `None` if another process holds it. The token stays the same until the epoch is raised.
    async fn acquire(core: &'a Core, event_id: EventId) -> Result<Option<Self>, StoreError> {
        let name = lease_name(event_id);
        let now = core.clock.now();
        let known: Option<LeaseRecord> = core.store.load(name.as_str()).await?;
        let record = match known {
            Some(known) if known.stands(now, LEASE_MILLIS) => return Ok(None),
            Some(known) => known,
            None => LeaseRecord {
                name,
                holder: String::new(),
                token: 0,
                expires_at: now,
                version: 0,
            },
        };
        let mut lease = Self {
            core,
            event_id,
            record,
        };
        Ok(lease.renew().await?.then_some(lease))
    }

    /// Whether the lease was still held.
    async fn renew(&mut self) -> Result<bool, StoreError> {
        let expires_at = self.core.clock.now().plus_millis(LEASE_MILLIS);
        self.save(self.record.token, expires_at).await
    }

    /// Raises the epoch: Commits decided on the state before are fenced from here on. An epoch is at least the time in
    /// milliseconds, so the epochs of a new store exceed those that Redis kept of an earlier store.
    async fn raise_epoch(&mut self) -> Result<bool, StoreError> {
        let now = self.core.clock.now().as_millis();
        let epoch = now.max(self.record.token + 1);
        self.save(epoch, self.record.expires_at).await
    }

    /// Releases the lease; the token stays, because it is the epoch. If this fails the lease runs out.
    async fn release(mut self) {
        let _ = self
            .save(self.record.token, Timestamp::from_millis(0))
            .await;
    }

    async fn save(&mut self, token: i64, expires_at: Timestamp) -> Result<bool, StoreError> {
        let record = LeaseRecord {
            token,
            expires_at,
            ..self.record.clone()
        };
        let saved = record.save(&self.core.store).await?;
        let is_saved = saved.is_some();
        self.record = saved.unwrap_or_else(|| self.record.clone());
        Ok(is_saved)
    }

    async fn epoch_in_redis(&self) -> Result<Option<i64>, StoreError> {
        let mut command = redis::cmd("HGET");
        command
            .arg(key(&self.core.server, self.event_id, "sale"))
            .arg("epoch");
        self.core.server.ask(&command).await
    }

    async fn begin(&self) -> Result<bool, StoreError> {
        let script = &self.core.scripts.rebuild_begin;
        let mut call = on_event(script, &self.core.server, self.event_id);
        call.arg(self.record.token);
        let begun: i64 = self.core.server.call(&call).await?;
        Ok(begun == 1)
    }

    /// False if this is no longer the rebuild in progress.
    async fn fill(&mut self, state: &str, claims: &[(i64, Claim)]) -> Result<bool, StoreError> {
        if !self.renew().await? {
            return Ok(false);
        }
        let script = &self.core.scripts.rebuild_fill;
        let mut call = on_event(script, &self.core.server, self.event_id);
        call.arg(self.record.token).arg(state);
        for (user, claim) in claims {
            call.arg(user)
                .arg(claim.encode())
                .arg(claim.deadlines.lapses_at.as_millis());
        }
        let filled: i64 = self.core.server.call(&call).await?;
        Ok(filled == 1)
    }

    async fn fill_completed(&mut self) -> Result<bool, StoreError> {
        let mut after: Option<TicketId> = None;
        loop {
            let find = Find::all(Ticket::TABLE, PAGE_ROWS)
                .equals("event_id", self.event_id.0)
                .only("status = 'RESERVED'")
                .after(after);
            let tickets: Vec<Ticket> = self.core.store.find(find).await?;
            let Some(last) = tickets.last() else {
                return Ok(true);
            };
            after = Some(last.ticket_id);
            let claims = tickets.iter().map(|ticket| {
                let (ticket_id, at) = (ticket.ticket_id, ticket.created_at);
                let claim = Claim {
                    ticket_id,
                    deadlines: Deadlines {
                        expires_at: at,
                        lapses_at: at,
                    },
                    price: None,
                };
                (ticket.user_id.0, claim)
            });
            if !self.fill("completed", &claims.collect::<Vec<_>>()).await? {
                return Ok(false);
            }
        }
    }

    async fn fill_waiting(&mut self) -> Result<bool, StoreError> {
        let now = self.core.clock.now();
        let mut after: Option<TicketId> = None;
        loop {
            let find = Find::all(Purchase::TABLE, PAGE_ROWS)
                .equals("event_id", self.event_id.0)
                .after(after);
            let purchases: Vec<Purchase> = self.core.store.find(find).await?;
            let Some(last) = purchases.last() else {
                return Ok(true);
            };
            after = Some(last.ticket_id);
            let outcomes = PurchaseOutcomes::load(self.core, &purchases).await?;
            let open = purchases.iter().filter(|it| outcomes.leave_open(it));
            let claims = open.map(|purchase| {
                let expires_at = purchase.expires_at;
                // A payment that is in progress, or whose message is still to come, is handled within the grace period.
                let ends_at = purchase.ticket_id.no_later_than(expires_at, now).max(now);
                let lapses_at = ends_at.plus_millis(self.core.hold.grace_millis);
                let claim = Claim {
                    ticket_id: purchase.ticket_id,
                    deadlines: Deadlines {
                        expires_at,
                        lapses_at,
                    },
                    price: None,
                };
                (purchase.user_id.0, claim)
            });
            if !self.fill("waiting", &claims.collect::<Vec<_>>()).await? {
                return Ok(false);
            }
        }
    }

    async fn finish(&mut self, sale: &Allocation) -> Result<RebuildOutcome, StoreError> {
        super::expiry::check_now(self.core, self.event_id).await?;
        if !self.renew().await? {
            return Ok(RebuildOutcome::ByAnother);
        }
        let script = &self.core.scripts.rebuild_finish;
        let mut call = on_event(script, &self.core.server, self.event_id);
        call.arg(self.record.token)
            .arg(sale.event_version)
            .arg(sale.quantity)
            .arg(super::or_empty(sale.lowered_to));
        super::add_rules(&mut call, sale);
        let finished: i64 = self.core.server.call(&call).await?;
        Ok(if finished == 1 {
            RebuildOutcome::Done
        } else {
            RebuildOutcome::ByAnother
        })
    }
}

/// How far the purchases of a page have come.
struct PurchaseOutcomes {
    sagas: HashMap<SagaId, SagaRecord>,
    /// Their ticket was issued, or their payment cancelled: no claim waits for payment.
    settled: HashSet<TicketId>,
}

impl PurchaseOutcomes {
    async fn load(core: &Core, purchases: &[Purchase]) -> Result<Self, StoreError> {
        let ids = || purchases.iter().map(|purchase| purchase.ticket_id);
        let sagas: Vec<Key> = ids()
            .flat_map(|id| [id.purchase_saga().into(), id.expire_saga().into()])
            .collect();
        let tickets: Vec<Key> = ids().map(Key::from).collect();
        let (sagas, issued, refunds) = tokio::try_join!(
            core.store.load_rows(SagaRecord::TABLE, &sagas),
            core.store.load_rows(Ticket::TABLE, &tickets),
            core.store.load_rows(PurchaseRefund::TABLE, &tickets),
        )?;
        let issued = read::<Ticket>(&issued)?;
        let refunds = read::<PurchaseRefund>(&refunds)?;
        let refunded = refunds.iter().filter(|refund| refund.is_final());
        Ok(Self {
            sagas: read::<SagaRecord>(&sagas)?
                .into_iter()
                .map(|saga| (saga.saga_id, saga))
                .collect(),
            settled: issued
                .iter()
                .map(|ticket| ticket.ticket_id)
                .chain(refunded.map(|refund| refund.ticket_id))
                .collect(),
        })
    }

    /// Whether this purchase still has a waiting claim: a compensating one until it is compensated, an expiring one until
    /// its payment is closed.
    fn leave_open(&self, purchase: &Purchase) -> bool {
        let id = purchase.ticket_id;
        let (saga, expiry) = (
            self.sagas.get(&id.purchase_saga()),
            self.sagas.get(&id.expire_saga()),
        );
        let is_over = saga.is_some_and(|saga| saga.state == SagaState::Compensated)
            || expiry.is_some_and(is_payment_closed);
        purchase.released_at.is_none() && !is_over && !self.settled.contains(&id)
    }
}

fn read<T: DeserializeOwned>(rows: &[Row]) -> Result<Vec<T>, StoreError> {
    rows.iter().map(|row| Ok(row.read()?)).collect()
}

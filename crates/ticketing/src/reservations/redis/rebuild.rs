//! What Redis lost is rebuilt from the store, event by event, under the event's lease.
//!
//! The token of the lease is the event's **epoch**. It grows before anything is read, and every Commit that was decided
//! on an answer of Redis carries the epoch of that answer as a fence: what was decided on the old state cannot become
//! durable once the new one is being read, so nothing is missed in between. In Redis the epoch fences the other way:
//! a rebuilder that slept writes nothing over a newer one. While an event has no `sale` key nothing is granted.
//!
//! Tickets that are RESERVED are completed claims; purchases under way wait for payment, with a grace period from
//! now. A reservation for which no purchase was begun is known to nobody else: its buyer reserves again.

use std::collections::{HashMap, HashSet};

use contract::{EventId, SagaId, TicketId, Timestamp};
use messaging::{
    Commit, CommitError, Find, Key, Record as _, Row, StoreError, coordinator::SagaRecord,
    lease::LeaseRecord,
};
use saga::SagaState;
use serde::de::DeserializeOwned;

use super::{
    core::{Core, lease_name},
    scripts::{Claim, key, on_event},
};
use crate::{
    model::{Allocation, Purchase, Ticket},
    refund::PurchaseRefund,
    sagas::is_payment_closed,
};

/// Rows read at once: what a rebuilding holds in memory.
const PAGE_ROWS: u32 = 500;
/// How long the others wait for a rebuilder that crashed. It is renewed with every page.
const LEASE_MILLIS: i64 = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rebuilt {
    /// The event can be asked again.
    Done,
    /// Another has the lease, or was faster.
    ByAnother,
}

/// Rebuilds an event that the store knows, where Redis does not know it in its last epoch.
pub(super) async fn rebuild(core: &Core, event_id: EventId) -> Result<Rebuilt, StoreError> {
    let Some(mut lease) = Tenure::take(core, event_id).await? else {
        return Ok(Rebuilt::ByAnother);
    };
    let rebuilt = async {
        if lease.epoch_in_redis().await? == Some(lease.record.token) {
            return Ok(Rebuilt::Done);
        }
        if !lease.grow().await? || !lease.begin().await? {
            return Ok(Rebuilt::ByAnother);
        }
        tracing::info!(event.id = %event_id, epoch = lease.record.token, "the reservations of an event are being rebuilt");
        let is_filled = lease.fill_completed().await? && lease.fill_waiting().await?;
        let allocation: Option<Allocation> = core.store.load(event_id).await?;
        let Some(allocation) = allocation.filter(|_| is_filled) else {
            return Ok(Rebuilt::ByAnother);
        };
        lease.finish(&allocation).await
    };
    let rebuilt = rebuilt.await;
    lease.end().await;
    rebuilt
}

/// Opens an event that the store does not know yet, with nothing claimed.
pub(super) async fn open(core: &Core, sale: &Allocation) -> Result<Rebuilt, StoreError> {
    let Some(mut lease) = Tenure::take(core, sale.event_id).await? else {
        return Ok(Rebuilt::ByAnother);
    };
    let opened = async {
        if !lease.grow().await? || !lease.begin().await? {
            return Ok(Rebuilt::ByAnother);
        }
        lease.finish(sale).await
    };
    let opened = opened.await;
    lease.end().await;
    opened
}

/// Holding the event's lease.
struct Tenure<'a> {
    core: &'a Core,
    event_id: EventId,
    record: LeaseRecord,
}

impl<'a> Tenure<'a> {
    /// `None` where another holds it. The token stays as it is: looking is not rebuilding.
    async fn take(core: &'a Core, event_id: EventId) -> Result<Option<Self>, StoreError> {
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
        let mut tenure = Self {
            core,
            event_id,
            record,
        };
        Ok(tenure.renew().await?.then_some(tenure))
    }

    /// Whether it was still held.
    async fn renew(&mut self) -> Result<bool, StoreError> {
        let expires_at = self.core.clock.now().plus_millis(LEASE_MILLIS);
        self.save(self.record.token, expires_at).await
    }

    /// From here on nothing that was decided on the state before can be committed. An epoch is never below the time
    /// in milliseconds, so that a store that was set up anew outgrows what Redis still has of the one before.
    async fn grow(&mut self) -> Result<bool, StoreError> {
        let now = self.core.clock.now().as_millis();
        let epoch = now.max(self.record.token + 1);
        self.save(epoch, self.record.expires_at).await
    }

    /// Lets the next have it; the token stays, because it is the epoch. Where that fails it runs out.
    async fn end(mut self) {
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
        let mut commit = Commit::new();
        commit.put(&record);
        match self.core.store.commit(commit).await {
            Ok(()) => {
                self.record = LeaseRecord {
                    version: record.version + 1,
                    ..record
                };
                Ok(true)
            }
            Err(CommitError::Store(error)) => Err(error),
            Err(_) => Ok(false),
        }
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

    /// False where this rebuilding is not the one under way any more.
    async fn fill(&mut self, state: &str, claims: &[(i64, Claim)]) -> Result<bool, StoreError> {
        if !self.renew().await? {
            return Ok(false);
        }
        let script = &self.core.scripts.rebuild_fill;
        let mut call = on_event(script, &self.core.server, self.event_id);
        call.arg(self.record.token).arg(state);
        for (user, claim) in claims {
            call.arg(user)
                .arg(claim.write())
                .arg(claim.lapses_at.as_millis());
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
                    expires_at: at,
                    lapses_at: at,
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
            let ends = Ends::load(self.core, &purchases).await?;
            let under_way = purchases.iter().filter(|purchase| ends.leave(purchase));
            let claims = under_way.map(|purchase| {
                let expires_at = purchase.expires_at;
                // Who pays at this moment, or has paid and is not heard of yet, comes before the lapse.
                let ends_at = purchase.ticket_id.no_later_than(expires_at, now).max(now);
                let lapses_at = ends_at.plus_millis(self.core.hold.grace_millis);
                let claim = Claim {
                    ticket_id: purchase.ticket_id,
                    expires_at,
                    lapses_at,
                    price: None,
                };
                (purchase.user_id.0, claim)
            });
            if !self.fill("waiting", &claims.collect::<Vec<_>>()).await? {
                return Ok(false);
            }
        }
    }

    async fn finish(&mut self, sale: &Allocation) -> Result<Rebuilt, StoreError> {
        super::expiry::enlist(self.core, self.event_id).await?;
        if !self.renew().await? {
            return Ok(Rebuilt::ByAnother);
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
            Rebuilt::Done
        } else {
            Rebuilt::ByAnother
        })
    }
}

/// What has become of some purchases.
struct Ends {
    sagas: HashMap<SagaId, SagaRecord>,
    /// Issued before, or their money went back: no claim waits for payment any more.
    settled: HashSet<TicketId>,
}

impl Ends {
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

    /// Whether this purchase still has a claim. One that turns back has it until it has turned back, one that is taken
    /// back until its payment is closed.
    fn leave(&self, purchase: &Purchase) -> bool {
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

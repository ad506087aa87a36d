//! The distributed backend: all stocks in Redis, one script for each operation, shared by every process.
//!
//! **Durability.** A waiting claim is as durable as Redis is configured to be, and has no row in the store: before a
//! grant is answered, only Redis and the request's own Commit are written. Completed claims are in the store (tickets,
//! allocation). If Redis loses its data it is rebuilt from the store (`rebuild`); meanwhile requests are refused with
//! [`Refusal::Rebuilding`].
//!
//! **Time** comes from the caller: no script reads a clock. **Keys** of one event share a hash tag. State here: the
//! queue of requests (`batcher`), the events that this process rebuilds (`core`), and the events that do not exist
//! (`missing_events`).

mod batcher;
mod core;
mod expiry;
mod missing_events;
mod rebuild;
mod scripts;
mod snapshot;

use std::sync::Arc;

use contract::{EventId, Money, TicketId, Timestamp, UserId};
use messaging::{Clock, Commit, CommitError, Store, StoreError};
use redis::ScriptInvocation;
use tokio::sync::{mpsc, oneshot};

pub use snapshot::ClaimSnapshot;

use self::{
    batcher::{PendingRequest, QUEUE_REQUESTS_MAX},
    core::{Core, ScriptReply, epoch_fence},
    expiry::Ending,
    rebuild::RebuildOutcome,
    scripts::on_event,
};
use super::{
    ClaimId, ClaimProof, Completion, Error, Granted, Refusal, Reservation, ReserveRequest, Stats,
    claim::Claim,
};
use crate::{
    model::{Allocation, Purchase, ReservationState},
    redis_server::RedisServer,
};

/// When an expiry or release that has begun and was not ended is due again.
const EXPIRY_RETRY_MILLIS: i64 = 30_000;

/// How long claims last, as far as the backend must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisHold {
    /// No claim expires sooner than this after its grant.
    pub claim_millis_min: i64,
    /// How much later than its deadline a rebuilt claim expires.
    pub grace_millis: i64,
}

#[derive(Clone)]
pub(super) struct Redis {
    core: Arc<Core>,
    requests: mpsc::Sender<PendingRequest>,
}

impl Redis {
    /// Must be called on the runtime.
    pub fn open(server: RedisServer, store: Store, clock: Clock, hold: RedisHold) -> Self {
        let core = Arc::new(Core::new(server, store, clock, hold));
        let (requests, queue) = mpsc::channel(QUEUE_REQUESTS_MAX);
        tokio::spawn(batcher::run(Arc::downgrade(&core), queue));
        Self { core, requests }
    }

    pub fn store(&self) -> &Store {
        &self.core.store
    }

    pub async fn reserve(&self, request: ReserveRequest, now: Timestamp) -> Result<Granted, Error> {
        let (answer, answered) = oneshot::channel();
        let pending = PendingRequest {
            request,
            now,
            answer,
        };
        if self.requests.try_send(pending).is_err() {
            return Err(StoreError::Overloaded.into());
        }
        let stopped = || StoreError::Unavailable("the process is stopping".to_owned());
        answered.await.unwrap_or_else(|_| Err(stopped().into()))
    }

    pub async fn find(
        &self,
        event_id: EventId,
        user_id: UserId,
    ) -> Result<Option<Reservation>, Error> {
        let mut call = on_event(&self.core.scripts.find, &self.core.server, event_id);
        call.arg(user_id.0);
        let reply: Option<(String, String, String)> = self.core.server.call(&call).await?;
        let Some((price, waiting, completed)) = reply else {
            return self.core.none_unless_lost(event_id).await;
        };
        let price = price.parse().ok().and_then(|price| Money::new(price).ok());
        let reservation = |text: &str, state| Some(Claim::decode(text)?.reservation(state, price));
        Ok(reservation(&waiting, ReservationState::Waiting)
            .or_else(|| reservation(&completed, ReservationState::Completed)))
    }

    /// The store has the tickets whose purchase has begun; the index in Redis has the others.
    pub async fn find_by_ticket(&self, ticket_id: TicketId) -> Result<Option<ClaimId>, Error> {
        let purchase: Option<Purchase> = self.core.store.load(ticket_id).await?;
        match purchase {
            Some(purchase) => Ok(Some(ClaimId {
                event_id: purchase.event_id,
                user_id: purchase.user_id,
                ticket_id,
            })),
            None => Ok(batcher::lookup_ticket(&self.core, ticket_id).await?),
        }
    }

    pub async fn complete(&self, claims: &[ClaimId]) -> Result<Vec<Completion>, StoreError> {
        let script = &self.core.scripts.complete;
        let replies = self.core.call_in_epoch(script, "", claims).await?;
        Ok(replies.into_iter().map(completion).collect())
    }

    pub async fn retake(&self, claims: &[ClaimId], lapses_at: Timestamp) -> Result<(), StoreError> {
        let (script, at) = (&self.core.scripts.retake, lapses_at.as_millis().to_string());
        self.core.call_in_epoch(script, &at, claims).await.map(drop)
    }

    pub async fn release(
        &self,
        claims: &[ClaimId],
        which: &str,
    ) -> Result<Vec<Commit>, StoreError> {
        let script = &self.core.scripts.release;
        let replies = self.core.call_in_epoch(script, which, claims).await?;
        Ok(replies.into_iter().map(fenced).collect())
    }

    /// The claim is marked first, so that a purchase that begins after the look for one finds no claim, and so that it is
    /// not completed meanwhile: the Commit of its ticket would not conflict with this one.
    pub async fn release_by_buyer(
        &self,
        claim: ClaimId,
        also: impl FnOnce(Option<Purchase>) -> Commit,
    ) -> Result<bool, Error> {
        let core = &self.core;
        let retry_at = core.clock.now().plus_millis(EXPIRY_RETRY_MILLIS);
        let mut call = on_event(&core.scripts.release_by_buyer, &core.server, claim.event_id);
        call.arg(claim.user_id.0)
            .arg(claim.ticket_id.to_string())
            .arg(retry_at.as_millis());
        let reply: Option<String> = core.server.call(&call).await?;
        let Some(epoch) = reply else {
            let none: Option<()> = core.none_unless_lost(claim.event_id).await?;
            return Ok(none.is_some());
        };
        let Ok(epoch) = epoch.parse() else {
            return Ok(false);
        };
        let purchase: Result<Option<Purchase>, _> = core.store.load(claim.ticket_id).await;
        let has_purchase = matches!(purchase, Ok(Some(_)));
        let stored = match purchase {
            Ok(purchase) => {
                let mut commit = also(purchase);
                commit.fenced_by(epoch_fence(claim.event_id, epoch));
                core.store.commit(commit).await
            }
            Err(error) => Err(error.into()),
        };
        let ending = match &stored {
            Ok(()) => Some(Ending::Free),
            Err(error) if error.may_be_applied() => None,
            Err(_) => Some(Ending::UndoRelease(retry_at)),
        };
        // If this fails, or the outcome is unknown, the claim expires a little later, with the same message.
        let freed = match ending {
            Some(ending) => expiry::end(core, &[claim], ending).await,
            None => Ok(Vec::new()),
        };
        if let Err(error) = &freed {
            tracing::warn!(ticket.id = %claim.ticket_id, %error, "cannot end a release in Redis; the claim expires later");
        }
        match stored {
            // This process was paused for so long that the claim expired, or waits on with a purchase.
            Ok(()) if !has_purchase && freed.is_ok_and(|freed| freed.is_empty()) => {
                let reason = "the reservation has changed during its release".to_owned();
                Err(StoreError::Unavailable(reason).into())
            }
            Ok(()) => Ok(true),
            Err(CommitError::Fenced { .. }) => Err(Refusal::Rebuilding.into()),
            Err(error) => Err(error.into()),
        }
    }

    pub async fn set_sale(&self, sale: &Allocation) -> Result<Commit, StoreError> {
        let (core, event_id) = (&self.core, sale.event_id);
        core.missing_events.remove(event_id);
        let mut call = on_event(&core.scripts.set_sale, &core.server, event_id);
        call.arg(sale.event_version).arg(sale.quantity);
        add_rules(&mut call, sale);
        let epoch: Option<i64> = core.server.call(&call).await?;
        let fence = epoch.map(|epoch| epoch_fence(event_id, epoch));
        if let Some(fence) = fence
            && core.is_current(&fence).await?
        {
            let mut commit = Commit::new();
            commit.fenced_by(fence);
            return Ok(commit);
        }
        if core.store.load::<Allocation>(event_id).await?.is_some() {
            return Err(core.rebuild_first(event_id));
        }
        match rebuild::open(core, sale).await? {
            // No fence: no decision can rest on an older reply.
            RebuildOutcome::Done => Ok(Commit::new()),
            RebuildOutcome::ByAnother => {
                let text = format!("another process is opening event {event_id}");
                Err(StoreError::Unavailable(text))
            }
        }
    }

    pub async fn stats(&self, event_id: EventId) -> Result<Option<Stats>, Error> {
        let call = on_event(&self.core.scripts.stats, &self.core.server, event_id);
        let reply: Option<(i64, i64, i64)> = self.core.server.call(&call).await?;
        let Some((quantity, waiting, completed)) = reply else {
            return self.core.none_unless_lost(event_id).await;
        };
        Ok(Some(Stats::new(quantity, waiting, completed)))
    }
}

/// A completed claim has no row here: its Commit is valid as long as the epoch is.
fn completion(reply: ScriptReply) -> Completion {
    match (Claim::decode(&reply.text), reply.fence) {
        (Some(_), Some(fence)) => Completion::Completed(ClaimProof::Fence(fence)),
        _ => Completion::Gone,
    }
}

fn fenced(reply: ScriptReply) -> Commit {
    let mut commit = Commit::new();
    if let Some(fence) = reply.fence {
        commit.fenced_by(fence);
    }
    commit
}

fn add_rules(call: &mut ScriptInvocation<'_>, sale: &Allocation) {
    call.arg(or_empty(sale.price.map(Money::get)))
        .arg(or_empty(sale.sale_opens_at.map(Timestamp::as_millis)))
        .arg(or_empty(sale.sale_closes_at.map(Timestamp::as_millis)));
}

fn or_empty(number: Option<impl ToString>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

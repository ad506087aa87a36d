//! The distributed backend: all stocks in Redis, one script an operation, shared by every process.
//!
//! **What is durable.** A claim that waits for payment is as durable as Redis itself is configured to be, and no row of
//! the store says it: nothing but Redis is written before a grant is answered, except what the caller wants stored
//! with it. Redis is fast, not sacred. What is bought is in the store (tickets, allocation), and where Redis comes
//! back without its data it is rebuilt from there (`rebuild`), while reservations are refused as
//! [`Refusal::Rebuilding`].
//!
//! **Time** is the caller's: no script reads a clock. **Keys** of one event share a hash tag. State here: the queue
//! of wishes (`batcher`), and which events this process rebuilds.

mod absent;
mod batcher;
mod claims;
mod core;
mod expiry;
mod rebuild;
mod scripts;

use std::sync::Arc;

use contract::{EventId, TicketId, Timestamp, UserId};
use messaging::{Clock, Commit, Store, StoreError};
use redis::ScriptInvocation;
use tokio::sync::{mpsc, oneshot};

pub use claims::{Claims, ClaimsError};

use self::{
    batcher::{Pending, QUEUE_WISHES_MAX},
    core::{Answered, Core, fence},
    rebuild::Rebuilt,
    scripts::{Claim, on_event},
};
use super::{
    Claimed, Completion, Error, Granted, Held, Keeping, Lapse, Lapsed, Refusal, Stats, Wish,
};
use crate::{
    model::{AgreedPrice, Allocation, Purchase, ReservationState},
    redis_server::RedisServer,
};

/// How long what began to lapse, or to be given up, is left to the one who began it.
pub(crate) const LAPSE_AGAIN_MILLIS: i64 = 30_000;

/// What the backend must know of how long claims stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisHold {
    /// No claim lapses sooner than this after its grant.
    pub claim_millis_min: i64,
    /// How much later than its deadline a claim lapses that was rebuilt.
    pub grace_millis: i64,
}

#[derive(Clone)]
pub struct Redis {
    core: Arc<Core>,
    wishes: mpsc::Sender<Pending>,
}

impl Redis {
    /// Must be called on the runtime.
    pub(super) fn open(server: RedisServer, store: Store, clock: Clock, hold: RedisHold) -> Self {
        let core = Arc::new(Core::new(server, store, clock, hold));
        let (wishes, queue) = mpsc::channel(QUEUE_WISHES_MAX);
        tokio::spawn(batcher::run(Arc::downgrade(&core), queue));
        Self { core, wishes }
    }

    pub(super) fn store(&self) -> &Store {
        &self.core.store
    }

    pub(super) async fn reserve(&self, wish: Wish, now: Timestamp) -> Result<Granted, Error> {
        let (answer, answered) = oneshot::channel();
        let pending = Pending { wish, now, answer };
        if self.wishes.try_send(pending).is_err() {
            return Err(StoreError::Overloaded.into());
        }
        let stopped = || StoreError::Unavailable("the process is stopping".to_owned());
        answered.await.unwrap_or_else(|_| Err(stopped().into()))
    }

    pub(super) async fn find(
        &self,
        event_id: EventId,
        user_id: UserId,
    ) -> Result<Option<Held>, Error> {
        let mut call = on_event(&self.core.scripts.find, &self.core.server, event_id);
        call.arg(user_id.0);
        let known: Option<(String, String, String)> = self.core.server.call(&call).await?;
        let Some((price, waiting, completed)) = known else {
            return self.nothing(event_id).await;
        };
        let price = price
            .parse()
            .ok()
            .and_then(|price| contract::Money::new(price).ok());
        let held = |text: &str, state| {
            Claim::read(text).map(|claim| Held {
                ticket_id: claim.ticket_id,
                state,
                expires_at: claim.expires_at,
                price: claim.price.map_or(price, AgreedPrice::price),
            })
        };
        Ok(held(&waiting, ReservationState::Waiting)
            .or_else(|| held(&completed, ReservationState::Completed)))
    }

    /// A ticket whose purchase was begun is in the store; the others, Redis knows.
    pub(super) async fn named(&self, ticket_id: TicketId) -> Result<Option<Claimed>, Error> {
        let purchase: Option<Purchase> = self.core.store.load(ticket_id).await?;
        match purchase {
            Some(purchase) => Ok(Some(Claimed {
                event_id: purchase.event_id,
                user_id: purchase.user_id,
                ticket_id,
            })),
            None => Ok(batcher::recall(&self.core, ticket_id).await?),
        }
    }

    pub(super) async fn complete(&self, claims: &[Claimed]) -> Result<Vec<Completion>, StoreError> {
        let script = &self.core.scripts.complete;
        let answers = self.core.ask_of_claims(script, "", claims).await?;
        self.vouch(claims, &answers).await?;
        Ok(answers.into_iter().map(completion).collect())
    }

    pub(super) async fn retake(
        &self,
        claims: &[Claimed],
        lapses_at: Timestamp,
    ) -> Result<(), StoreError> {
        let (script, at) = (&self.core.scripts.retake, lapses_at.as_millis().to_string());
        let answers = self.core.ask_of_claims(script, &at, claims).await?;
        self.vouch(claims, &answers).await
    }

    pub(super) async fn release(
        &self,
        claims: &[Claimed],
        which: &str,
    ) -> Result<Vec<Commit>, StoreError> {
        let script = &self.core.scripts.release;
        let answers = self.core.ask_of_claims(script, which, claims).await?;
        self.vouch(claims, &answers).await?;
        Ok(answers.into_iter().map(fenced).collect())
    }

    async fn vouch(&self, claims: &[Claimed], answers: &[Answered]) -> Result<(), StoreError> {
        let events = claims.iter().map(|claimed| claimed.event_id);
        let fences = answers.iter().map(|answered| answered.fence.clone());
        self.core.vouch(events.zip(fences)).await
    }

    /// Ends whether or not the caller goes away: what began to be given up is given up, or stands.
    pub(super) async fn give_up(&self, claimed: Claimed, also: Commit) -> Result<bool, Error> {
        let core = Arc::clone(&self.core);
        let given = tokio::spawn(async move { give_up(&core, claimed, also).await });
        match given.await {
            Ok(given) => given,
            Err(stopped) => Err(StoreError::Unavailable(stopped.to_string()).into()),
        }
    }

    pub(super) async fn expire(
        &self,
        now: Timestamp,
        max: usize,
        telling: impl Fn(Lapse) -> Commit,
    ) -> Result<Lapsed, StoreError> {
        expiry::expire(&self.core, now, max, telling).await
    }

    pub(super) async fn set_sale(&self, sale: &Allocation) -> Result<Commit, StoreError> {
        let (core, event_id) = (&self.core, sale.event_id);
        core.absent.forget(event_id);
        let mut call = on_event(&core.scripts.set_sale, &core.server, event_id);
        call.arg(sale.event_version).arg(sale.quantity);
        add_rules(&mut call, sale);
        let epoch: Option<i64> = core.server.call(&call).await?;
        let fence = epoch.map(|epoch| fence(event_id, epoch));
        if let Some(fence) = fence
            && core.is_last(&fence).await?
        {
            let mut commit = Commit::new();
            commit.fenced_by(fence);
            return Ok(commit);
        }
        if core.store.load::<Allocation>(event_id).await?.is_some() {
            return Err(core.rebuild_first(event_id));
        }
        match rebuild::open(core, sale).await? {
            // What is decided now carries no fence: there is no older answer that it could be based on.
            Rebuilt::Done => Ok(Commit::new()),
            Rebuilt::ByAnother => {
                let text = format!("event {event_id} is being opened by another process");
                Err(StoreError::Unavailable(text))
            }
        }
    }

    pub(super) async fn stats(&self, event_id: EventId) -> Result<Option<Stats>, Error> {
        let call = on_event(&self.core.scripts.stats, &self.core.server, event_id);
        let known: Option<(i64, i64, i64)> = self.core.server.call(&call).await?;
        let Some((quantity, waiting, completed)) = known else {
            return self.nothing(event_id).await;
        };
        Ok(Some(Stats {
            quantity,
            waiting,
            completed,
            available: quantity - waiting - completed,
        }))
    }

    /// Nothing can be said of an event that is being rebuilt; of one that does not exist there is nothing to say.
    async fn nothing<T>(&self, event_id: EventId) -> Result<Option<T>, Error> {
        match self.core.unknown(event_id).await {
            Error::Refused(Refusal::EventNotFound) => Ok(None),
            error => Err(error),
        }
    }
}

async fn give_up(core: &Arc<Core>, claimed: Claimed, also: Commit) -> Result<bool, Error> {
    let again = core.again_after(core.clock.now());
    let mut call = on_event(&core.scripts.give_up, &core.server, claimed.event_id);
    call.arg(claimed.user_id.0)
        .arg(claimed.ticket_id.to_string())
        .arg(again.as_millis());
    let known: Option<String> = core.server.call(&call).await?;
    let Some(epoch) = known else {
        return match core.unknown(claimed.event_id).await {
            Error::Refused(Refusal::EventNotFound) => Ok(false),
            error => Err(error),
        };
    };
    let Ok(epoch) = epoch.parse() else {
        return Ok(false);
    };
    let mut commit = also;
    commit.fenced_by(fence(claimed.event_id, epoch));
    let stored = core.store.commit(commit).await;
    let how = match &stored {
        Ok(()) => Some("done"),
        Err(error) if error.may_be_applied() => None,
        Err(_) => Some("undo"),
    };
    // Where this fails, or nobody knows, it lapses a little later, with the same message.
    if let Some(how) = how
        && let Err(error) = expiry::end(core, &[claimed], how).await
    {
        tracing::warn!(ticket.id = %claimed.ticket_id, %error, "what was given up lapses later");
    }
    match stored {
        Ok(()) => Ok(true),
        Err(messaging::CommitError::Fenced { .. }) => Err(Refusal::Rebuilding.into()),
        Err(error) => Err(error.into()),
    }
}

/// A claim that is completed has no row here: its Commit holds as long as the epoch does.
fn completion(answered: Answered) -> Completion {
    match (Claim::read(&answered.text), answered.fence) {
        (Some(_), Some(fence)) => Completion::Completed(Keeping::Fence(fence)),
        _ => Completion::Gone,
    }
}

fn fenced(answered: Answered) -> Commit {
    let mut commit = Commit::new();
    if let Some(fence) = answered.fence {
        commit.fenced_by(fence);
    }
    commit
}

fn add_rules(call: &mut ScriptInvocation<'_>, sale: &Allocation) {
    call.arg(or_empty(sale.price.map(contract::Money::get)))
        .arg(or_empty(sale.sale_opens_at.map(Timestamp::as_millis)))
        .arg(or_empty(sale.sale_closes_at.map(Timestamp::as_millis)));
}

fn or_empty(number: Option<impl ToString>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

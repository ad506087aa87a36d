//! What every part of the Redis backend shares: the server, the store behind it, the scripts, and the calls that
//! several parts make. State: which events this process is rebuilding.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
};

use contract::EventId;
use futures::future::try_join_all;
use messaging::{Clock, Fence, Key, Record as _, Store, StoreError, lease::LeaseRecord};
use redis::Script;
use tokio::sync::Semaphore;

use super::{
    RedisHold,
    missing_events::MissingEvents,
    rebuild,
    scripts::{Scripts, on_event},
};
use crate::{
    model::Allocation,
    redis_server::RedisServer,
    reservations::{ClaimId, Error, Refusal},
};

/// Events that one process rebuilds at once.
const REBUILDS_MAX: usize = 4;
/// Concurrent store lookups of events that Redis does not know, each for one batch.
const LOOKUPS_MAX: usize = 64;

pub(super) struct Core {
    pub server: RedisServer,
    pub store: Store,
    pub clock: Clock,
    pub hold: RedisHold,
    pub scripts: Scripts,
    pub missing_events: MissingEvents,
    rebuilding: Mutex<HashSet<EventId>>,
    rebuilds: Semaphore,
    pub lookups: Arc<Semaphore>,
}

impl Core {
    pub fn new(server: RedisServer, store: Store, clock: Clock, hold: RedisHold) -> Self {
        Self {
            server,
            store,
            clock,
            hold,
            scripts: Scripts::default(),
            missing_events: MissingEvents::default(),
            rebuilding: Mutex::default(),
            rebuilds: Semaphore::new(REBUILDS_MAX),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }

    /// Why Redis does not know an event: it does not exist, or it was lost. A lost event is rebuilt in the background.
    pub async fn unknown_event(self: &Arc<Self>, event_id: EventId) -> Error {
        if self.missing_events.contains(event_id, self.clock.now()) {
            return Refusal::EventNotFound.into();
        }
        match self.store.load::<Allocation>(event_id).await {
            Ok(None) => {
                self.missing_events.insert(event_id, self.clock.now());
                Refusal::EventNotFound.into()
            }
            Ok(Some(_)) => {
                self.start_rebuild(event_id);
                Refusal::Rebuilding.into()
            }
            Err(error) => error.into(),
        }
    }

    /// `None` if the event does not exist; an error if it is being rebuilt.
    pub async fn none_unless_lost<T>(
        self: &Arc<Self>,
        event_id: EventId,
    ) -> Result<Option<T>, Error> {
        match self.unknown_event(event_id).await {
            Error::Refused(Refusal::EventNotFound) => Ok(None),
            error => Err(error),
        }
    }

    /// Rebuilds an event in the background, unless this process does so already.
    pub fn start_rebuild(self: &Arc<Self>, event_id: EventId) {
        let Some(slot) = RebuildSlot::take(self, event_id) else {
            return;
        };
        tokio::spawn(async move {
            let core = Arc::clone(&slot.core);
            let Ok(_permit) = core.rebuilds.acquire().await else {
                return;
            };
            if let Err(error) = rebuild::rebuild(&core, event_id).await {
                tracing::warn!(event.id = %event_id, %error, "cannot rebuild the reservations of an event; the next request tries again");
            }
            drop(slot);
        });
    }

    /// Calls a script that takes `argument` and any number of claims, once for each event. Returns the reply for each
    /// claim, in the order of the claims.
    pub async fn call_for_claims(
        &self,
        script: &Script,
        argument: &str,
        claims: &[ClaimId],
    ) -> Result<Vec<ScriptReply>, StoreError> {
        let mut by_event: BTreeMap<EventId, Vec<(usize, ClaimId)>> = BTreeMap::new();
        for (index, claim) in claims.iter().enumerate() {
            let same = by_event.entry(claim.event_id).or_default();
            same.push((index, *claim));
        }
        let calls = by_event
            .into_iter()
            .map(|(event_id, claims)| self.call_for_event(script, argument, event_id, claims));
        let mut replies = try_join_all(calls).await?.concat();
        replies.sort_by_key(|(index, _)| *index);
        Ok(replies.into_iter().map(|(_, reply)| reply).collect())
    }

    async fn call_for_event(
        &self,
        script: &Script,
        argument: &str,
        event_id: EventId,
        claims: Vec<(usize, ClaimId)>,
    ) -> Result<Vec<(usize, ScriptReply)>, StoreError> {
        let mut call = on_event(script, &self.server, event_id);
        call.arg(argument);
        for (_, claim) in &claims {
            call.arg(claim.user_id.0).arg(claim.ticket_id.to_string());
        }
        // The epoch, then a word for each claim.
        let reply: Option<Vec<String>> = self.server.call(&call).await?;
        let mut words = reply.unwrap_or_default().into_iter();
        let epoch = words.next().and_then(|epoch| epoch.parse().ok());
        let fence = epoch.map(|epoch| epoch_fence(event_id, epoch));
        let replies = claims.into_iter().map(|(index, _)| {
            let (text, fence) = (words.next().unwrap_or_default(), fence.clone());
            (index, ScriptReply { text, fence })
        });
        Ok(replies.collect())
    }

    /// As [`call_for_claims`](Self::call_for_claims), for a consumer: it may only decide on replies of the epoch that the
    /// store holds, or about an event that does not exist. An event with another epoch is rebuilt, and the consumer
    /// retries.
    pub async fn call_in_epoch(
        self: &Arc<Self>,
        script: &Script,
        argument: &str,
        claims: &[ClaimId],
    ) -> Result<Vec<ScriptReply>, StoreError> {
        let replies = self.call_for_claims(script, argument, claims).await?;
        let events = claims.iter().map(|claim| claim.event_id);
        let fences = replies.iter().map(|reply| reply.fence.as_ref());
        self.verify_epoch(events.zip(fences).collect()).await?;
        Ok(replies)
    }

    async fn verify_epoch(
        self: &Arc<Self>,
        fences: BTreeMap<EventId, Option<&Fence>>,
    ) -> Result<(), StoreError> {
        let names = fences.keys().map(|event_id| lease_name(*event_id));
        let keys: Vec<Key> = names.map(Key::from).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let mut current = Vec::new();
        for row in self.store.load_rows(LeaseRecord::TABLE, &keys).await? {
            let record: LeaseRecord = row.read()?;
            current.push(Fence {
                lease: record.name,
                token: record.token,
            });
        }
        for (event_id, fence) in fences {
            let is_current = fence.is_some_and(|fence| current.contains(fence));
            // Every claim on an event that does not exist is gone.
            if !is_current && self.store.load::<Allocation>(event_id).await?.is_some() {
                return Err(self.rebuild_first(event_id));
            }
        }
        Ok(())
    }

    /// Starts a rebuild, and returns the error that makes a consumer retry.
    pub fn rebuild_first(self: &Arc<Self>, event_id: EventId) -> StoreError {
        self.start_rebuild(event_id);
        StoreError::Unavailable(format!(
            "the reservations of event {event_id} are being rebuilt"
        ))
    }

    /// Whether the store holds the same epoch.
    pub async fn is_current(&self, fence: &Fence) -> Result<bool, StoreError> {
        let record: Option<LeaseRecord> = self.store.load(fence.lease.as_str()).await?;
        Ok(record.is_some_and(|record| record.token == fence.token))
    }

    fn rebuilding(&self) -> MutexGuard<'_, HashSet<EventId>> {
        self.rebuilding
            .lock()
            .expect("no holder of this lock panics")
    }
}

/// What a script answers about one claim, and the epoch that the answer is of.
#[derive(Debug, Clone)]
pub(super) struct ScriptReply {
    /// Empty if the claim or the event is unknown.
    pub text: String,
    pub fence: Option<Fence>,
}

/// The lease whose token is the event's epoch.
pub(super) fn lease_name(event_id: EventId) -> String {
    format!("reservations/{event_id}")
}

/// Refuses a Commit once the event has a later epoch.
pub(super) fn epoch_fence(event_id: EventId, epoch: i64) -> Fence {
    Fence {
        lease: lease_name(event_id),
        token: epoch,
    }
}

/// Held by the one task of this process that rebuilds an event.
struct RebuildSlot {
    core: Arc<Core>,
    event_id: EventId,
}

impl RebuildSlot {
    fn take(core: &Arc<Core>, event_id: EventId) -> Option<Self> {
        core.rebuilding().insert(event_id).then(|| Self {
            core: Arc::clone(core),
            event_id,
        })
    }
}

impl Drop for RebuildSlot {
    fn drop(&mut self) {
        self.core.rebuilding().remove(&self.event_id);
    }
}

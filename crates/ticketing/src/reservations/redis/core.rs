//! What every part of the backend shares: the server, the store behind it, the scripts, and the calls that several
//! parts make. State: which events this process is rebuilding.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
};

use contract::{EventId, Timestamp};
use futures::future::try_join_all;
use messaging::{Clock, Fence, Key, Record as _, Store, StoreError, lease::LeaseRecord};
use redis::Script;
use tokio::sync::Semaphore;

use super::{
    RedisHold,
    absent::Absent,
    rebuild::{self, Rebuilt},
    scripts::{Scripts, on_event},
};
use crate::{
    model::Allocation,
    redis_server::RedisServer,
    reservations::{Claimed, Error, Refusal},
};

/// Events that one process rebuilds at once.
const REBUILDS_MAX: usize = 4;
/// Batches of wishes for events that Redis does not know, of which the store is asked at once.
const LOOKUPS_MAX: usize = 64;

pub(super) struct Core {
    pub server: RedisServer,
    pub store: Store,
    pub clock: Clock,
    pub hold: RedisHold,
    pub scripts: Scripts,
    pub absent: Absent,
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
            absent: Absent::default(),
            rebuilding: Mutex::default(),
            rebuilds: Semaphore::new(REBUILDS_MAX),
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
        }
    }

    /// What it means that Redis does not know an event: there is none, or it was lost and is rebuilt from now on.
    pub async fn unknown(self: &Arc<Self>, event_id: EventId) -> Error {
        if self.absent.contains(event_id, self.clock.now()) {
            return Refusal::EventNotFound.into();
        }
        match self.store.load::<Allocation>(event_id).await {
            Ok(None) => {
                self.absent.note(event_id, self.clock.now());
                Refusal::EventNotFound.into()
            }
            Ok(Some(_)) => {
                self.begin_rebuilding(event_id);
                Refusal::Rebuilding.into()
            }
            Err(error) => error.into(),
        }
    }

    /// Rebuilds an event in the background, where this process does not already.
    pub fn begin_rebuilding(self: &Arc<Self>, event_id: EventId) {
        let Some(turn) = Turn::take(self, event_id) else {
            return;
        };
        tokio::spawn(async move {
            let core = Arc::clone(&turn.core);
            let Ok(_place) = core.rebuilds.acquire().await else {
                return;
            };
            match rebuild::rebuild(&core, event_id).await {
                Ok(Rebuilt::Done | Rebuilt::ByAnother) => {}
                Err(error) => {
                    tracing::warn!(event.id = %event_id, %error, "the reservations of an event were not rebuilt");
                }
            }
            drop(turn);
        });
    }

    /// Calls a script that takes `how` and any number of claims, once for each event, and puts what it says of each
    /// claim in the order of the claims.
    pub async fn ask_of_claims(
        &self,
        script: &Script,
        how: &str,
        claims: &[Claimed],
    ) -> Result<Vec<Answered>, StoreError> {
        let mut by_event: BTreeMap<EventId, Vec<(usize, Claimed)>> = BTreeMap::new();
        for (place, claimed) in claims.iter().enumerate() {
            let same = by_event.entry(claimed.event_id).or_default();
            same.push((place, *claimed));
        }
        let asked = by_event
            .into_iter()
            .map(|(event_id, claims)| self.ask_event(script, how, event_id, claims));
        let mut placed = try_join_all(asked).await?.concat();
        placed.sort_by_key(|(place, _)| *place);
        Ok(placed.into_iter().map(|(_, answered)| answered).collect())
    }

    async fn ask_event(
        &self,
        script: &Script,
        how: &str,
        event_id: EventId,
        claims: Vec<(usize, Claimed)>,
    ) -> Result<Vec<(usize, Answered)>, StoreError> {
        let mut call = on_event(script, &self.server, event_id);
        call.arg(how);
        for (_, claimed) in &claims {
            call.arg(claimed.user_id.0)
                .arg(claimed.ticket_id.to_string());
        }
        // The epoch, then a word for each claim.
        let known: Option<Vec<String>> = self.server.call(&call).await?;
        let mut words = known.unwrap_or_default().into_iter();
        let epoch = words.next().and_then(|epoch| epoch.parse().ok());
        let fence = epoch.map(|epoch| fence(event_id, epoch));
        let answered = claims.into_iter().map(|(place, _)| {
            let (text, fence) = (words.next().unwrap_or_default(), fence.clone());
            (place, Answered { text, fence })
        });
        Ok(answered.collect())
    }

    /// Answers to a consumer are worth something only where Redis knows every event, in the state that the store
    /// says is the last. Else it is rebuilt, and the consumer waits.
    pub async fn vouch(
        self: &Arc<Self>,
        answers: impl Iterator<Item = (EventId, Option<Fence>)>,
    ) -> Result<(), StoreError> {
        let answers: BTreeMap<EventId, Option<Fence>> = answers.collect();
        let keys: Vec<Key> = answers
            .keys()
            .map(|event_id| lease_name(*event_id).into())
            .collect();
        if keys.is_empty() {
            return Ok(());
        }
        let mut last = HashSet::new();
        for row in self.store.load_rows(LeaseRecord::TABLE, &keys).await? {
            let record: LeaseRecord = row.read()?;
            last.insert((record.name, record.token));
        }
        for (event_id, fence) in answers {
            let is_last = fence.is_some_and(|fence| last.contains(&(fence.lease, fence.token)));
            if !is_last && !self.is_without_stock(event_id).await? {
                return Err(self.rebuild_first(event_id));
            }
        }
        Ok(())
    }

    /// For a consumer: what it wants to know is being rebuilt, and it is to ask again.
    pub fn rebuild_first(self: &Arc<Self>, event_id: EventId) -> StoreError {
        self.begin_rebuilding(event_id);
        StoreError::Unavailable(format!(
            "the reservations of event {event_id} are being rebuilt"
        ))
    }

    /// Whether the store says the same epoch.
    pub async fn is_last(&self, fence: &Fence) -> Result<bool, StoreError> {
        let record: Option<LeaseRecord> = self.store.load(fence.lease.as_str()).await?;
        Ok(record.is_some_and(|record| record.token == fence.token))
    }

    /// Whether there is no such event: then every claim on it is gone.
    async fn is_without_stock(&self, event_id: EventId) -> Result<bool, StoreError> {
        let known: Option<Allocation> = self.store.load(event_id).await?;
        Ok(known.is_none())
    }

    /// When what began to lapse is taken up again, where nobody has ended it.
    pub fn again_after(&self, now: Timestamp) -> Timestamp {
        now.plus_millis(super::LAPSE_AGAIN_MILLIS)
    }
}

/// What a script said of one claim, and the proof that it still holds.
#[derive(Debug, Clone)]
pub(super) struct Answered {
    /// Empty where the claim, or the event, is not known.
    pub text: String,
    pub fence: Option<Fence>,
}

/// The lease whose token is an event's epoch.
pub(super) fn lease_name(event_id: EventId) -> String {
    format!("reservations/{event_id}")
}

pub(super) fn fence(event_id: EventId, epoch: i64) -> Fence {
    Fence {
        lease: lease_name(event_id),
        token: epoch,
    }
}

/// One task of this process rebuilds an event at a time.
struct Turn {
    core: Arc<Core>,
    event_id: EventId,
}

impl Turn {
    fn take(core: &Arc<Core>, event_id: EventId) -> Option<Self> {
        let mut rebuilding = core
            .rebuilding
            .lock()
            .expect("no holder of this lock panics");
        rebuilding.insert(event_id).then(|| Self {
            core: Arc::clone(core),
            event_id,
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut rebuilding = self
            .core
            .rebuilding
            .lock()
            .expect("no holder of this lock panics");
        rebuilding.remove(&self.event_id);
    }
}

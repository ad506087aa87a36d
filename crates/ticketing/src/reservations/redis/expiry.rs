//! Expires claims, over all events. A sorted set holds when each event is to be checked next. That is never later than
//! the event's first `lapses_at`, because a new claim expires no sooner than its whole hold from now; so reserving need
//! not update the set.
//!
//! An expiry has two halves: `begin_expiry` marks due claims in Redis, then their messages are committed, then
//! `end_expiry` frees each claim, or postpones it if its purchase has begun. After a crash in between, the claim is due
//! again with the same messages. When Redis loses its data it loses the set, and with it the marker key that says that
//! every event of the store is known.

use std::sync::Arc;

use contract::{EventId, Timestamp};
use messaging::{Commit, Find, Record as _, StoreError, Submission};
use redis::Cmd;

use super::{
    EXPIRY_RETRY_MILLIS, Redis,
    core::Core,
    rebuild::{RebuildOutcome, rebuild},
    scripts::{key, on_event},
};
use crate::{
    model::Allocation,
    reservations::{
        ClaimId, DueClaim, ExpiredClaims, RECHECK_SECS, claim::Claim, open_purchases,
        was_not_applied,
    },
};

/// Events checked in one round.
const EVENTS_MAX: isize = 64;
/// Events of the store read at once, after Redis lost its data.
const PAGE_EVENTS: u32 = 500;
/// How often an event with nothing waiting is checked.
const CHECK_MILLIS_MAX: i64 = 60_000;
/// How far the clocks of two processes may differ.
const CLOCK_SKEW_MILLIS: i64 = 10_000;
/// When an event that is being rebuilt is checked again.
const REBUILDING_MILLIS: i64 = 1_000;

/// How an expiry that has begun ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The claim is freed.
    Free,
    /// The claim waits on as before, unless its buyer is giving it back.
    Undo,
    /// The claim waits on as before, if it is still marked by the release that began with this `retry_at`.
    UndoRelease(Timestamp),
    /// The claim waits on, and expires at this time.
    Postpone(Timestamp),
}

impl Redis {
    /// Expires up to `max` claims that are due by `now`.
    pub async fn expire(
        &self,
        now: Timestamp,
        max: usize,
        publish: impl Fn(DueClaim) -> Commit,
    ) -> Result<ExpiredClaims, StoreError> {
        let core = &self.core;
        rebuild_lost_events(core).await?;
        let mut due = Vec::new();
        while due.len() < max {
            let events = events_due(core, now).await?;
            if events.is_empty() {
                break;
            }
            for event_id in events {
                if due.len() < max {
                    due.extend(begin(core, event_id, now, max - due.len()).await?);
                }
            }
        }
        if due.is_empty() {
            return Ok(ExpiredClaims::default());
        }
        // A purchase that begins after this read finds its claim gone.
        let open = open_purchases(&core.store, due.iter().map(|due| due.claim)).await?;
        let submission = Submission::of(due.iter().map(|due| {
            let mut commit = publish(*due);
            // Unchanged: the Commit of a release that was paused since before this expiry conflicts with that, so its claim
            // can wait on.
            if let Some(purchase) = open.get(&due.claim.ticket_id) {
                commit.put(purchase);
            }
            commit
        }));
        fail::fail_point!("ticketing.before_lapse", |_| std::process::abort());
        let outcomes = core.store.submit(submission).outcomes().await;
        let claims = || due.iter().map(|due| due.claim);
        // A claim whose message may be stored is due again a little later, with the same message.
        let failed = claims().zip(&outcomes);
        let failed: Vec<ClaimId> = failed
            .filter_map(|(claim, outcome)| was_not_applied(outcome).then_some(claim))
            .collect();
        let ended = claims().map(|claim| (claim, !open.contains_key(&claim.ticket_id)));
        let (mut expired, failure) = ExpiredClaims::by_outcome(ended, outcomes);
        let recheck = Ending::Postpone(now.plus_secs(RECHECK_SECS));
        // If one of these calls fails, its claims are due again a little later.
        let _ = end(core, &failed, Ending::Undo).await;
        for event_id in failed.iter().map(|claim| claim.event_id) {
            let _ = check_now(core, event_id).await;
        }
        let _ = end(core, &expired.closing, recheck).await;
        expired.freed = end(core, &expired.freed, Ending::Free).await?;
        failure.map_or(Ok(expired), Err)
    }
}

/// Schedules a check of this event in the next round.
pub(super) async fn check_now(core: &Core, event_id: EventId) -> Result<(), StoreError> {
    check_at(core, event_id, Timestamp::from_millis(0)).await
}

async fn check_at(core: &Core, event_id: EventId, at: Timestamp) -> Result<(), StoreError> {
    let command = Cmd::zadd(core.server.key("events"), event_id.0, at.as_millis());
    core.server.ask(&command).await
}

async fn events_due(core: &Core, now: Timestamp) -> Result<Vec<EventId>, StoreError> {
    let due = events_between(core, "-inf".to_owned(), now.as_millis().to_string()).await?;
    if !due.is_empty() {
        return Ok(due);
    }
    // No check is scheduled that far ahead: the clock was set back since.
    let misdated = now.plus_millis(CHECK_MILLIS_MAX + CLOCK_SKEW_MILLIS);
    events_between(core, misdated.as_millis().to_string(), "+inf".to_owned()).await
}

/// Up to `EVENTS_MAX` events whose next check is within this time.
async fn events_between(core: &Core, from: String, to: String) -> Result<Vec<EventId>, StoreError> {
    let key = core.server.key("events");
    let command = Cmd::zrangebyscore_limit(key, from, to, 0, EVENTS_MAX);
    let events: Vec<i64> = core.server.ask(&command).await?;
    Ok(events.into_iter().map(EventId).collect())
}

/// Begins the expiry of an event's due claims, and schedules the event's next check.
async fn begin(
    core: &Arc<Core>,
    event_id: EventId,
    now: Timestamp,
    max: usize,
) -> Result<Vec<DueClaim>, StoreError> {
    let mut call = on_event(&core.scripts.begin_expiry, &core.server, event_id);
    let latest = now.plus_millis(core.hold.claim_millis_min + CLOCK_SKEW_MILLIS);
    call.arg(now.as_millis())
        .arg(max)
        .arg(now.plus_millis(EXPIRY_RETRY_MILLIS).as_millis())
        .arg(latest.as_millis());
    let reply: Option<Vec<String>> = core.server.call(&call).await?;
    let Some(reply) = reply else {
        core.start_rebuild(event_id);
        check_at(core, event_id, now.plus_millis(REBUILDING_MILLIS)).await?;
        return Ok(Vec::new());
    };
    let (next, claims) = reply
        .split_first()
        .map_or(("", &[][..]), |(next, claims)| (next.as_str(), claims));
    // No claim that is granted from now on expires before this.
    let latest = now.plus_millis(core.hold.claim_millis_min.min(CHECK_MILLIS_MAX));
    let next = next.parse::<i64>().map_or(latest, Timestamp::from_millis);
    check_at(core, event_id, next.min(latest)).await?;
    let due_claim = |pair: &[String]| {
        let claim = Claim::decode(&pair[1])?;
        Some(DueClaim {
            claim: ClaimId {
                event_id,
                user_id: pair[0].parse().ok()?,
                ticket_id: claim.ticket_id,
            },
            lapses_at: claim.deadlines.lapses_at,
        })
    };
    Ok(claims.chunks_exact(2).filter_map(due_claim).collect())
}

/// Ends the expiry of claims. Returns those that were freed; a claim that was paid meanwhile is not.
pub(super) async fn end(
    core: &Core,
    claims: &[ClaimId],
    ending: Ending,
) -> Result<Vec<ClaimId>, StoreError> {
    let argument = match ending {
        Ending::Free => "done".to_owned(),
        Ending::Undo => "undo".to_owned(),
        Ending::UndoRelease(retry_at) => format!("undo|{}", retry_at.as_millis()),
        Ending::Postpone(at) => at.as_millis().to_string(),
    };
    let replies = core
        .call_for_claims(&core.scripts.end_expiry, &argument, claims)
        .await?;
    let freed = claims
        .iter()
        .zip(replies)
        .filter(|(_, reply)| reply.text == "F");
    Ok(freed.map(|(claim, _)| *claim).collect())
}

/// If the marker key is missing, rebuilds every event of the store that Redis does not know. Otherwise claims of events
/// that nobody requests would never expire.
async fn rebuild_lost_events(core: &Core) -> Result<(), StoreError> {
    let marker = core.server.key("whole");
    if core.server.ask(&Cmd::exists(marker.as_str())).await? {
        return Ok(());
    }
    let mut is_whole = true;
    let mut pages = core.store.pages(Find::all(Allocation::TABLE, PAGE_EVENTS));
    while let Some(sales) = pages.next::<Allocation>().await? {
        for event_id in sales.iter().map(|sale| sale.event_id) {
            let sale = key(&core.server, event_id, "sale");
            if core.server.ask(&Cmd::exists(sale)).await? {
                check_now(core, event_id).await?;
            } else {
                is_whole &= rebuild(core, event_id).await? == RebuildOutcome::Done;
            }
        }
    }
    if is_whole {
        core.server.ask::<()>(&Cmd::set(marker, 1)).await?;
    }
    Ok(())
}

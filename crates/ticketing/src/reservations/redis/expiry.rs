//! Lapses, over all events. A list of events says when each is to be looked at; it is never behind the first claim
//! that is due, because a new claim lapses no sooner than its whole time from now. So reserving costs nothing here.
//!
//! A lapse has two halves: what is due begins to lapse in Redis, then its messages are committed, then it is freed, or
//! waits on if its purchase was begun. Who crashes between leaves it to be taken up again, with the same messages. The list is gone where Redis lost its
//! data; a marker beside it says that every event of the store is there.

use std::{collections::HashSet, sync::Arc};

use contract::{EventId, TicketId, Timestamp};
use messaging::{Commit, CommitError, Find, Record as _, StoreError, Submission};

use super::{
    core::Core,
    rebuild::{Rebuilt, rebuild},
    scripts::{Claim, key, on_event, read_user},
};
use crate::{
    model::Allocation,
    reservations::{self, Claimed, LOOK_AGAIN_SECS, Lapse, Lapsed},
};

/// Events looked at in one round.
const EVENTS_MAX: usize = 64;
/// Events of the store read at once, where Redis lost its list.
const PAGE_EVENTS: u32 = 500;
/// An event with nothing waiting is looked at so often.
const LOOK_MILLIS_MAX: i64 = 60_000;
/// How far the clocks of two processes may differ.
const CLOCKS_DIFFER_MILLIS: i64 = 10_000;
/// How long until an event that is being rebuilt is looked at again.
const REBUILDING_MILLIS: i64 = 1_000;

/// Lapses up to `max` claims that are due by `now`.
pub(super) async fn expire(
    core: &Arc<Core>,
    now: Timestamp,
    max: usize,
    telling: impl Fn(Lapse) -> Commit,
) -> Result<Lapsed, StoreError> {
    find_lost(core).await?;
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
        return Ok(Lapsed::default());
    }
    // A purchase that begins behind this look finds that its claim is gone.
    let begun = reservations::begun(&core.store, &due).await?;
    let submission = Submission {
        commits: due.iter().map(|lapse| telling(*lapse)).collect(),
        position: None,
    };
    fail::fail_point!("ticketing.before_lapse", |_| std::process::abort());
    let outcomes = core.store.submit(submission).outcomes().await;
    let (mut ended, failure) = Ended::of(due, &begun, outcomes);
    let again = now.plus_secs(LOOK_AGAIN_SECS);
    // If any of this fails they are due again a little later.
    let _ = end(core, &ended.failed, "undo").await;
    for event_id in ended.failed.iter().map(|claimed| claimed.event_id) {
        let _ = enlist(core, event_id).await;
    }
    let _ = end(core, &ended.lapsed.closing, &again.as_millis().to_string()).await;
    ended.lapsed.freed = end(core, &ended.lapsed.freed, "done").await?;
    match failure {
        None => Ok(ended.lapsed),
        Some(CommitError::Store(error)) => Err(error),
        Some(error) => Err(StoreError::Unavailable(error.to_string())),
    }
}

/// Puts an event on the list, to be looked at at once.
pub(super) async fn enlist(core: &Core, event_id: EventId) -> Result<(), StoreError> {
    look_at(core, event_id, Timestamp::from_millis(0)).await
}

async fn look_at(core: &Core, event_id: EventId, at: Timestamp) -> Result<(), StoreError> {
    let mut command = redis::cmd("ZADD");
    command
        .arg(core.server.key("events"))
        .arg(at.as_millis())
        .arg(event_id.0);
    core.server.ask(&command).await
}

async fn events_due(core: &Core, now: Timestamp) -> Result<Vec<EventId>, StoreError> {
    let due = events_between(core, "-inf".to_owned(), now.as_millis().to_string()).await?;
    if !due.is_empty() {
        return Ok(due);
    }
    // No event is put so far ahead: the clock was set back since.
    let misdated = now.plus_millis(LOOK_MILLIS_MAX + CLOCKS_DIFFER_MILLIS);
    events_between(core, misdated.as_millis().to_string(), "+inf".to_owned()).await
}

/// Up to `EVENTS_MAX` events that are to be looked at within this time.
async fn events_between(core: &Core, from: String, to: String) -> Result<Vec<EventId>, StoreError> {
    let mut command = redis::cmd("ZRANGE");
    command
        .arg(core.server.key("events"))
        .arg(from)
        .arg(to)
        .arg("BYSCORE")
        .arg("LIMIT")
        .arg(0)
        .arg(EVENTS_MAX);
    let events: Vec<i64> = core.server.ask(&command).await?;
    Ok(events.into_iter().map(EventId).collect())
}

/// What begins to lapse now, and when the event is to be looked at next.
async fn begin(
    core: &Arc<Core>,
    event_id: EventId,
    now: Timestamp,
    max: usize,
) -> Result<Vec<Lapse>, StoreError> {
    let mut call = on_event(&core.scripts.lapse, &core.server, event_id);
    let latest = now.plus_millis(core.hold.claim_millis_min + CLOCKS_DIFFER_MILLIS);
    call.arg(now.as_millis())
        .arg(max)
        .arg(core.again_after(now).as_millis())
        .arg(latest.as_millis());
    let answer: Option<Vec<String>> = core.server.call(&call).await?;
    let Some(answer) = answer else {
        core.begin_rebuilding(event_id);
        look_at(core, event_id, now.plus_millis(REBUILDING_MILLIS)).await?;
        return Ok(Vec::new());
    };
    let (next, claims) = answer
        .split_first()
        .map_or(("", &[][..]), |(next, claims)| (next.as_str(), claims));
    // No claim that is granted from now on lapses before this.
    let latest = now.plus_millis(core.hold.claim_millis_min.min(LOOK_MILLIS_MAX));
    let next = next.parse::<i64>().map_or(latest, Timestamp::from_millis);
    look_at(core, event_id, next.min(latest)).await?;
    let lapse = |pair: &[String]| {
        let claim = Claim::read(&pair[1])?;
        let claimed = Claimed {
            event_id,
            user_id: read_user(&pair[0])?,
            ticket_id: claim.ticket_id,
        };
        let lapses_at = claim.lapses_at;
        Some(Lapse { claimed, lapses_at })
    };
    Ok(claims.chunks_exact(2).filter_map(lapse).collect())
}

/// What became of the messages of claims that began to lapse.
#[derive(Default)]
struct Ended {
    lapsed: Lapsed,
    failed: Vec<Claimed>,
}

impl Ended {
    fn of(
        due: Vec<Lapse>,
        begun: &HashSet<TicketId>,
        outcomes: Vec<Result<(), CommitError>>,
    ) -> (Self, Option<CommitError>) {
        let (mut ended, mut failure) = (Self::default(), None);
        for (Lapse { claimed, .. }, outcome) in due.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) if begun.contains(&claimed.ticket_id) => ended.lapsed.closing.push(claimed),
                Ok(()) => ended.lapsed.freed.push(claimed),
                Err(error) => {
                    // What may have been told lapses a little later, with the same message.
                    let is_untold = !error.may_be_applied();
                    ended.failed.extend(is_untold.then_some(claimed));
                    failure = Some(error);
                }
            }
        }
        (ended, failure)
    }
}

/// Ends what began to lapse: `done` frees it, `undo` lets it wait on, a time lets it wait until then. Returns what was freed. What was paid meanwhile is not.
pub(super) async fn end(
    core: &Core,
    claims: &[Claimed],
    how: &str,
) -> Result<Vec<Claimed>, StoreError> {
    let answers = core
        .ask_of_claims(&core.scripts.lapsed, how, claims)
        .await?;
    let freed = claims.iter().zip(answers).filter(|(_, it)| it.text == "F");
    Ok(freed.map(|(claimed, _)| *claimed).collect())
}

/// Where the marker is missing, every event of the store that Redis does not know is rebuilt. Claims that nobody asks
/// for would else never lapse.
async fn find_lost(core: &Core) -> Result<(), StoreError> {
    let marker = core.server.key("whole");
    let is_whole: i64 = core.server.ask(redis::cmd("EXISTS").arg(&marker)).await?;
    if is_whole == 1 {
        return Ok(());
    }
    let (mut after, mut is_whole) = (None, true);
    loop {
        let find = Find::all(Allocation::TABLE, PAGE_EVENTS).after(after);
        let sales: Vec<Allocation> = core.store.find(find).await?;
        let Some(last) = sales.last() else { break };
        after = Some(last.event_id);
        for event_id in sales.iter().map(|sale| sale.event_id) {
            let mut command = redis::cmd("EXISTS");
            command.arg(key(&core.server, event_id, "sale"));
            let is_known: i64 = core.server.ask(&command).await?;
            if is_known == 1 {
                enlist(core, event_id).await?;
            } else {
                is_whole &= rebuild(core, event_id).await? == Rebuilt::Done;
            }
        }
    }
    if is_whole {
        let mut command = redis::cmd("SET");
        command.arg(&marker).arg(1);
        core.server.ask::<()>(&command).await?;
    }
    Ok(())
}

//! Batches reserve requests: a bounded queue, and one task that sends everything queued in one call per event as soon
//! as the previous call was answered. Batches are never delayed to fill up.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use contract::{EventId, TicketId, Timestamp};
use futures::future::join_all;
use messaging::{Commit, CommitOutcome, StoreError, Submission, Unresolved};
use redis::Cmd;
use tokio::sync::{mpsc, oneshot};

use super::{
    EXPIRY_RETRY_MILLIS,
    core::Core,
    expiry::{self, Ending},
    scripts::on_event,
};
use crate::reservations::{
    ClaimId, Error, Granted, Refusal, ReserveRequest, claim::Claim, open_purchases, was_not_applied,
};

/// Requests queued in this process; one more is refused as overloaded.
pub(super) const QUEUE_REQUESTS_MAX: usize = 16_384;
/// Requests of one batch, all events together: bounds how long a script blocks the server.
const BATCH_REQUESTS_MAX: usize = 512;
/// How often, and how far apart, the undoing of grants whose answer was lost is tried.
const UNDO_TRIES: u32 = 10;
const UNDO_RETRY_MILLIS: i64 = 1_000;
/// How much longer than its claim a ticket's index entry is kept.
const INDEX_EXTRA_MILLIS: i64 = 60_000;

/// A request, and the caller who waits for its answer.
pub(super) struct PendingRequest {
    pub request: ReserveRequest,
    pub now: Timestamp,
    pub answer: oneshot::Sender<Result<Granted, Error>>,
}

impl PendingRequest {
    /// Replaces the requested claim by the one that the same request was granted before. Nothing is committed with it.
    fn granted_before(mut self, claim: Claim) -> Self {
        self.request = ReserveRequest {
            claim: ClaimId {
                ticket_id: claim.ticket_id,
                ..self.request.claim
            },
            deadlines: claim.deadlines,
            also: Commit::new(),
        };
        self
    }
}

/// A request that Redis granted, and that is not answered yet.
struct Grant {
    pending: PendingRequest,
    granted: Granted,
}

/// A grant that its caller was not told: undone unless it was granted again since, with a later `lapses_at`.
struct UnconfirmedGrant {
    claim: ClaimId,
    lapses_at: Timestamp,
}

impl From<&PendingRequest> for UnconfirmedGrant {
    fn from(PendingRequest { request, .. }: &PendingRequest) -> Self {
        Self {
            claim: request.claim,
            lapses_at: request.deadlines.lapses_at,
        }
    }
}

/// Ends when the last sender is dropped. Holds no strong reference while idle, so dropping the backend closes its store.
pub(super) async fn run(core: Weak<Core>, mut queue: mpsc::Receiver<PendingRequest>) {
    let mut batch = Vec::with_capacity(BATCH_REQUESTS_MAX);
    while queue.recv_many(&mut batch, BATCH_REQUESTS_MAX).await > 0 {
        let Some(core) = core.upgrade() else { return };
        let mut by_event: HashMap<EventId, Vec<PendingRequest>> = HashMap::new();
        for pending in batch.drain(..) {
            let same = by_event.entry(pending.request.claim.event_id).or_default();
            same.push(pending);
        }
        let calls = by_event
            .into_iter()
            .map(|(event_id, requests)| grant(&core, event_id, requests));
        let mut granted = Vec::new();
        for answer in join_all(calls).await {
            match answer {
                Ok(some) => granted.extend(some),
                Err(error) => refuse_queued(&mut queue, &error.into()),
            }
        }
        if !granted.is_empty() {
            // The next call does not wait for these commits.
            tokio::spawn(settle(Arc::clone(&core), granted));
        }
    }
}

/// Redis does not answer: requests queued during the call fail now instead of after a timeout each. None was sent.
fn refuse_queued(queue: &mut mpsc::Receiver<PendingRequest>, error: &Error) {
    for _ in 0..queue.len() {
        if let Ok(pending) = queue.try_recv() {
            let _ = pending.answer.send(Err(error.clone()));
        }
    }
}

/// Answers the refused requests, and returns the granted ones.
async fn grant(
    core: &Arc<Core>,
    event_id: EventId,
    requests: Vec<PendingRequest>,
) -> Result<Vec<Grant>, StoreError> {
    let (answers, before) = match decide(core, event_id, &requests).await {
        Ok(Some(answers)) => answers,
        Ok(None) => {
            answer_unknown_event(core, event_id, requests);
            return Ok(Vec::new());
        }
        Err(error) => {
            let unconfirmed = requests.iter().map(UnconfirmedGrant::from).collect();
            tokio::spawn(undo_grants(Arc::clone(core), event_id, unconfirmed));
            answer_all(requests, &error.clone().into());
            return Err(error);
        }
    };
    let mut grants = Vec::new();
    let mut before = before.into_iter();
    for (pending, answer) in requests.into_iter().zip(answers.bytes()) {
        let refusal = match answer {
            b'G' => {
                let granted = Granted::Now;
                grants.push(Grant { pending, granted });
                continue;
            }
            b'B' => {
                if let Some(claim) = before.next() {
                    let granted = Granted::Before(claim.reserved());
                    let pending = pending.granted_before(claim);
                    grants.push(Grant { pending, granted });
                }
                continue;
            }
            b'R' => Refusal::AlreadyReserved,
            b'P' => Refusal::AlreadyPurchased,
            b'N' => Refusal::SaleNotOpen,
            _ => Refusal::SoldOut,
        };
        // The caller may be gone.
        let _ = pending.answer.send(Err(refusal.into()));
    }
    Ok(grants)
}

/// Asks the store whether an event that Redis does not know exists. No other request waits for that.
fn answer_unknown_event(core: &Arc<Core>, event_id: EventId, requests: Vec<PendingRequest>) {
    let Ok(permit) = Arc::clone(&core.lookups).try_acquire_owned() else {
        return answer_all(requests, &StoreError::Overloaded.into());
    };
    let core = Arc::clone(core);
    tokio::spawn(async move {
        let error = core.unknown_event(event_id).await;
        drop(permit);
        answer_all(requests, &error);
    });
}

/// Undoes grants once Redis and the store answer again: their callers were told of a failure. What cannot be undone by the
/// last try stands until it expires. A grant that a purchase has begun with stands.
async fn undo_grants(core: Arc<Core>, event_id: EventId, unconfirmed: Vec<UnconfirmedGrant>) {
    for _ in 0..UNDO_TRIES {
        let next = core.clock.now().plus_millis(UNDO_RETRY_MILLIS);
        core.clock.wait_until(next).await;
        if undo_grants_now(&core, event_id, &unconfirmed).await.is_ok() {
            return;
        }
    }
}

async fn undo_grants_now(
    core: &Core,
    event_id: EventId,
    unconfirmed: &[UnconfirmedGrant],
) -> Result<(), StoreError> {
    let mut call = on_event(&core.scripts.undo_grant, &core.server, event_id);
    let retry_at = core.clock.now().plus_millis(EXPIRY_RETRY_MILLIS);
    call.arg(retry_at.as_millis());
    for UnconfirmedGrant { claim, lapses_at } in unconfirmed {
        call.arg(claim.user_id.0)
            .arg(claim.ticket_id.to_string())
            .arg(lapses_at.as_millis());
    }
    // Nothing is granted for an event that Redis does not know.
    let words: Option<Vec<String>> = core.server.call(&call).await?;
    let words = words.unwrap_or_default();
    let marked = unconfirmed.iter().zip(words);
    let marked: Vec<ClaimId> = marked
        .filter_map(|(grant, word)| (word == "M").then_some(grant.claim))
        .collect();
    if marked.is_empty() {
        return Ok(());
    }
    // Another request of the user may have found the claim. A purchase that begins after this look finds it gone.
    let open = open_purchases(&core.store, marked.iter().copied()).await?;
    let (used, unused): (Vec<ClaimId>, Vec<ClaimId>) = marked
        .into_iter()
        .partition(|claim| open.contains_key(&claim.ticket_id));
    expiry::end(core, &used, Ending::Undo).await?;
    expiry::end(core, &unused, Ending::Free).await?;
    Ok(())
}

/// One letter for each request, and the claims of those that were granted before; `None` if Redis does not know the
/// event.
async fn decide(
    core: &Core,
    event_id: EventId,
    requests: &[PendingRequest],
) -> Result<Option<(String, Vec<Claim>)>, StoreError> {
    let mut call = on_event(&core.scripts.reserve, &core.server, event_id);
    for PendingRequest { request, now, .. } in requests {
        call.arg(request.claim.user_id.0)
            .arg(request.claim.ticket_id.to_string())
            .arg(now.as_millis())
            .arg(request.deadlines.expires_at.as_millis())
            .arg(request.deadlines.lapses_at.as_millis());
    }
    let answers: Option<Vec<String>> = match core.server.call(&call).await {
        Ok(answers) => answers,
        // Only the answer may have been lost; the script grants a granted request again.
        Err(_) => core.server.call(&call).await?,
    };
    Ok(answers.map(|answers| {
        let mut answers = answers.into_iter();
        let letters = answers.next().unwrap_or_default();
        let claims = answers.filter_map(|text| Claim::decode(&text));
        (letters, claims.collect())
    }))
}

fn answer_all(requests: Vec<PendingRequest>, error: &Error) {
    for pending in requests {
        let _ = pending.answer.send(Err(error.clone()));
    }
}

/// Commits what goes with each grant, indexes the tickets, and answers. A grant whose commit failed is undone; one
/// whose commit has an unknown outcome stands until that is known.
async fn settle(core: Arc<Core>, granted: Vec<Grant>) {
    fail::fail_point!("ticketing.before_answer", |_| std::process::abort());
    let (mut with, mut without): (Vec<Grant>, Vec<Grant>) = granted
        .into_iter()
        .partition(|grant| !grant.pending.request.also.is_empty());
    let commits: Vec<Commit> = with
        .iter_mut()
        .map(|grant| std::mem::take(&mut grant.pending.request.also))
        .collect();
    let commit = async {
        if commits.is_empty() {
            return Ok(Vec::new());
        }
        let receipt = core.store.submit(Submission::of(commits));
        receipt.outcomes_or_unresolved().await
    };
    let index = index_tickets(&core, with.iter().chain(&without));
    let (outcomes, ()) = tokio::join!(commit, index);
    for Grant { pending, granted } in without.drain(..) {
        let _ = pending.answer.send(Ok(granted));
    }
    match outcomes {
        Ok(outcomes) => {
            for (grant, outcome) in with.into_iter().zip(outcomes) {
                answer(&core, grant, outcome).await;
            }
        }
        Err(unresolved) => {
            let weak = Arc::downgrade(&core);
            drop(core);
            answer_unknown(weak, with, unresolved).await;
        }
    }
}

/// Answers that the outcome is unknown, waits until it is known, and undoes what was not stored. Holds no strong
/// reference meanwhile.
async fn answer_unknown(core: Weak<Core>, grants: Vec<Grant>, unresolved: Unresolved) {
    let mut unconfirmed = Vec::with_capacity(grants.len());
    for Grant { pending, .. } in grants {
        unconfirmed.push(UnconfirmedGrant::from(&pending));
        let unknown = StoreError::Unknown(unresolved.reason.clone());
        let _ = pending.answer.send(Err(unknown.into()));
    }
    let Some(outcomes) = unresolved.resolved().await else {
        return;
    };
    let Some(core) = core.upgrade() else { return };
    let mut by_event: HashMap<EventId, Vec<UnconfirmedGrant>> = HashMap::new();
    for (grant, outcome) in unconfirmed.into_iter().zip(outcomes) {
        if was_not_applied(&outcome) {
            let same = by_event.entry(grant.claim.event_id).or_default();
            same.push(grant);
        }
    }
    for (event_id, unconfirmed) in by_event {
        undo_grants(Arc::clone(&core), event_id, unconfirmed).await;
    }
}

/// Answers by the outcome of the grant's commit. A commit may conflict because another process answered the same keyed
/// request first: then the claim was granted again there, and `undo_grant` leaves it.
async fn answer(core: &Arc<Core>, grant: Grant, outcome: CommitOutcome) {
    let Grant { pending, granted } = grant;
    if let Err(error) = &outcome
        && was_not_applied(&outcome)
    {
        let claim = pending.request.claim;
        let unconfirmed = vec![UnconfirmedGrant::from(&pending)];
        if let Err(undo_error) = undo_grants_now(core, claim.event_id, &unconfirmed).await {
            tracing::warn!(ticket.id = %claim.ticket_id, %error, %undo_error, "cannot undo a grant that was not stored yet; it is tried again, and expires at the latest");
            tokio::spawn(undo_grants(Arc::clone(core), claim.event_id, unconfirmed));
        }
    }
    let _ = pending
        .answer
        .send(outcome.map(|()| granted).map_err(Error::from));
}

/// Indexes event and user by ticket, for requests that name only the ticket. Without its entry a reservation cannot be
/// released before it expires; nothing else depends on it.
async fn index_tickets<'a>(core: &Core, granted: impl Iterator<Item = &'a Grant>) {
    let mut by_key: HashMap<String, (Vec<(String, String)>, i64)> = HashMap::new();
    for Grant { pending, .. } in granted {
        let PendingRequest { request, now, .. } = pending;
        let claim = request.claim;
        let key = ticket_key(core, claim.ticket_id);
        let (fields, keep_millis) = by_key.entry(key).or_default();
        let owner = format!("{}|{}", claim.event_id, claim.user_id);
        fields.push((claim.ticket_id.to_string(), owner));
        let claim_millis = request.deadlines.lapses_at.millis_since(*now);
        *keep_millis = (*keep_millis).max(claim_millis + INDEX_EXTRA_MILLIS);
    }
    let written = by_key.into_iter().map(async |(key, (fields, millis))| {
        let (set, keep) = (
            Cmd::hset_multiple(&key, &fields),
            Cmd::pexpire(&key, millis),
        );
        tokio::try_join!(core.server.ask::<()>(&set), core.server.ask::<()>(&keep))
    });
    for failed in join_all(written).await.into_iter().filter_map(Result::err) {
        tracing::warn!(error = %failed, "cannot index tickets: their reservations cannot be released by ticketId");
    }
}

/// The tickets of one second share a key, so a batch writes few keys: a ticket's id begins with its time.
fn ticket_key(core: &Core, ticket_id: TicketId) -> String {
    let second = ticket_id.second();
    core.server.key(format_args!("tickets:{{{second}}}"))
}

/// The claim on this ticket; `None` if it is not indexed.
pub(super) async fn lookup_ticket(
    core: &Core,
    ticket_id: TicketId,
) -> Result<Option<ClaimId>, StoreError> {
    let command = Cmd::hget(ticket_key(core, ticket_id), ticket_id.to_string());
    let known: Option<String> = core.server.ask(&command).await?;
    Ok(known.and_then(|known| {
        let (event, user) = known.split_once('|')?;
        Some(ClaimId {
            event_id: event.parse().ok()?,
            user_id: user.parse().ok()?,
            ticket_id,
        })
    }))
}

//! Wishes that arrive together go in one call: a queue with a limit, and one task that takes everything that waits
//! there as soon as the call before has been answered. Nobody waits for company.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use contract::{EventId, TicketId, Timestamp, UserId};
use futures::future::join_all;
use messaging::{Commit, Outcome, StoreError, Submission, Unresolved};
use tokio::sync::{mpsc, oneshot};

use super::{
    core::Core,
    scripts::{self, Claim, on_event},
};
use crate::reservations::{Claimed, Error, Granted, Refusal, Wish, was_not_applied};

/// Wishes waiting in this process; one more is refused.
pub(super) const QUEUE_WISHES_MAX: usize = 16_384;
/// Wishes of one call, all events together: what a script may hold the server up for.
const BATCH_WISHES_MAX: usize = 512;
/// How often, and with how much time between, wishes are taken back whose answer was lost.
const TAKE_BACK_TRIES: u32 = 10;
const TAKE_BACK_MILLIS: i64 = 1_000;
/// How much longer than its claim the way from a ticket to its event is kept.
const TICKET_KEPT_MILLIS: i64 = 60_000;

/// A wish, and who waits for its answer.
pub(super) struct Pending {
    pub wish: Wish,
    pub now: Timestamp,
    pub answer: oneshot::Sender<Result<Granted, Error>>,
}

impl Pending {
    /// The same request was granted this before: that is what is remembered and told, and its answer is for the caller
    /// to make.
    fn granted_before(self, claim: Claim) -> Self {
        let Claim {
            ticket_id,
            expires_at,
            lapses_at,
            price: _,
        } = claim;
        let wish = Wish {
            ticket_id,
            expires_at,
            lapses_at,
            also: Commit::new(),
            ..self.wish
        };
        Self { wish, ..self }
    }
}

/// A wish that was granted.
struct Grant {
    pending: Pending,
    granted: Granted,
}

/// Ends when the last sender has gone. Idle, it keeps nothing open: whoever lets go of the backend closes its store.
pub(super) async fn run(core: Weak<Core>, mut queue: mpsc::Receiver<Pending>) {
    let mut batch = Vec::with_capacity(BATCH_WISHES_MAX);
    while queue.recv_many(&mut batch, BATCH_WISHES_MAX).await > 0 {
        let Some(core) = core.upgrade() else { return };
        let mut by_event: HashMap<EventId, Vec<Pending>> = HashMap::new();
        for pending in batch.drain(..) {
            let same = by_event.entry(pending.wish.event_id).or_default();
            same.push(pending);
        }
        let calls = by_event
            .into_iter()
            .map(|(event_id, wishes)| grant(&core, event_id, wishes));
        let mut granted = Vec::new();
        for answered in join_all(calls).await {
            match answered {
                Ok(some) => granted.extend(some),
                Err(error) => refuse_waiting(&mut queue, &error.into()),
            }
        }
        if !granted.is_empty() {
            // The next call need not wait for what becomes durable elsewhere.
            tokio::spawn(settle(Arc::clone(&core), granted));
        }
    }
}

/// Redis does not answer: who has waited that long is told so, rather than each batch after the other. None of these
/// was sent.
fn refuse_waiting(queue: &mut mpsc::Receiver<Pending>, error: &Error) {
    for _ in 0..queue.len() {
        if let Ok(pending) = queue.try_recv() {
            let _ = pending.answer.send(Err(error.clone()));
        }
    }
}

/// Answers what is refused, and returns what is granted.
async fn grant(
    core: &Arc<Core>,
    event_id: EventId,
    wishes: Vec<Pending>,
) -> Result<Vec<Grant>, StoreError> {
    let (answers, before) = match decide(core, event_id, &wishes).await {
        Ok(Some(answers)) => answers,
        Ok(None) => {
            answer_unknown_event(core, event_id, wishes);
            return Ok(Vec::new());
        }
        Err(error) => {
            let untold: Vec<Untold> = wishes.iter().map(Untold::from).collect();
            tokio::spawn(take_back(Arc::clone(core), event_id, untold));
            answer_all(wishes, &error.clone().into());
            return Err(error);
        }
    };
    let mut granted = Vec::new();
    let mut before = before.into_iter();
    for (pending, answer) in wishes.into_iter().zip(answers.bytes()) {
        let refusal = match answer {
            b'G' => {
                let how = Granted::Now;
                granted.push(Grant {
                    pending,
                    granted: how,
                });
                continue;
            }
            b'B' => {
                if let Some(claim) = before.next() {
                    let how = Granted::Before {
                        ticket_id: claim.ticket_id,
                        expires_at: claim.expires_at,
                    };
                    let pending = pending.granted_before(claim);
                    granted.push(Grant {
                        pending,
                        granted: how,
                    });
                }
                continue;
            }
            b'R' => Refusal::AlreadyReserved,
            b'P' => Refusal::AlreadyPurchased,
            b'N' => Refusal::SaleNotOpen,
            _ => Refusal::SoldOut,
        };
        // Who asked may have gone away.
        let _ = pending.answer.send(Err(refusal.into()));
    }
    Ok(granted)
}

/// What is to be said of an event that Redis does not know, the store must be asked for. No other wish waits for that.
fn answer_unknown_event(core: &Arc<Core>, event_id: EventId, wishes: Vec<Pending>) {
    let Ok(place) = Arc::clone(&core.lookups).try_acquire_owned() else {
        return answer_all(wishes, &StoreError::Overloaded.into());
    };
    let core = Arc::clone(core);
    tokio::spawn(async move {
        let error = core.unknown(event_id).await;
        drop(place);
        answer_all(wishes, &error);
    });
}

/// Wishes may have been granted though no answer came, and their buyers were told that there is none: they are taken
/// back once Redis answers again, unless they were granted again since. What cannot be by then stands until it lapses.
async fn take_back(core: Arc<Core>, event_id: EventId, untold: Vec<Untold>) {
    for _ in 0..TAKE_BACK_TRIES {
        let next = core.clock.now().plus_millis(TAKE_BACK_MILLIS);
        core.clock.wait_until(next).await;
        if take_back_now(&core, event_id, &untold).await.is_ok() {
            return;
        }
    }
}

async fn take_back_now(
    core: &Core,
    event_id: EventId,
    untold: &[Untold],
) -> Result<(), StoreError> {
    let mut call = on_event(&core.scripts.take_back, &core.server, event_id);
    for it in untold {
        call.arg(it.user_id.0)
            .arg(it.ticket_id.to_string())
            .arg(it.lapses_at.as_millis());
    }
    // Of an event that is not known nothing is granted.
    let _: Option<bool> = core.server.call(&call).await?;
    Ok(())
}

/// What may have been granted, exactly as it was.
struct Untold {
    user_id: UserId,
    ticket_id: TicketId,
    lapses_at: Timestamp,
}

impl From<&Pending> for Untold {
    fn from(Pending { wish, .. }: &Pending) -> Self {
        Self {
            user_id: wish.user_id,
            ticket_id: wish.ticket_id,
            lapses_at: wish.lapses_at,
        }
    }
}

/// One letter for each wish, and the claims of those that were granted before; `None` where Redis does not know the
/// event.
async fn decide(
    core: &Core,
    event_id: EventId,
    wishes: &[Pending],
) -> Result<Option<(String, Vec<Claim>)>, StoreError> {
    let mut call = on_event(&core.scripts.reserve, &core.server, event_id);
    for Pending { wish, now, .. } in wishes {
        call.arg(wish.user_id.0)
            .arg(wish.ticket_id.to_string())
            .arg(now.as_millis())
            .arg(wish.expires_at.as_millis())
            .arg(wish.lapses_at.as_millis());
    }
    let answers: Option<Vec<String>> = match core.server.call(&call).await {
        Ok(answers) => answers,
        // The answer may have been lost after all was done; a wish that was granted is granted again.
        Err(_) => core.server.call(&call).await?,
    };
    Ok(answers.map(|answers| {
        let mut answers = answers.into_iter();
        let letters = answers.next().unwrap_or_default();
        (
            letters,
            answers.filter_map(|text| Claim::read(&text)).collect(),
        )
    }))
}

fn answer_all(wishes: Vec<Pending>, error: &Error) {
    for pending in wishes {
        let _ = pending.answer.send(Err(error.clone()));
    }
}

/// Makes durable what goes with each grant, and answers. If that fails the grant is taken back; while nobody knows,
/// it stands.
async fn settle(core: Arc<Core>, granted: Vec<Grant>) {
    fail::fail_point!("ticketing.before_answer", |_| std::process::abort());
    let (mut with, mut without): (Vec<Grant>, Vec<Grant>) = granted
        .into_iter()
        .partition(|grant| !grant.pending.wish.also.is_empty());
    let commits: Vec<Commit> = with
        .iter_mut()
        .map(|grant| std::mem::take(&mut grant.pending.wish.also))
        .collect();
    let commit = async {
        if commits.is_empty() {
            return Ok(Vec::new());
        }
        let submission = Submission {
            commits: commits.into(),
            position: None,
        };
        let receipt = core.store.submit(submission);
        receipt.outcomes_or_unresolved().await
    };
    let (outcomes, ()) = tokio::join!(commit, remember(&core, with.iter().chain(&without)));
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
            let core_then = Arc::downgrade(&core);
            drop(core);
            answer_unknown(core_then, with, unresolved).await;
        }
    }
}

/// Tells that it is not known, waits until it is, and takes back what was not stored. Meanwhile it keeps nothing open.
async fn answer_unknown(core: Weak<Core>, grants: Vec<Grant>, unresolved: Unresolved) {
    let mut untold = Vec::with_capacity(grants.len());
    for Grant { pending, .. } in grants {
        untold.push((pending.wish.event_id, Untold::from(&pending)));
        let unknown = StoreError::Unknown(unresolved.reason.clone());
        let _ = pending.answer.send(Err(unknown.into()));
    }
    let Some(outcomes) = unresolved.resolved().await else {
        return;
    };
    let Some(core) = core.upgrade() else { return };
    let mut by_event: HashMap<EventId, Vec<Untold>> = HashMap::new();
    for ((event_id, untold), outcome) in untold.into_iter().zip(outcomes) {
        if was_not_applied(&outcome) {
            by_event.entry(event_id).or_default().push(untold);
        }
    }
    for (event_id, untold) in by_event {
        take_back(Arc::clone(&core), event_id, untold).await;
    }
}

/// A process that was asked the same may have been faster: then it was granted again there, and is not taken back.
async fn answer(core: &Core, grant: Grant, outcome: Outcome) {
    let Grant { pending, granted } = grant;
    if let Err(error) = &outcome
        && was_not_applied(&outcome)
    {
        let untold = Untold::from(&pending);
        if let Err(also) = take_back_now(core, pending.wish.event_id, &[untold]).await {
            tracing::warn!(ticket.id = %pending.wish.ticket_id, %error, %also, "a grant that was not stored stands until it lapses");
        }
    }
    let _ = pending
        .answer
        .send(outcome.map(|()| granted).map_err(Error::from));
}

/// Writes down which event each ticket is of: some requests name the ticket alone. Without it a reservation cannot
/// be given back before it lapses; everything else goes on.
async fn remember<'a>(core: &Core, granted: impl Iterator<Item = &'a Grant>) {
    let mut by_key: HashMap<String, (Vec<String>, i64)> = HashMap::new();
    for Grant { pending, .. } in granted {
        let Pending { wish, now, .. } = pending;
        let (fields, keep_millis) = by_key
            .entry(ticket_key(core, wish.ticket_id))
            .or_insert((Vec::new(), 0));
        fields.push(wish.ticket_id.to_string());
        fields.push(format!("{}|{}", wish.event_id, wish.user_id));
        *keep_millis = (*keep_millis).max(wish.lapses_at.millis_since(*now) + TICKET_KEPT_MILLIS);
    }
    let written = by_key.into_iter().map(async |(key, (fields, millis))| {
        let (set, keep) = (
            redis::Cmd::hset_multiple(&key, &pairs(&fields)),
            redis::Cmd::pexpire(&key, millis),
        );
        tokio::try_join!(core.server.ask::<()>(&set), core.server.ask::<()>(&keep))
    });
    for failed in join_all(written).await.into_iter().filter_map(Result::err) {
        tracing::warn!(error = %failed, "reservations cannot be found by their tickets");
    }
}

fn pairs(fields: &[String]) -> Vec<(&str, &str)> {
    let pairs = fields.chunks_exact(2);
    pairs.map(|it| (it[0].as_str(), it[1].as_str())).collect()
}

/// The tickets of one second share a key, so that a batch writes few: a ticket's name begins with its time.
fn ticket_key(core: &Core, ticket_id: TicketId) -> String {
    let second = ticket_id.second();
    core.server.key(format_args!("tickets:{{{second}}}"))
}

/// Which claim this ticket names; `None` where it is not known here.
pub(super) async fn recall(
    core: &Core,
    ticket_id: TicketId,
) -> Result<Option<Claimed>, StoreError> {
    let mut command = redis::cmd("HGET");
    command
        .arg(ticket_key(core, ticket_id))
        .arg(ticket_id.to_string());
    let known: Option<String> = core.server.ask(&command).await?;
    let claimed = known.and_then(|known| {
        let (event, user) = known.split_once('|')?;
        Some(Claimed {
            event_id: event.parse().ok()?,
            user_id: scripts::read_user(user)?,
            ticket_id,
        })
    });
    Ok(claimed)
}

//! The embedded backend: all stocks in memory behind one mutex, held for a decision and never across an await. Each
//! decision is submitted to the store's writer under the same mutex, so the log of changes has the order of the
//! decisions, and a dropped caller undoes nothing. At start the memory is rebuilt from the rows.

mod expiry;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use contract::{EventId, TicketId, Timestamp, UserId};
use messaging::{
    Commit, CommitError, CommitHandle, CommitOutcome, Find, Record, Store, StoreError, Submission,
};

use super::{
    ClaimId, ClaimProof, Completion, Deadlines, DueClaim, Error, ExpiredClaims, Granted,
    RECHECK_SECS, Refusal, Reservation, ReserveRequest, Stats, claim::Claim, stock::Stock,
    was_not_applied, with_open_purchase,
};
use crate::model::{Allocation, ReservationRecord, ReservationState};

/// Rows of one read during the rebuild.
const REBUILD_ROWS: u32 = 10_000;

#[derive(Clone)]
pub(super) struct Local {
    store: Store,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    stocks: HashMap<EventId, Stock>,
    /// When claims expire. An entry whose claim has ended otherwise is skipped when it is due.
    expiry_queue: BinaryHeap<Reverse<(Timestamp, EventId, UserId)>>,
    /// Stored claims whose user has another claim, or whose ticket went to another user. They are due at once.
    superseded: Vec<ClaimId>,
}

impl Local {
    pub async fn rebuild(store: Store, now: Timestamp) -> Result<Self, StoreError> {
        let mut state = State::default();
        let mut after = None;
        loop {
            let page: Vec<Allocation> = store
                .find(Find::all(Allocation::TABLE, REBUILD_ROWS).after(after))
                .await?;
            let Some(last) = page.last() else { break };
            after = Some(last.event_id);
            state.stocks.extend(
                page.into_iter()
                    .map(|sale| (sale.event_id, Stock::new(sale))),
            );
        }
        let mut after = None;
        loop {
            let page: Vec<ReservationRecord> = store
                .find(Find::all(ReservationRecord::TABLE, REBUILD_ROWS).after(after))
                .await?;
            let Some(last) = page.last() else { break };
            after = Some(last.ticket_id);
            page.iter().for_each(|row| state.restore(row, now));
        }
        Ok(Self {
            store,
            state: Arc::new(Mutex::new(state)),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub fn store(&self) -> &Store {
        &self.store
    }

    fn submit(&self, commit: Commit) -> CommitHandle {
        self.store.submit(Submission {
            commits: [commit].into(),
            position: None,
        })
    }

    pub async fn reserve(&self, request: ReserveRequest, now: Timestamp) -> Result<Granted, Error> {
        let claim = request.claim;
        let (granted, receipt) = self.grant(request, now)?;
        match (granted, receipt) {
            (Granted::Before { ticket_id, .. }, _) => self.check_stored(ticket_id).await?,
            (Granted::Now, None) => {}
            (Granted::Now, Some(receipt)) => {
                let undo = move |state: &mut State| state.undo_grant(claim);
                self.stored_or(receipt, undo).await?;
            }
        }
        Ok(granted)
    }

    /// Waits for the commit, and undoes the decision in memory if it certainly was not stored, even if the caller is
    /// dropped or times out.
    async fn stored_or(
        &self,
        receipt: CommitHandle,
        undo: impl FnOnce(&mut State) + Send + 'static,
    ) -> Result<(), CommitError> {
        let state = Arc::clone(&self.state);
        let settle = move |outcomes: &[CommitOutcome]| {
            if outcomes.iter().any(was_not_applied) {
                undo(&mut lock(&state));
            }
        };
        let mut outcomes = receipt.settled(settle).await;
        outcomes.pop().expect("one outcome for one commit")
    }

    /// The first grant to the same request may not be stored yet. The store applies submissions in order, so its
    /// outcome is known after an empty one.
    async fn check_stored(&self, ticket_id: TicketId) -> Result<(), Error> {
        let barrier = self.store.submit(Submission::default()).outcomes().await;
        barrier.into_iter().collect::<Result<(), CommitError>>()?;
        match self.store.load::<ReservationRecord>(ticket_id).await? {
            Some(_) => Ok(()),
            None => {
                let reason = "the first grant to this request was not stored".to_owned();
                Err(StoreError::Unavailable(reason).into())
            }
        }
    }

    fn grant(
        &self,
        request: ReserveRequest,
        now: Timestamp,
    ) -> Result<(Granted, Option<CommitHandle>), Refusal> {
        let (id, deadlines) = (request.claim, request.deadlines);
        let mut state = self.state();
        let stock = state
            .stocks
            .get_mut(&id.event_id)
            .ok_or(Refusal::EventNotFound)?;
        let granted = stock.reserve(&request, now)?;
        if granted != Granted::Now {
            return Ok((granted, None));
        }
        let mut commit = request.also;
        commit.put(&ReservationRecord {
            agreed_price: stock.agreed_price(id.user_id),
            ..row(id, ReservationState::Waiting, deadlines)
        });
        fail::fail_point!("ticketing.before_grant", |_| std::process::abort());
        let receipt = self.submit(commit);
        if receipt.rejection().is_some() {
            stock.release(id);
        } else {
            state.schedule_expiry(id, deadlines.lapses_at);
        }
        Ok((granted, Some(receipt)))
    }

    pub fn find(&self, event_id: EventId, user_id: UserId) -> Option<Reservation> {
        self.state().stocks.get(&event_id)?.find(user_id)
    }

    pub async fn find_by_ticket(&self, ticket_id: TicketId) -> Result<Option<ClaimId>, StoreError> {
        let stored: Option<ReservationRecord> = self.store.load(ticket_id).await?;
        Ok(stored.as_ref().map(ClaimId::from))
    }

    pub fn complete(&self, claim: ClaimId) -> Completion {
        let mut state = self.state();
        let stock = state.stocks.get_mut(&claim.event_id);
        let deadlines = stock.and_then(|stock| stock.complete(claim));
        deadlines.map_or(Completion::Gone, |deadlines| {
            let row = row(claim, ReservationState::Completed, deadlines);
            Completion::Completed(ClaimProof::Row(row))
        })
    }

    pub fn retake(&self, claims: &[ClaimId], lapses_at: Timestamp) {
        let mut state = self.state();
        for claim in claims {
            let stock = state.stocks.get_mut(&claim.event_id);
            if stock.is_some_and(|stock| stock.retake(*claim, lapses_at)) {
                state.schedule_expiry(*claim, lapses_at);
            }
        }
    }

    pub fn release(&self, claim: ClaimId) -> Commit {
        let mut state = self.state();
        if let Some(stock) = state.stocks.get_mut(&claim.event_id) {
            stock.release(claim);
        }
        removal(claim)
    }

    pub fn release_unpaid(&self, claim: ClaimId) -> Commit {
        let mut state = self.state();
        if let Some(stock) = state.stocks.get_mut(&claim.event_id) {
            if stock.is_completed(claim) {
                return Commit::new();
            }
            stock.release(claim);
        }
        removal(claim)
    }

    pub async fn release_by_buyer(&self, claim: ClaimId, also: Commit) -> Result<bool, Error> {
        let mut commit = also;
        commit.remove::<ReservationRecord>(claim.ticket_id);
        let (released, receipt) = {
            let mut state = self.state();
            let stock = state.stocks.get_mut(&claim.event_id);
            let Some(released) = stock.and_then(|stock| stock.release_waiting(claim)) else {
                return Ok(false);
            };
            (released, self.submit(commit))
        };
        let put_back = move |state: &mut State| state.put_back(claim, released);
        self.stored_or(receipt, put_back).await?;
        Ok(true)
    }

    pub async fn expire(
        &self,
        now: Timestamp,
        max: usize,
        publish: impl Fn(DueClaim) -> Commit,
    ) -> Result<ExpiredClaims, StoreError> {
        let due = self.state().due(now, max);
        if due.is_empty() {
            return Ok(ExpiredClaims::default());
        }
        let open = with_open_purchase(&self.store, &due).await?;
        let (ended, receipt) = {
            let mut state = self.state();
            let ended = state.end_due(due, &open, now.plus_secs(RECHECK_SECS));
            let commits = ended.iter().map(|(due, is_freed)| {
                let mut commit = publish(*due);
                if *is_freed {
                    commit.remove::<ReservationRecord>(due.claim.ticket_id);
                }
                commit
            });
            let submission = Submission {
                commits: commits.collect(),
                position: None,
            };
            fail::fail_point!("ticketing.before_lapse", |_| std::process::abort());
            (ended, self.store.submit(submission))
        };
        let (state, submitted) = (Arc::clone(&self.state), ended.clone());
        let settle =
            move |outcomes: &[CommitOutcome]| lock(&state).settle_expiry(&submitted, outcomes);
        let outcomes = receipt.settled(settle).await;
        let mut expired = ExpiredClaims::default();
        let mut failure = None;
        for ((due, is_freed), outcome) in ended.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) if is_freed => expired.freed.push(due.claim),
                Ok(()) => expired.closing.push(due.claim),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            None => Ok(expired),
            Some(CommitError::Store(error)) => Err(error),
            Some(error) => Err(StoreError::Unavailable(error.to_string())),
        }
    }

    pub fn set_sale(&self, sale: &Allocation) {
        let mut state = self.state();
        state
            .stocks
            .entry(sale.event_id)
            .or_insert_with(|| Stock::new(sale.clone()))
            .set_sale(sale);
    }

    pub fn stats(&self, event_id: EventId) -> Option<Stats> {
        self.state().stocks.get(&event_id).map(Stock::stats)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().expect("no holder of this lock panics")
}

fn row(claim: ClaimId, state: ReservationState, deadlines: Deadlines) -> ReservationRecord {
    ReservationRecord {
        ticket_id: claim.ticket_id,
        event_id: claim.event_id,
        user_id: claim.user_id,
        state,
        expires_at: deadlines.expires_at,
        lapses_at: deadlines.lapses_at,
        agreed_price: None,
        version: 0,
    }
}

fn removal(claim: ClaimId) -> Commit {
    let mut commit = Commit::new();
    commit.remove::<ReservationRecord>(claim.ticket_id);
    commit
}

impl State {
    fn restore(&mut self, row: &ReservationRecord, now: Timestamp) {
        let id = ClaimId::from(row);
        let Some(stock) = self.stocks.get_mut(&id.event_id) else {
            return;
        };
        let claim = Claim {
            ticket_id: id.ticket_id,
            deadlines: Deadlines {
                expires_at: row.expires_at,
                lapses_at: id.ticket_id.no_later_than(row.lapses_at, now),
            },
            price: row.agreed_price,
        };
        let superseded = stock.restore(id.user_id, claim, row.state);
        if superseded != Some(id.ticket_id) && row.state == ReservationState::Waiting {
            self.schedule_expiry(id, claim.deadlines.lapses_at);
        }
        let superseded = superseded.map(|ticket_id| ClaimId { ticket_id, ..id });
        self.superseded.extend(superseded);
    }

    fn undo_grant(&mut self, claim: ClaimId) {
        if let Some(stock) = self.stocks.get_mut(&claim.event_id) {
            stock.release_waiting(claim);
        }
    }

    fn schedule_expiry(&mut self, claim: ClaimId, lapses_at: Timestamp) {
        let entry = (lapses_at, claim.event_id, claim.user_id);
        self.expiry_queue.push(Reverse(entry));
    }
}

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
    RECHECK_SECS, Refusal, Reservation, ReserveRequest, Stats, claim::Claim, open_purchases,
    stock::Stock, was_not_applied,
};
use crate::model::{Allocation, Purchase, ReservationRecord, ReservationState};

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
        let mut sales = store.pages(Find::all(Allocation::TABLE, REBUILD_ROWS));
        while let Some(page) = sales.next::<Allocation>().await? {
            let stocks = page
                .into_iter()
                .map(|sale| (sale.event_id, Stock::new(sale)));
            state.stocks.extend(stocks);
        }
        let mut claims = store.pages(Find::all(ReservationRecord::TABLE, REBUILD_ROWS));
        while let Some(page) = claims.next().await? {
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

    pub async fn reserve(&self, request: ReserveRequest, now: Timestamp) -> Result<Granted, Error> {
        let claim = request.claim;
        let (granted, receipt) = self.grant(request, now)?;
        match (granted, receipt) {
            (Granted::Before(first), _) => {
                let ticket_id = first.ticket_id;
                self.check_stored(ClaimId { ticket_id, ..claim }).await?;
            }
            (Granted::Now, None) => {}
            (Granted::Now, Some(receipt)) => {
                let end = move |state: &mut State, is_stored| match is_stored {
                    true => state.show(claim),
                    false => state.undo_grant(claim),
                };
                self.settled(receipt, end).await?;
            }
        }
        Ok(granted)
    }

    /// Waits for the commit, and ends the decision in memory once it is known whether it was stored, even if the caller is
    /// dropped or times out.
    async fn settled(
        &self,
        receipt: CommitHandle,
        end: impl FnOnce(&mut State, bool) + Send + 'static,
    ) -> Result<(), CommitError> {
        let state = Arc::clone(&self.state);
        let settle = move |outcomes: &[CommitOutcome]| {
            if outcomes.iter().any(was_not_applied) {
                end(&mut lock(&state), false);
            } else if outcomes.iter().all(Result::is_ok) {
                end(&mut lock(&state), true);
            }
        };
        let mut outcomes = receipt.settled(settle).await;
        outcomes.pop().expect("one outcome for one commit")
    }

    /// The first grant to the same request may not be stored yet. The store applies submissions in order, so its
    /// outcome is known after an empty one.
    async fn check_stored(&self, claim: ClaimId) -> Result<(), Error> {
        let barrier = self.store.submit(Submission::default()).outcomes().await;
        barrier.into_iter().collect::<Result<(), CommitError>>()?;
        match self
            .store
            .load::<ReservationRecord>(claim.ticket_id)
            .await?
        {
            Some(_) => {
                // The first caller may not have come to it yet.
                self.state().show(claim);
                Ok(())
            }
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
        let receipt = self.store.submit(Submission::of([commit]));
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

    /// Releases a claim, unless it is paid and paid ones are kept.
    pub fn release(&self, claim: ClaimId, keeps_paid: bool) -> Commit {
        let mut commit = Commit::new();
        let mut state = self.state();
        if let Some(stock) = state.stocks.get_mut(&claim.event_id) {
            if keeps_paid && stock.is_completed(claim) {
                return commit;
            }
            stock.release(claim);
        }
        commit.remove::<ReservationRecord>(claim.ticket_id);
        commit
    }

    pub async fn release_by_buyer(
        &self,
        claim: ClaimId,
        also: impl FnOnce(Option<Purchase>) -> Commit,
    ) -> Result<bool, Error> {
        if !self.state().hide(claim) {
            return Ok(false);
        }
        // A purchase that begins after this look finds no claim.
        let purchase = self.store.load(claim.ticket_id).await;
        let commit = purchase.map(also);
        let (released, receipt) = {
            let mut state = self.state();
            let Some(stock) = state.stocks.get_mut(&claim.event_id) else {
                return Ok(false);
            };
            let mut commit = commit.inspect_err(|_| stock.show(claim))?;
            let Some(released) = stock.release_waiting(claim) else {
                return Ok(false);
            };
            commit.remove::<ReservationRecord>(claim.ticket_id);
            (released, self.store.submit(Submission::of([commit])))
        };
        let end = move |state: &mut State, is_stored: bool| {
            if !is_stored {
                state.put_back(claim, released);
            }
        };
        self.settled(receipt, end).await?;
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
        let open = open_purchases(&self.store, due.iter().map(|due| due.claim)).await?;
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
            let submission = Submission::of(commits);
            fail::fail_point!("ticketing.before_lapse", |_| std::process::abort());
            (ended, self.store.submit(submission))
        };
        let (state, submitted) = (Arc::clone(&self.state), ended.clone());
        let settle =
            move |outcomes: &[CommitOutcome]| lock(&state).settle_expiry(&submitted, outcomes);
        let outcomes = receipt.settled(settle).await;
        let ended = ended
            .into_iter()
            .map(|(due, is_freed)| (due.claim, is_freed));
        let (expired, failure) = ExpiredClaims::by_outcome(ended, outcomes);
        failure.map_or(Ok(expired), Err)
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

    fn hide(&mut self, claim: ClaimId) -> bool {
        let stock = self.stocks.get_mut(&claim.event_id);
        stock.is_some_and(|stock| stock.hide(claim))
    }

    fn show(&mut self, claim: ClaimId) {
        if let Some(stock) = self.stocks.get_mut(&claim.event_id) {
            stock.show(claim);
        }
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

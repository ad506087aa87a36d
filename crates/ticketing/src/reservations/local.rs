//! The embedded backend: all stocks in memory behind one lock, held for a decision and never over a wait. What a
//! decision changes is handed to the store's writer under the same lock, so that the log of changes has the order
//! of the decisions, and dropping a caller undoes nothing. At start the memory is rebuilt from the rows.

mod lapses;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use contract::{EventId, TicketId, Timestamp, UserId};
use messaging::{
    Commit, CommitError, Find, Outcome, Receipt, Record, Store, StoreError, Submission,
};

use super::{
    Claimed, Completion, Error, Granted, Held, Keeping, LOOK_AGAIN_SECS, Lapse, Lapsed, Refusal,
    Stats, Stock, Wish, was_not_applied,
};
use crate::model::{Allocation, Reservation, ReservationState};

/// Rows read at once when the memory is rebuilt.
const REBUILD_ROWS: u32 = 10_000;

#[derive(Clone)]
pub struct Local {
    store: Store,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    stocks: HashMap<EventId, Stock>,
    /// When claims lapse. Entries of claims that ended otherwise are passed over when their time comes.
    lapses: BinaryHeap<Reverse<(Timestamp, EventId, UserId)>>,
    /// Stored claims beside which their user has another one, or whose ticket is another's by now; they lapse at once.
    superseded: Vec<Claimed>,
}

impl Local {
    pub(super) async fn rebuild(store: Store, now: Timestamp) -> Result<Self, StoreError> {
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
            let page: Vec<Reservation> = store
                .find(Find::all(Reservation::TABLE, REBUILD_ROWS).after(after))
                .await?;
            let Some(last) = page.last() else { break };
            after = Some(last.ticket_id);
            page.into_iter()
                .for_each(|reservation| state.restore(&reservation, now));
        }
        Ok(Self {
            store,
            state: Arc::new(Mutex::new(state)),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder of this lock panics")
    }

    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    fn submit(&self, commit: Commit) -> Receipt {
        self.store.submit(Submission {
            commits: [commit].into(),
            position: None,
        })
    }

    pub(super) async fn reserve(&self, wish: Wish, now: Timestamp) -> Result<Granted, Error> {
        let claimed = wish.claimed();
        let (granted, receipt) = self.grant(wish, now)?;
        match (granted, receipt) {
            (Granted::Before { ticket_id, .. }, _) => self.check_stored(ticket_id).await?,
            (Granted::Now, None) => {}
            (Granted::Now, Some(receipt)) => {
                let forget = move |state: &mut State| state.forget(claimed);
                self.stored_or(receipt, forget).await?;
            }
        }
        Ok(granted)
    }

    /// Undoes in memory what is known not to be stored, though the caller go away or not hear of it in time.
    async fn stored_or(
        &self,
        receipt: Receipt,
        undo: impl FnOnce(&mut State) + Send + 'static,
    ) -> Result<(), CommitError> {
        let state = Arc::clone(&self.state);
        let settle = move |outcomes: &[Outcome]| {
            if outcomes.iter().any(was_not_applied) {
                undo(&mut state.lock().expect("no holder of this lock panics"));
            }
        };
        let mut outcomes = receipt.settled(settle).await;
        outcomes.pop().expect("one outcome for one commit")
    }

    /// The first grant to the same request may not be stored yet. What becomes of it is known behind an empty
    /// submission, since the store applies them in order.
    async fn check_stored(&self, ticket_id: TicketId) -> Result<(), Error> {
        let behind = self.store.submit(Submission::default()).outcomes().await;
        behind.into_iter().collect::<Result<(), CommitError>>()?;
        match self.store.load::<Reservation>(ticket_id).await? {
            Some(_) => Ok(()),
            None => {
                let reason = "the first grant to this request was not stored".to_owned();
                Err(StoreError::Unavailable(reason).into())
            }
        }
    }

    fn grant(&self, wish: Wish, now: Timestamp) -> Result<(Granted, Option<Receipt>), Refusal> {
        let Wish {
            event_id,
            user_id,
            ticket_id,
            expires_at,
            lapses_at,
            also: mut commit,
        } = wish;
        let mut state = self.state();
        let stock = state
            .stocks
            .get_mut(&event_id)
            .ok_or(Refusal::EventNotFound)?;
        let granted = stock.reserve(user_id, ticket_id, (expires_at, lapses_at), now)?;
        if granted != Granted::Now {
            return Ok((granted, None));
        }
        commit.put(&Reservation {
            ticket_id,
            event_id,
            user_id,
            state: ReservationState::Waiting,
            expires_at,
            lapses_at,
            agreed_price: stock.agreed(user_id),
            version: 0,
        });
        fail::fail_point!("ticketing.before_grant", |_| std::process::abort());
        let receipt = self.submit(commit);
        if receipt.refusal().is_some() {
            stock.release(user_id, ticket_id);
        } else {
            state.lapses.push(Reverse((lapses_at, event_id, user_id)));
        }
        Ok((granted, Some(receipt)))
    }

    pub(super) fn find(&self, event_id: EventId, user_id: UserId) -> Option<Held> {
        self.state().stocks.get(&event_id)?.find(user_id)
    }

    pub(super) async fn named(&self, ticket_id: TicketId) -> Result<Option<Claimed>, StoreError> {
        let stored: Option<Reservation> = self.store.load(ticket_id).await?;
        Ok(stored.map(|stored| Claimed {
            event_id: stored.event_id,
            user_id: stored.user_id,
            ticket_id,
        }))
    }

    pub(super) fn complete(&self, claimed: Claimed) -> Completion {
        let mut state = self.state();
        let stock = state.stocks.get_mut(&claimed.event_id);
        let deadlines = stock.and_then(|stock| stock.complete(claimed.user_id, claimed.ticket_id));
        deadlines.map_or(Completion::Gone, |deadlines| completed(claimed, deadlines))
    }

    pub(super) fn retake(&self, claims: &[Claimed], lapses_at: Timestamp) {
        let mut state = self.state();
        for claimed in claims {
            let Claimed {
                event_id,
                user_id,
                ticket_id,
            } = *claimed;
            let stock = state.stocks.get_mut(&event_id);
            if stock.is_some_and(|stock| stock.retake(user_id, ticket_id, lapses_at)) {
                state.lapses.push(Reverse((lapses_at, event_id, user_id)));
            }
        }
    }

    pub(super) fn release(&self, claimed: Claimed) -> Commit {
        let mut state = self.state();
        if let Some(stock) = state.stocks.get_mut(&claimed.event_id) {
            stock.release(claimed.user_id, claimed.ticket_id);
        }
        removal(claimed)
    }

    pub(super) fn release_unpaid(&self, claimed: Claimed) -> Commit {
        let Claimed {
            event_id,
            user_id,
            ticket_id,
        } = claimed;
        let mut state = self.state();
        if let Some(stock) = state.stocks.get_mut(&event_id) {
            if stock.is_completed(user_id, ticket_id) {
                return Commit::new();
            }
            stock.release(user_id, ticket_id);
        }
        removal(claimed)
    }

    /// What could not be stored is put back: its row still waits, whoever asked and went away.
    pub(super) async fn give_up(&self, claimed: Claimed, also: Commit) -> Result<bool, Error> {
        let mut commit = also;
        commit.remove::<Reservation>(claimed.ticket_id);
        let (price, deadlines, receipt) = {
            let mut state = self.state();
            let Some(stock) = state.stocks.get_mut(&claimed.event_id) else {
                return Ok(false);
            };
            let price = stock.agreed(claimed.user_id);
            let Some(deadlines) = stock.give_up(claimed.user_id, claimed.ticket_id) else {
                return Ok(false);
            };
            (price, deadlines, self.submit(commit))
        };
        let put_back = move |state: &mut State| state.put_back(claimed, deadlines, price);
        self.stored_or(receipt, put_back).await?;
        Ok(true)
    }

    pub(super) async fn expire(
        &self,
        now: Timestamp,
        max: usize,
        telling: impl Fn(Lapse) -> Commit,
    ) -> Result<Lapsed, StoreError> {
        let due = self.state().due(now, max);
        if due.is_empty() {
            return Ok(Lapsed::default());
        }
        let begun = super::begun(&self.store, &due).await?;
        let (ended, receipt) = {
            let mut state = self.state();
            let ended = state.end_due(due, &begun, now.plus_secs(LOOK_AGAIN_SECS));
            let commits = ended.iter().map(|(lapse, is_free)| {
                let mut commit = telling(*lapse);
                if *is_free {
                    commit.remove::<Reservation>(lapse.claimed.ticket_id);
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
        let (state, told) = (Arc::clone(&self.state), ended.clone());
        let settle = move |outcomes: &[Outcome]| {
            let mut state = state.lock().expect("no holder of this lock panics");
            for ((Lapse { claimed, lapses_at }, is_free), outcome) in told.into_iter().zip(outcomes)
            {
                // One that stays is told of again when it is looked at again.
                if is_free && was_not_applied(outcome) {
                    state.put_back(claimed, (lapses_at, lapses_at), None);
                }
            }
        };
        let mut done = Lapsed::default();
        let mut failure = None;
        for ((lapse, is_free), outcome) in ended.into_iter().zip(receipt.settled(settle).await) {
            match outcome {
                Ok(()) if is_free => done.freed.push(lapse.claimed),
                Ok(()) => done.closing.push(lapse.claimed),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            None => Ok(done),
            Some(CommitError::Store(error)) => Err(error),
            Some(error) => Err(StoreError::Unavailable(error.to_string())),
        }
    }

    pub(super) fn set_sale(&self, sale: &Allocation) {
        let mut state = self.state();
        state
            .stocks
            .entry(sale.event_id)
            .or_insert_with(|| Stock::new(sale.clone()))
            .set_sale(sale);
    }

    pub(super) fn stats(&self, event_id: EventId) -> Option<Stats> {
        self.state().stocks.get(&event_id).map(Stock::stats)
    }
}

fn completed(claimed: Claimed, (expires_at, lapses_at): (Timestamp, Timestamp)) -> Completion {
    let Claimed {
        event_id,
        user_id,
        ticket_id,
    } = claimed;
    Completion::Completed(Keeping::Row(Reservation {
        ticket_id,
        event_id,
        user_id,
        state: ReservationState::Completed,
        expires_at,
        lapses_at,
        agreed_price: None,
        version: 0,
    }))
}

fn removal(claimed: Claimed) -> Commit {
    let mut commit = Commit::new();
    commit.remove::<Reservation>(claimed.ticket_id);
    commit
}

impl State {
    fn restore(&mut self, stored: &Reservation, now: Timestamp) {
        let Reservation {
            ticket_id,
            event_id,
            user_id,
            state,
            expires_at,
            lapses_at,
            agreed_price,
            ..
        } = *stored;
        let lapses_at = ticket_id.no_later_than(lapses_at, now);
        let Some(stock) = self.stocks.get_mut(&event_id) else {
            return;
        };
        let gave_way = stock.restore_stored(user_id, ticket_id, state, (expires_at, lapses_at));
        if gave_way != Some(ticket_id) {
            stock.agree(user_id, agreed_price);
        }
        if gave_way != Some(ticket_id) && state == ReservationState::Waiting {
            self.lapses.push(Reverse((lapses_at, event_id, user_id)));
        }
        self.superseded.extend(gave_way.map(|ticket_id| Claimed {
            event_id,
            user_id,
            ticket_id,
        }));
    }

    /// Takes back a grant that is not stored.
    fn forget(&mut self, claimed: Claimed) {
        if let Some(stock) = self.stocks.get_mut(&claimed.event_id) {
            stock.release_waiting(claimed.user_id, claimed.ticket_id);
        }
    }
}

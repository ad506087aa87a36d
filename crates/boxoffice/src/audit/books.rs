//! Everything that an audit looks at: each store read at one moment, all of them after one another.

use std::collections::{BTreeMap, HashMap, HashSet};

use contract::{EventId, PaymentId, SagaId, TicketId, UserId};
use messaging::{
    Consumer, Entry, Snapshot, StoreError,
    coordinator::SagaRecord,
    dead_letters::{DeadLetterConsumer, DeadLetterRecord, DeadLetterState},
};
use payment::record::{PaymentRecord, Refund, StrayRecord};
use ticketing::{
    model::{Allocation, Purchase, Reservation, ReservationState, Ticket},
    reservations::Claims,
};
use user::{ledger::LedgerEntry, model::User, points::Hold};

use super::Counts;

/// The books of all services.
#[derive(Debug, Default)]
pub struct Books {
    pub allocations: BTreeMap<EventId, Allocation>,
    pub reservations: BTreeMap<TicketId, Reservation>,
    pub tickets: BTreeMap<TicketId, Ticket>,
    pub purchases: BTreeMap<TicketId, Purchase>,
    pub payments: BTreeMap<PaymentId, PaymentRecord>,
    pub strays: BTreeMap<String, StrayRecord>,
    pub sagas: BTreeMap<SagaId, SagaRecord>,
    pub users: BTreeMap<UserId, User>,
    pub ledger_sums: HashMap<UserId, i64>,
    pub holds: BTreeMap<SagaId, Hold>,
    pub timers: HashSet<String>,
    pub open_dead_letters: usize,
    pub messages_under_way: usize,
    /// What Redis says of the claims of events, where they are decided there.
    pub claims: BTreeMap<EventId, Claims>,
    /// Every id that a message under way, or a dead letter that is not settled, speaks of.
    pub under_way: HashSet<String>,
}

/// Every group and what it reads.
#[must_use]
pub fn subscriptions() -> Vec<(&'static str, &'static [&'static str])> {
    vec![
        (
            ticketing::consumers::SAGA_GROUP,
            ticketing::progress::TOPICS,
        ),
        (
            ticketing::consumers::STOCK_GROUP,
            ticketing::consumers::STOCK_TOPICS,
        ),
        (user::consumers::GROUP, user::consumers::TOPICS),
        (payment::consumers::GROUP, payment::consumers::TOPICS),
        (DeadLetterConsumer.group(), DeadLetterConsumer.topics()),
    ]
}

impl Books {
    /// The books of services that have a store each.
    ///
    /// # Errors
    /// [`StoreError`] where something cannot be read.
    pub fn read_all(snapshots: &[Snapshot]) -> Result<Self, StoreError> {
        let mut all = Self::default();
        for snapshot in snapshots {
            all.add(Self::read(snapshot)?);
        }
        Ok(all)
    }

    /// Each service's books are its own: nothing is in two of them.
    pub(super) fn add(&mut self, own: Self) {
        self.allocations.extend(own.allocations);
        self.reservations.extend(own.reservations);
        self.tickets.extend(own.tickets);
        self.purchases.extend(own.purchases);
        self.payments.extend(own.payments);
        self.strays.extend(own.strays);
        self.sagas.extend(own.sagas);
        self.users.extend(own.users);
        self.ledger_sums.extend(own.ledger_sums);
        self.holds.extend(own.holds);
        self.timers.extend(own.timers);
        self.claims.extend(own.claims);
        self.under_way.extend(own.under_way);
        self.open_dead_letters += own.open_dead_letters;
        self.messages_under_way += own.messages_under_way;
    }

    /// # Errors
    /// [`StoreError`] where something cannot be read.
    pub fn read(snapshot: &Snapshot) -> Result<Self, StoreError> {
        let mut books = Self::default();
        snapshot.each(|it: Allocation| _ = books.allocations.insert(it.event_id, it))?;
        snapshot.each(|it: Reservation| _ = books.reservations.insert(it.ticket_id, it))?;
        snapshot.each(|it: Ticket| _ = books.tickets.insert(it.ticket_id, it))?;
        snapshot.each(|it: Purchase| _ = books.purchases.insert(it.ticket_id, it))?;
        snapshot.each(|it: PaymentRecord| _ = books.payments.insert(it.payment_id, it))?;
        snapshot.each(|it: StrayRecord| {
            _ = books.strays.insert(it.pg_payment_id.clone(), it);
        })?;
        snapshot.each(|it: SagaRecord| _ = books.sagas.insert(it.saga_id, it))?;
        snapshot.each(|it: User| _ = books.users.insert(it.user_id, it))?;
        snapshot.each(|it: Hold| _ = books.holds.insert(it.saga_id, it))?;
        let sums = snapshot.sum_by(LedgerEntry::TABLE.name, "amount", "user_id")?;
        books.ledger_sums = sums
            .into_iter()
            .map(|(user, sum)| (UserId(user), sum))
            .collect();
        books.timers = snapshot.timers()?;
        for (group, topics) in subscriptions() {
            for message in snapshot.pending(group, topics)? {
                books.messages_under_way += 1;
                books.note_under_way(&message.key, &message.payload);
            }
        }
        snapshot.each(|it: DeadLetterRecord| books.note_dead_letter(&it))?;
        Ok(books)
    }

    fn note_dead_letter(&mut self, record: &DeadLetterRecord) {
        match record.state {
            DeadLetterState::Waiting | DeadLetterState::Parked | DeadLetterState::Replayed => {
                self.open_dead_letters += 1;
                self.note_under_way(&record.letter.reissued_key, &record.letter.reissued_payload);
            }
            DeadLetterState::Resolved | DeadLetterState::Discarded => {}
        }
    }

    fn note_under_way(&mut self, key: &str, payload: &str) {
        self.under_way.insert(key.to_owned());
        if let Ok(payload) = serde_json::from_str(payload) {
            self.note_texts(payload);
        }
    }

    fn note_texts(&mut self, value: serde_json::Value) {
        match value {
            serde_json::Value::String(text) => drop(self.under_way.insert(text)),
            serde_json::Value::Array(values) => {
                values.into_iter().for_each(|value| self.note_texts(value))
            }
            serde_json::Value::Object(fields) => fields
                .into_iter()
                .for_each(|(_, value)| self.note_texts(value)),
            serde_json::Value::Null | serde_json::Value::Bool(_) | serde_json::Value::Number(_) => {
            }
        }
    }

    /// Whether something that will change this ticket's purchase is still on its way: a message, a dead letter, an
    /// open saga, an attempt at the gateway, a refund.
    #[must_use]
    pub fn is_under_way(&self, ticket_id: TicketId) -> bool {
        self.is_moved_by(ticket_id, |saga| !saga.state.is_terminal())
    }

    /// As [`Self::is_under_way`], but for sagas that are parked: they move nothing, and no normal one leaves money behind
    /// that was taken for nothing. Whatever else it leaves as it was is no violation.
    #[must_use]
    pub fn is_money_under_way(&self, ticket_id: TicketId) -> bool {
        self.is_moved_by(ticket_id, |saga| {
            !saga.state.is_terminal() && saga.parked.is_none()
        })
    }

    fn is_moved_by(&self, ticket_id: TicketId, is_moving: impl Fn(&SagaRecord) -> bool) -> bool {
        let mut sagas = vec![ticket_id.purchase_saga(), ticket_id.expire_saga()];
        if let Some(ticket) = self.tickets.get(&ticket_id) {
            sagas.push(ticket_id.cancel_saga(ticket.cancellation));
        }
        let payment_id = ticket_id.purchase_saga().payment();
        let is_open = |saga_id| self.sagas.get(saga_id).is_some_and(&is_moving);
        let is_named = |id: String| self.under_way.contains(&id);
        is_named(ticket_id.to_string())
            || is_named(payment_id.to_string())
            || sagas
                .iter()
                .any(|saga_id| is_open(saga_id) || is_named(saga_id.to_string()))
            || self.payments.get(&payment_id).is_some_and(|payment| {
                payment.status == contract::domain::PaymentStatus::Confirming
                    || payment.refund == Refund::Requested
            })
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        let in_state = |state| {
            self.reservations
                .values()
                .filter(|reservation| reservation.state == state)
                .count()
        };
        let open = || self.sagas.values().filter(|saga| !saga.state.is_terminal());
        Counts {
            events: self.allocations.len(),
            waiting_reservations: in_state(ReservationState::Waiting)
                + self
                    .claims
                    .values()
                    .map(|it| it.waiting.len())
                    .sum::<usize>(),
            completed_reservations: in_state(ReservationState::Completed)
                + self
                    .claims
                    .values()
                    .map(|it| it.completed.len())
                    .sum::<usize>(),
            tickets: self.tickets.len(),
            payments: self.payments.len(),
            users: self.users.len(),
            sagas: self.sagas.len(),
            open_sagas: open().count(),
            parked_sagas: open().filter(|saga| saga.parked.is_some()).count(),
            open_dead_letters: self.open_dead_letters,
            parked_refunds: self
                .payments
                .values()
                .filter(|payment| payment.refund == Refund::Parked)
                .count(),
            parked_strays: self
                .strays
                .values()
                .filter(|stray| stray.refund == Refund::Parked)
                .count(),
            messages_under_way: self.messages_under_way,
        }
    }
}

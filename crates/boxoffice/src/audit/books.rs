//! The records that an audit reads. Each store is read in one snapshot; several stores are read one after the other.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    slice,
};

use contract::{
    DeadLetterId, EventId, PaymentId, SagaId, TicketId, UserId,
    domain::{PaymentStatus, TicketStatus},
};
use event::model::Event;
use messaging::{
    Group, Snapshot, StoreError,
    coordinator::SagaRecord,
    dead_letters::{self, DeadLetterRecord, DeadLetterState},
};
use payment::record::{
    HistoryEntry, OrphanChargeRecord, PaymentRecord, Refund, TombstoneRecord, WebhookRecord,
};
use ticketing::{
    model::{Allocation, Purchase, ReservationRecord, ReservationState, Ticket},
    refund::PurchaseRefund,
    reservations::ClaimSnapshot,
};
use user::{model::User, points::Hold};

use super::{Counts, ledger::PointsLedger};

/// The records of all services.
#[derive(Debug, Default)]
pub struct Books {
    pub events: BTreeMap<EventId, Event>,
    pub allocations: BTreeMap<EventId, Allocation>,
    pub reservations: BTreeMap<TicketId, ReservationRecord>,
    pub tickets: BTreeMap<TicketId, Ticket>,
    pub purchases: BTreeMap<TicketId, Purchase>,
    pub purchase_refunds: BTreeMap<TicketId, PurchaseRefund>,
    pub payments: BTreeMap<PaymentId, PaymentRecord>,
    /// By payment, in the order of versions, without the notes.
    pub histories: HashMap<PaymentId, Vec<HistoryEntry>>,
    pub tombstones: BTreeMap<PaymentId, TombstoneRecord>,
    pub orphan_charges: BTreeMap<String, OrphanChargeRecord>,
    pub webhooks: BTreeMap<String, WebhookRecord>,
    pub sagas: BTreeMap<SagaId, SagaRecord>,
    pub users: BTreeMap<UserId, User>,
    pub ledger: PointsLedger,
    pub holds: BTreeMap<SagaId, Hold>,
    pub timers: HashSet<String>,
    /// Without the payloads.
    pub dead_letters: BTreeMap<DeadLetterId, DeadLetterRecord>,
    pub open_dead_letters: usize,
    pub messages_under_way: usize,
    /// Whether each claim is a row of `reservations`, which is false if Redis keeps the claims. Derived from the rows, unless
    /// the caller knows the settings.
    pub claims_are_rows: bool,
    /// The claims in Redis by event, if Redis keeps them.
    pub claims: BTreeMap<EventId, ClaimSnapshot>,
    /// Dead letters whose message was reissued and is not handled yet.
    pub reissued: HashSet<DeadLetterId>,
    /// Each text in an unhandled message or an open dead letter, which includes the ids that it names.
    pub under_way: HashSet<String>,
}

/// The consumer groups.
#[must_use]
pub fn subscriptions() -> Vec<Group> {
    vec![
        ticketing::progress::GROUP,
        ticketing::consumers::STOCK_GROUP,
        user::consumers::GROUP,
        payment::consumers::GROUP,
        dead_letters::GROUP,
    ]
}

impl Books {
    /// Reads the stores of several services.
    ///
    /// # Errors
    /// [`StoreError`] if a store cannot be read.
    pub fn read_all(snapshots: &[Snapshot]) -> Result<Self, StoreError> {
        let mut all = Self::default();
        for snapshot in snapshots {
            all.add(snapshot)?;
        }
        Ok(all)
    }

    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub fn read(snapshot: &Snapshot) -> Result<Self, StoreError> {
        Self::read_all(slice::from_ref(snapshot))
    }

    /// Adds the records of a store; no record is in two stores.
    pub(super) fn add(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        self.read_sales(snapshot)?;
        self.read_money(snapshot)?;
        snapshot.each(|it: SagaRecord| _ = self.sagas.insert(it.saga_id, it))?;
        snapshot.each(|it: User| _ = self.users.insert(it.user_id, it))?;
        snapshot.each(|it: Hold| _ = self.holds.insert(it.saga_id, it))?;
        snapshot.each_entry(|it| self.ledger.note(&it))?;
        self.timers.extend(snapshot.timers()?);
        for group in subscriptions() {
            for message in snapshot.pending(group.name, group.topics)? {
                self.messages_under_way += 1;
                let reissue = message.reissue.as_ref();
                self.reissued.extend(reissue.map(|it| it.dead_letter));
                self.note_under_way(&message.key, &message.payload);
            }
        }
        snapshot.each(|it: DeadLetterRecord| self.note_dead_letter(it))
    }

    fn read_sales(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        snapshot.each(|it: Event| _ = self.events.insert(it.id, it))?;
        snapshot.each(|it: Allocation| _ = self.allocations.insert(it.event_id, it))?;
        snapshot.each(|it: ReservationRecord| _ = self.reservations.insert(it.ticket_id, it))?;
        self.claims_are_rows = !self.reservations.is_empty();
        snapshot.each(|it: Ticket| _ = self.tickets.insert(it.ticket_id, it))?;
        snapshot.each(|it: Purchase| _ = self.purchases.insert(it.ticket_id, it))?;
        snapshot.each(|it: PurchaseRefund| _ = self.purchase_refunds.insert(it.ticket_id, it))
    }

    fn read_money(&mut self, snapshot: &Snapshot) -> Result<(), StoreError> {
        snapshot.each(|it: PaymentRecord| _ = self.payments.insert(it.payment_id, it))?;
        snapshot.each_entry(|mut it: HistoryEntry| {
            it.note.clear();
            self.histories.entry(it.payment_id).or_default().push(it);
        })?;
        for history in self.histories.values_mut() {
            history.sort_by_key(|it| it.payment_version);
        }
        snapshot.each(|it: TombstoneRecord| _ = self.tombstones.insert(it.payment_id, it))?;
        snapshot.each(|it: OrphanChargeRecord| {
            _ = self.orphan_charges.insert(it.pg_payment_id.clone(), it);
        })?;
        snapshot.each(|it: WebhookRecord| {
            _ = self.webhooks.insert(it.transmission_id.clone(), it);
        })
    }

    fn note_dead_letter(&mut self, mut record: DeadLetterRecord) {
        match record.state {
            DeadLetterState::Waiting | DeadLetterState::Parked | DeadLetterState::Replayed => {
                self.open_dead_letters += 1;
                self.note_under_way(&record.letter.reissued_key, &record.letter.reissued_payload);
            }
            DeadLetterState::Resolved | DeadLetterState::Discarded => {}
        }
        record.letter.reissued_payload.clear();
        self.dead_letters.insert(record.id, record);
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

    /// Whether something may still change this ticket's purchase: a message, a dead letter, an open saga, an attempt at the
    /// gateway, a refund.
    #[must_use]
    pub fn is_under_way(&self, ticket_id: TicketId) -> bool {
        self.is_moved_by(ticket_id, |saga| !saga.state.is_terminal())
    }

    /// Like [`Self::is_under_way`], but a parked saga does not count: it moves no money, so that money kept without a
    /// ticket is a violation also while it is parked.
    #[must_use]
    pub fn is_money_under_way(&self, ticket_id: TicketId) -> bool {
        self.is_moved_by(ticket_id, |saga| {
            !saga.state.is_terminal() && saga.parked.is_none()
        })
    }

    /// Like [`Self::is_under_way`], but without attempts and refunds at the gateway: if false, the services have handled each
    /// other's messages, and only money may still move.
    #[must_use]
    pub fn has_pending_messages(&self, ticket_id: TicketId) -> bool {
        self.is_pending(ticket_id, |saga| !saga.state.is_terminal())
    }

    fn is_moved_by(&self, ticket_id: TicketId, is_moving: impl Fn(&SagaRecord) -> bool) -> bool {
        self.is_pending(ticket_id, is_moving)
            || self.payment_of(ticket_id).is_some_and(|payment| {
                payment.status == PaymentStatus::Confirming || payment.refund == Refund::Requested
            })
    }

    fn is_pending(&self, ticket_id: TicketId, is_moving: impl Fn(&SagaRecord) -> bool) -> bool {
        let mut sagas = vec![ticket_id.purchase_saga(), ticket_id.expire_saga()];
        if let Some(ticket) = self.tickets.get(&ticket_id) {
            sagas.push(ticket_id.cancel_saga(ticket.cancellation));
        }
        let is_open = |saga_id| self.sagas.get(saga_id).is_some_and(&is_moving);
        self.is_named(ticket_id)
            || self.is_named(PaymentId::of_saga(ticket_id.purchase_saga()))
            || sagas.iter().any(|id| is_open(id) || self.is_named(id))
    }

    /// Whether an unhandled message or an open dead letter names this id.
    #[must_use]
    pub fn is_named(&self, id: impl ToString) -> bool {
        self.under_way.contains(&id.to_string())
    }

    /// The payment of this ticket's purchase.
    #[must_use]
    pub fn payment_of(&self, ticket_id: TicketId) -> Option<&PaymentRecord> {
        let saga_id = ticket_id.purchase_saga();
        self.payments.get(&PaymentId::of_saga(saga_id))
    }

    /// The tickets that are issued and not cancelled.
    pub fn owned_tickets(&self) -> impl Iterator<Item = &Ticket> {
        let tickets = self.tickets.values();
        tickets.filter(|ticket| ticket.status == TicketStatus::Reserved)
    }

    /// Whether this ticket is issued and not cancelled.
    #[must_use]
    pub fn has_ticket(&self, ticket_id: TicketId) -> bool {
        let ticket = self.tickets.get(&ticket_id);
        ticket.is_some_and(|ticket| ticket.status == TicketStatus::Reserved)
    }

    /// The payment's status in this version.
    #[must_use]
    pub fn status_in(&self, payment: PaymentId, version: i64) -> Option<PaymentStatus> {
        let mut history = self.histories.get(&payment)?.iter();
        let entry = history.find(|it| it.payment_version == version);
        entry.map(|it| it.status)
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        let in_state = |state| {
            let reservations = self.reservations.values();
            reservations.filter(|it| it.state == state).count()
        };
        let claims = self.claims.values();
        let (waiting, completed) = claims.fold((0, 0), |(waiting, completed), it| {
            (waiting + it.waiting.len(), completed + it.completed.len())
        });
        let open = || self.sagas.values().filter(|saga| !saga.state.is_terminal());
        let payments = self.payments.values();
        let orphans = self.orphan_charges.values();
        Counts {
            events: self.allocations.len(),
            waiting_reservations: in_state(ReservationState::Waiting) + waiting,
            completed_reservations: in_state(ReservationState::Completed) + completed,
            tickets: self.tickets.len(),
            payments: self.payments.len(),
            users: self.users.len(),
            sagas: self.sagas.len(),
            open_sagas: open().count(),
            parked_sagas: open().filter(|saga| saga.parked.is_some()).count(),
            open_dead_letters: self.open_dead_letters,
            parked_refunds: payments.filter(|it| it.refund == Refund::Parked).count(),
            parked_orphan_charges: orphans.filter(|it| it.refund == Refund::Parked).count(),
            messages_under_way: self.messages_under_way,
        }
    }
}

//! Books without a flaw, of one event with one sold ticket.

use contract::{
    EventId, Money, PaymentId, Points, TicketId, Timestamp, UserId,
    domain::{PaymentStatus, TicketStatus},
};
use messaging::{Random, coordinator::SagaRecord};
use payment::record::{PaymentRecord, Refund};
use saga::SagaState;
use ticketing::model::{Allocation, Purchase, ReservationRecord, ReservationState, Ticket};
use user::{
    model::{Status, User},
    points::{Hold, HoldState},
};

use crate::audit::{Books, ledger::UserEntries};

pub const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
pub const EVENT: EventId = EventId(1);
pub const USER: UserId = UserId(2);

pub fn ticket_id() -> TicketId {
    TicketId(Random::seeded(1).uuid(NOW))
}

pub fn account(sum: i64) -> UserEntries {
    UserEntries { sum, version: 1 }
}

pub fn money(amount: i64) -> Money {
    Money::new(amount).unwrap()
}

pub fn points(amount: i64) -> Points {
    Points::new(amount).unwrap()
}

pub fn saga(ticket_id: TicketId, state: SagaState) -> SagaRecord {
    SagaRecord {
        saga_id: ticket_id.purchase_saga(),
        saga_type: "ticketing.process".to_owned(),
        definition_version: 1,
        reference_id: ticket_id.to_string(),
        state,
        current_step: None,
        steps: Vec::new(),
        payload: serde_json::Value::Null,
        failure: None,
        parked: None,
        traceparent: None,
        created_at: NOW,
        updated_at: NOW,
        version: 9,
    }
}

pub fn payment(ticket_id: TicketId) -> PaymentRecord {
    PaymentRecord {
        payment_id: PaymentId::of_saga(ticket_id.purchase_saga()),
        saga_id: ticket_id.purchase_saga(),
        event_id: EVENT,
        user_id: USER,
        ticket_id,
        status: PaymentStatus::Succeeded,
        total_amount: money(100),
        point_amount: points(30),
        final_amount: money(70),
        pg_payment_id: Some("pg".to_owned()),
        attempt: 1,
        attempt_key: None,
        attempt_started_at: None,
        decline_code: None,
        delete_saga: None,
        refund: Refund::None,
        refund_reason: None,
        refund_number: 0,
        refund_saga: None,
        refund_code: None,
        refund_requested_at: None,
        deposit_bank: None,
        deposit_account: None,
        deposit_due: None,
        refund_bank: None,
        refund_account: None,
        refund_holder: None,
        expires_at: None,
        created_at: NOW,
        updated_at: NOW,
        version: 3,
    }
}

/// One event of one ticket, bought by a user with 30 of 100 points.
pub fn good() -> Books {
    let ticket_id = ticket_id();
    let (event_id, user_id, saga_id) = (EVENT, USER, ticket_id.purchase_saga());
    let mut books = Books::default();
    let allocation = Allocation {
        event_id,
        quantity: 1,
        lowered_to: None,
        sold: 1,
        price: None,
        sale_opens_at: None,
        sale_closes_at: None,
        event_version: 1,
        version: 2,
    };
    books.allocations.insert(EVENT, allocation);
    let state = ReservationState::Completed;
    let reservation = ReservationRecord {
        ticket_id,
        event_id,
        user_id,
        state,
        expires_at: NOW,
        lapses_at: NOW,
        agreed_price: None,
        version: 2,
    };
    books.reservations.insert(ticket_id, reservation);
    let ticket = Ticket {
        ticket_id,
        event_id,
        user_id,
        payment_id: PaymentId::of_saga(saga_id),
        status: TicketStatus::Reserved,
        payment_version: 3,
        cancellation: 0,
        created_at: NOW,
        updated_at: NOW,
        version: 1,
    };
    books.tickets.insert(ticket_id, ticket);
    let purchase = Purchase {
        ticket_id,
        event_id,
        user_id,
        total_amount: money(100),
        point: points(30),
        expires_at: NOW,
        requested_at: NOW,
        released_at: None,
        version: 1,
    };
    books.purchases.insert(ticket_id, purchase);
    books
        .payments
        .insert(PaymentId::of_saga(saga_id), payment(ticket_id));
    books
        .sagas
        .insert(saga_id, saga(ticket_id, SagaState::Completed));
    let mut user = User::new(USER, "Mina".to_owned(), Status::Active, NOW);
    user.balance = points(70);
    books.users.insert(USER, user);
    books.ledger.accounts.insert(USER, account(70));
    let hold = Hold {
        saga_id,
        user_id,
        point: points(30),
        state: HoldState::Used,
        payment_version: 3,
        created_at: NOW,
        updated_at: NOW,
        version: 2,
    };
    books.holds.insert(saga_id, hold);
    books
}

/// The payment of the ticket's purchase.
pub fn payment_of(books: &mut Books, id: TicketId) -> &mut PaymentRecord {
    let payment = books
        .payments
        .get_mut(&PaymentId::of_saga(id.purchase_saga()));
    payment.unwrap()
}

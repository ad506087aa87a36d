//! A purchase that begins when its reservation is gone already takes nothing.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

use contract::{EventId, Money, Points, TicketId, Timestamp, UserId, ticketing::Process};
use messaging::{
    Bus, Clock, Commit, DeadLetterSettings, Message, Metrics, Random, Shell, Store, Worker,
    coordinator::SagaRecord,
};
use saga::SagaState;
use tempfile::TempDir;
use ticketing::{Service, Settings, consumers::SagaConsumer, model::Allocation};

const EVENT: EventId = EventId(1);
const USER: UserId = UserId(2);
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// One event with one ticket, and the worker that moves sagas, stepped by hand.
async fn service(folder: &TempDir) -> (Store, Service, Worker<SagaConsumer>) {
    let tables: Vec<_> = messaging::TABLES
        .iter()
        .chain(ticketing::TABLES)
        .copied()
        .collect();
    let store = Store::open_embedded(folder.path(), &tables, Metrics::unregistered()).unwrap();
    let mut commit = Commit::new();
    commit.put(&Allocation {
        event_id: EVENT,
        quantity: 1,
        lowered_to: None,
        sold: 0,
        price: None,
        sale_opens_at: None,
        sale_closes_at: None,
        event_version: 1,
        version: 0,
    });
    store.commit(commit).await.unwrap();
    let (clock, random) = (Clock::manual(NOW), Random::seeded(3));
    let opened = Service::open(
        store.clone(),
        clock.clone(),
        random.clone(),
        Settings::default(),
        ticketing::Metrics::default(),
    );
    let service = opened.await.unwrap();
    let shell = Shell {
        store: store.clone(),
        bus: Bus::Local(store.clone()),
        clock,
        random,
        metrics: Metrics::unregistered(),
        dead_letters: DeadLetterSettings::default(),
    };
    let worker = Worker::new(SagaConsumer(service.clone()), shell).unwrap();
    (store, service, worker)
}

async fn reserve(service: &Service) -> TicketId {
    let reserving = service.reserving(EVENT, USER);
    service.reserve(reserving, Commit::new()).await.unwrap();
    reserving.ticket_id
}

async fn process(store: &Store, ticket_id: TicketId) {
    let (total_amount, point) = (Money::new(100).unwrap(), Points::ZERO);
    let process = Process {
        ticket_id,
        event_id: EVENT,
        user_id: USER,
        total_amount,
        point,
    };
    let mut commit = Commit::new();
    commit.publish(Message::new("process", &process, NOW));
    store.commit(commit).await.unwrap();
}

async fn saga(store: &Store, worker: &mut Worker<SagaConsumer>, ticket_id: TicketId) -> SagaRecord {
    while worker.step().await.unwrap() > 0 {}
    store
        .load(ticket_id.purchase_saga())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn a_purchase_of_a_held_ticket_goes_forward() {
    let folder = TempDir::new().unwrap();
    let (store, service, mut worker) = service(&folder).await;
    let ticket_id = reserve(&service).await;

    process(&store, ticket_id).await;

    let saga = saga(&store, &mut worker, ticket_id).await;
    assert_eq!(
        (saga.state, saga.current_step.as_deref()),
        (SagaState::Started, Some("user.check.active"))
    );
}

#[tokio::test]
async fn a_purchase_whose_reservation_was_released_first_turns_back() {
    let folder = TempDir::new().unwrap();
    let (store, service, mut worker) = service(&folder).await;
    let ticket_id = reserve(&service).await;
    // The release overtakes the request to process, which had looked at the reservation before.
    service.release(ticket_id).await.unwrap();
    while worker.step().await.unwrap() > 0 {}

    process(&store, ticket_id).await;

    let saga = saga(&store, &mut worker, ticket_id).await;
    assert_eq!(
        (saga.state, saga.failure.as_deref()),
        (SagaState::Compensated, Some("RESERVATION_EXPIRED"))
    );
}

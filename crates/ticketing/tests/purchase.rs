//! A purchase that starts after its reservation has ended takes nothing.

#![expect(clippy::unwrap_used, reason = "a failed test panics")]

use std::sync::Arc;

use contract::{
    EventId, Money, Payload as _, Points, TicketId, Timestamp, UserId,
    ticketing::{Expire, Process, Release},
};
use futures::future::BoxFuture;
use messaging::{
    Bus, Clock, Commit, Consumer, DeadLetterSettings, Decision, Group, Message, Metrics, Random,
    Records, Ref, Rejection, Store, StoreError, Worker, WorkerContext, coordinator::SagaRecord,
};
use saga::SagaState;
use tempfile::TempDir;
use ticketing::{
    Service, Settings,
    consumers::SagaConsumer,
    model::Allocation,
    process::ProcessInput,
    reserve::{ReserveInput, ReserveOutput},
};
use tokio::sync::{Notify, Semaphore};

const EVENT: EventId = EventId(1);
const USER: UserId = UserId(2);
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// One event with one ticket, and the worker that advances sagas, stepped by hand.
async fn service(folder: &TempDir) -> (Store, Service, Worker<SagaConsumer>) {
    let (store, service, context) = deployment(folder).await;
    let worker = Worker::new(SagaConsumer(service.clone()), context).unwrap();
    (store, service, worker)
}

async fn deployment(folder: &TempDir) -> (Store, Service, WorkerContext) {
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
    let context = WorkerContext {
        store: store.clone(),
        bus: Bus::Local(store.clone()),
        clock,
        random,
        metrics: Metrics::unregistered(),
        dead_letters: DeadLetterSettings::default(),
    };
    (store, service, context)
}

/// A member of the group that owns the partitions of one topic. It can be paused between reading and deciding.
struct Member {
    consumer: SagaConsumer,
    topic: &'static [&'static str],
    has_read: Arc<Notify>,
    resume: Arc<Semaphore>,
}

impl Member {
    fn of(service: &Service, topic: &'static [&'static str]) -> Self {
        Self {
            consumer: SagaConsumer(service.clone()),
            topic,
            has_read: Arc::default(),
            resume: Arc::new(Semaphore::new(0)),
        }
    }
}

impl Consumer for Member {
    type Input = <SagaConsumer as Consumer>::Input;
    type Prefetched = <SagaConsumer as Consumer>::Prefetched;
    type Outcome = <SagaConsumer as Consumer>::Outcome;

    // The embedded bus keeps one position for each group, where Kafka keeps one for each partition.
    fn group(&self) -> Group {
        Group::new(self.topic[0], self.topic)
    }

    fn read(&self, message: &Message) -> Result<Self::Input, Rejection> {
        self.consumer.read(message)
    }

    fn required_records(&self, input: &Self::Input) -> Vec<Ref> {
        self.consumer.required_records(input)
    }

    fn prefetch<'a>(
        &'a self,
        inputs: Vec<&'a Self::Input>,
    ) -> BoxFuture<'a, Result<Self::Prefetched, StoreError>> {
        Box::pin(async {
            let prefetched = self.consumer.prefetch(inputs).await;
            self.has_read.notify_one();
            let _resume = self.resume.acquire().await.unwrap();
            prefetched
        })
    }

    fn decide(
        &self,
        message: &Message,
        input: &Self::Input,
        records: &Records,
        prefetched: &Self::Prefetched,
        now: Timestamp,
    ) -> Result<Decision<Self::Outcome>, Rejection> {
        self.consumer
            .decide(message, input, records, prefetched, now)
    }
}

/// The buyer starts the purchase of a ticket that expires before its message is handled. The member for topic `first`
/// reads first, and is paused until the other has decided.
async fn purchase_that_expires(first: &'static str) -> SagaRecord {
    let folder = TempDir::new().unwrap();
    let (store, service, context) = deployment(&folder).await;
    let [process, expire] = [
        Member::of(&service, &[Process::TOPIC]),
        Member::of(&service, &[Expire::TOPIC]),
    ];
    let (slow, fast) = if first == Process::TOPIC {
        (process, expire)
    } else {
        (expire, process)
    };
    fast.resume.add_permits(1);
    let (has_read, resume) = (Arc::clone(&slow.has_read), Arc::clone(&slow.resume));
    let mut slow = Worker::new(slow, context.clone()).unwrap();
    let mut fast = Worker::new(fast, context.clone()).unwrap();

    let ticket_id = reserve(&service).await;
    let input = ProcessInput {
        ticket_id,
        event_id: EVENT,
        user_id: USER,
        total_amount: Money::new(100).unwrap(),
        point: Points::ZERO,
    };
    service.process(input, |_, _| ()).await.unwrap();
    let expires = async {
        context.clock.advance_millis(2_000_000_000);
        service.expire_due().await.unwrap();
    };
    if first == Process::TOPIC {
        let slow = tokio::spawn(async move { slow.step().await });
        has_read.notified().await;
        expires.await;
        fast.step().await.unwrap();
        resume.add_permits(1);
        slow.await.unwrap().unwrap();
    } else {
        expires.await;
        let slow = tokio::spawn(async move { slow.step().await });
        has_read.notified().await;
        fast.step().await.unwrap();
        resume.add_permits(1);
        slow.await.unwrap().unwrap();
    }
    store
        .load(ticket_id.purchase_saga())
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn an_expiry_that_overtakes_the_start_of_its_purchase_prevents_it() {
    for first in [Process::TOPIC, Expire::TOPIC] {
        let saga = purchase_that_expires(first).await;
        assert_eq!(
            (saga.state, saga.failure.as_deref()),
            (SagaState::Compensated, Some("RESERVATION_EXPIRED")),
            "{first} was read first"
        );
    }
}

async fn reserve(service: &Service) -> TicketId {
    let input = ReserveInput {
        event_id: EVENT,
        user_id: USER,
        request_digest: None,
    };
    let ticket = |_: &mut Commit, reserved: &ReserveOutput| reserved.ticket_id;
    service.reserve(input, None, ticket).await.unwrap()
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
async fn a_purchase_of_a_reserved_ticket_starts() {
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
async fn a_purchase_whose_reservation_was_released_first_is_compensated() {
    let folder = TempDir::new().unwrap();
    let (store, service, mut worker) = service(&folder).await;
    let ticket_id = reserve(&service).await;
    // The release overtakes the request to process, which had read the reservation before.
    service.release(ticket_id, None).await.unwrap();
    while worker.step().await.unwrap() > 0 {}

    process(&store, ticket_id).await;

    let saga = saga(&store, &mut worker, ticket_id).await;
    assert_eq!(
        (saga.state, saga.failure.as_deref()),
        (SagaState::Compensated, Some("RESERVATION_EXPIRED"))
    );
}

#[tokio::test]
async fn a_claim_whose_purchase_was_compensated_is_released_again_at_its_next_expiry() {
    let folder = TempDir::new().unwrap();
    let (store, service, mut worker) = service(&folder).await;
    let ticket_id = reserve(&service).await;
    service.release(ticket_id, None).await.unwrap();
    process(&store, ticket_id).await;
    saga(&store, &mut worker, ticket_id).await;

    // The first release was lost: the expiry is published again.
    let expire = Expire {
        ticket_id,
        event_id: EVENT,
        user_id: USER,
    };
    let mut commit = Commit::new();
    commit.publish(Message::new("again", &expire, NOW));
    store.commit(commit).await.unwrap();
    while worker.step().await.unwrap() > 0 {}

    let bus = Bus::Local(store.clone());
    let mut reader = bus.subscribe("reader", &[Release::TOPIC]).unwrap();
    let published = reader.try_next(10).await.unwrap().unwrap();
    let ids: Vec<&str> = published.messages.iter().map(|it| it.id.as_str()).collect();
    assert_eq!(
        ids,
        [format!("{ticket_id}:release").as_str(), "again:release"]
    );
}

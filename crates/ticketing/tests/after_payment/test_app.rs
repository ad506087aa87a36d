//! The ticketing service on a store of its own, its workers stepped by hand. The tests play the other services: they
//! publish the responses.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request, middleware::from_fn_with_state};
use contract::{
    EventId, Money, Payload, PaymentId, Points, TicketId, Timestamp, UserId,
    domain::{self, DomainMessage, PaymentStatus, Refund, TicketStatus},
    payment::{CreateResponse, DeleteResponse},
    ticketing::{SAGA_TIMEOUT, SagaTimeout},
    user::{CheckActiveResponse, CheckFraudResponse, ReservePointResponse, RestorePointResponse},
};
use futures::FutureExt;
use http_body_util::BodyExt;
use messaging::{
    Bus, Clock, Commit, DeadLetterSettings, Find, Message, Metrics, Random, Record, Store, Table,
    Worker, WorkerContext,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::{Polling, eventually};
use ticketing::{
    Service, Settings,
    consumers::{SagaConsumer, StockConsumer},
    model::{Allocation, ReservationRecord, ReservationState, Ticket},
    reservations::{Refusal, Stats},
    reserve::{self, ReserveInput, ReserveOutput},
};
use tower::ServiceExt;
use web::idempotency::{AnswerRecord, Idempotency, idempotent};

const POLLING: Polling = Polling {
    interval: Duration::from_millis(1),
    timeout: Duration::from_secs(20),
};
pub const EVENT: EventId = EventId(1);
pub const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

pub struct TestApp {
    _folder: Option<TempDir>,
    pub settings: Settings,
    pub store: Store,
    pub clock: Clock,
    pub service: Service,
    router: Router,
    stock: Worker<StockConsumer>,
    sagas: Worker<SagaConsumer>,
    random: Random,
    sent: u32,
}

impl TestApp {
    pub async fn with_quantity(quantity: i64) -> Self {
        let folder = TempDir::new().unwrap();
        let metrics = Metrics::unregistered();
        let store = Store::open_embedded(folder.path(), &tables(), metrics).unwrap();
        Self {
            _folder: Some(folder),
            ..Self::over(store, quantity).await
        }
    }

    pub async fn over(store: Store, quantity: i64) -> Self {
        let (clock, random) = (Clock::manual(START), Random::seeded(11));
        let settings = crate::backend::settings();
        let (service, stock, sagas) = open(&store, &clock, &random, &settings).await;
        let mut app = Self {
            _folder: None,
            settings,
            router: router(&service, &store, &clock),
            store,
            clock,
            service,
            stock,
            sagas,
            random,
            sent: 0,
        };
        app.event(quantity, 1).await;
        app
    }

    /// Rebuilds what is in memory, as after a crash.
    pub async fn restart(&mut self) {
        let (service, stock, sagas) =
            open(&self.store, &self.clock, &self.random, &self.settings).await;
        self.router = router(&service, &self.store, &self.clock);
        (self.service, self.stock, self.sagas) = (service, stock, sagas);
    }

    /// The routes of another process over the same store and reservations.
    pub async fn another_process(&self, seed: u64) -> Router {
        let service = self.another_service(seed, &self.settings).await;
        router(&service, &self.store, &self.clock)
    }

    /// The service in another process over the same store and reservations.
    pub async fn another_service(&self, seed: u64, settings: &Settings) -> Service {
        let random = Random::seeded(seed);
        let (service, ..) = open(&self.store, &self.clock, &random, settings).await;
        service
    }

    /// Publishes without running the workers.
    pub async fn publish<P: Payload>(&mut self, payload: &P) {
        let message = Message::new(self.next_id(), payload, self.clock.now());
        self.publish_message(message).await;
    }

    fn next_id(&mut self) -> String {
        self.sent += 1;
        format!("published:{}", self.sent)
    }

    async fn publish_message(&self, message: Message) {
        let mut commit = Commit::new();
        commit.publish(message);
        self.store.commit(commit).await.unwrap();
    }

    /// Delivers the timeout of a saga's step.
    pub async fn time_out(&mut self, timeout: &SagaTimeout) {
        let (key, id) = (timeout.saga_id.to_string(), self.next_id());
        let message = Message::on(SAGA_TIMEOUT, key, id, timeout, self.clock.now());
        self.publish_message(message).await;
        self.run_workers().await;
    }

    pub async fn run_workers(&mut self) {
        while self.stock.step().await.unwrap() + self.sagas.step().await.unwrap() > 0 {}
    }

    /// Publishes, and runs the workers until nothing is left to do.
    pub async fn deliver<P: Payload>(&mut self, payload: &P) {
        self.publish(payload).await;
        self.run_workers().await;
    }

    pub async fn event(&mut self, ticket_quantity: i64, version: i64) {
        let event = domain::Event {
            id: EVENT,
            name: "show".to_owned(),
            ticket_quantity,
            price: None,
            sale_opens_at: None,
            sale_closes_at: None,
            created_at: START,
            updated_at: START,
        };
        self.deliver(&DomainMessage::new(event, version, START))
            .await;
    }

    /// A reservation whose purchase has created its payment.
    pub async fn purchase(&mut self, user: i64) -> TicketId {
        let ticket_id = self.purchase_without_payment(user).await;
        self.create_payment(ticket_id, user).await;
        ticket_id
    }

    pub async fn create_payment(&mut self, ticket_id: TicketId, user: i64) {
        self.deliver(&CreateResponse {
            saga_id: ticket_id.purchase_saga(),
            succeed: true,
            user_id: UserId(user),
            event_id: EVENT,
            payment_id: Some(payment_id(ticket_id)),
        })
        .await;
    }

    /// A reservation whose purchase waits until its payment is created.
    pub async fn purchase_without_payment(&mut self, user: i64) -> TicketId {
        let ticket_id = self.reserve(user).await.unwrap();
        self.start_purchase(ticket_id, user).await;
        self.approve_checks(ticket_id, UserId(user)).await;
        ticket_id
    }

    pub async fn reserve(&self, user: i64) -> Result<TicketId, reserve::Error> {
        let input = ReserveInput {
            event_id: EVENT,
            user_id: UserId(user),
            request_digest: None,
        };
        let ticket = |_: &mut Commit, reserved: &ReserveOutput| reserved.ticket_id;
        self.service.reserve(input, None, ticket).await
    }

    pub async fn approve_checks(&mut self, ticket_id: TicketId, user_id: UserId) {
        let saga_id = ticket_id.purchase_saga();
        let point = Points::new(30).unwrap();
        self.deliver(&CheckActiveResponse {
            saga_id,
            user_id,
            is_active: true,
        })
        .await;
        self.deliver(&ReservePointResponse {
            saga_id,
            user_id,
            point,
            reserved: true,
        })
        .await;
        self.deliver(&CheckFraudResponse {
            saga_id,
            user_id,
            is_fraudulent: false,
        })
        .await;
    }

    /// A paid purchase with its ticket.
    pub async fn buy(&mut self, user: i64) -> TicketId {
        let ticket_id = self.purchase(user).await;
        self.deliver(&paid(ticket_id, user, 3)).await;
        self.check_issued(ticket_id).await;
        ticket_id
    }

    /// Advances the clock until every present reservation is due.
    pub fn advance_past_expiry(&self) {
        let secs = self.settings.hold_ttl_secs + self.settings.hold_grace_secs;
        self.clock.advance_millis(secs * 1000);
    }

    /// Expires every present reservation, and runs the workers.
    pub async fn expire_claims(&mut self) {
        self.advance_past_expiry();
        self.service.expire_due().await.unwrap();
        self.run_workers().await;
    }

    /// Expires the reservation, and undoes what its purchase took.
    pub async fn expire(&mut self, ticket_id: TicketId, user: i64) {
        self.expire_claims().await;
        let saga_id = ticket_id.expire_saga();
        self.deliver(&DeleteResponse {
            saga_id,
            succeed: true,
            payment_id: payment_id(ticket_id),
        })
        .await;
        self.restore_points(ticket_id, saga_id, user).await;
    }

    pub async fn restore_points(
        &mut self,
        _ticket_id: TicketId,
        saga_id: contract::SagaId,
        user: i64,
    ) {
        self.deliver(&RestorePointResponse {
            saga_id,
            user_id: UserId(user),
            point: Points::new(30).unwrap(),
            succeed: true,
        })
        .await;
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        self.call(Request::get(path).body(Body::empty()).unwrap())
            .await
    }

    pub async fn post(&self, path: &str, body: String) -> (u16, Value) {
        self.call(Request::post(path).body(Body::from(body)).unwrap())
            .await
    }

    async fn call(&self, request: Request<Body>) -> (u16, Value) {
        call(self.router.clone(), request).await
    }

    /// A POST that must be refused in this way.
    pub async fn post_refused(&self, path: &str, body: Value, status: u16, code: &str) {
        let (answered, problem) = self.post(path, body.to_string()).await;
        assert_eq!((answered, problem["code"].as_str()), (status, Some(code)));
    }

    pub async fn reserve_by_key(&self, user: i64, key: &str) -> (u16, Value) {
        self.call(crate::idempotency_keys::reserve(user, key)).await
    }

    /// The buyer starts the purchase of a reserved ticket.
    pub async fn start_purchase(&mut self, ticket_id: TicketId, user: i64) {
        let body = process_body(ticket_id, user).to_string();
        let (status, answer) = self.post("/ticketing/process", body).await;
        assert_eq!(status, 202, "{answer}");
        self.run_workers().await;
    }

    pub async fn cancel(&self, ticket_id: TicketId) -> (u16, Value) {
        self.post(&format!("/ticket/{ticket_id}/cancel"), String::new())
            .await
    }

    pub async fn cancellation(&self, ticket_id: TicketId) -> Value {
        let (status, answer) = self.get(&format!("/ticket/{ticket_id}/cancel")).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub async fn progress(&self, ticket_id: TicketId) -> Value {
        let (status, answer) = self.get(&format!("/ticketing/process/{ticket_id}")).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub async fn ticket(&self, ticket_id: TicketId) -> Option<Ticket> {
        self.store.load(ticket_id).await.unwrap()
    }

    pub async fn ticket_status(&self, ticket_id: TicketId) -> Option<TicketStatus> {
        self.ticket(ticket_id).await.map(|ticket| ticket.status)
    }

    /// The purchase has its ticket.
    pub async fn check_issued(&self, ticket_id: TicketId) {
        let status = self.ticket_status(ticket_id).await;
        assert_eq!(status, Some(TicketStatus::Reserved));
    }

    pub async fn stats(&self) -> Stats {
        let stats = eventually(POLLING, "the event is rebuilt", async || {
            let stats = self.service.reservations().stats(EVENT).await;
            // No other refusal while a lost event is rebuilt.
            stats.inspect_err(|error| assert_eq!(*error, Refusal::Rebuilding.into()))
        });
        stats.await.unwrap()
    }

    /// All messages of this topic so far.
    pub fn published<P: Payload>(&self) -> Vec<P> {
        let messages = self.messages::<P>().into_iter();
        messages.map(|it| it.parse::<P>().unwrap()).collect()
    }

    pub fn messages<P: Payload>(&self) -> Vec<Arc<Message>> {
        let mut found = Vec::new();
        let bus = Bus::Local(self.store.clone());
        let mut reader = bus.subscribe("reader", &[P::TOPIC]).unwrap();
        while let Some(batch) = reader.try_next(100).now_or_never().unwrap().unwrap() {
            found.extend(batch.messages.iter().cloned());
        }
        found
    }

    /// Checks that tickets, allocation, stored claims and the reservations agree; returns how many tickets are sold.
    pub async fn check_consistency(&self) -> i64 {
        let tickets: Vec<Ticket> = self.find().await;
        let owned = tickets
            .iter()
            .filter(|it| it.status == TicketStatus::Reserved);
        let owned: Vec<_> = owned.map(|it| it.ticket_id).collect();
        let claims: Vec<ReservationRecord> = self.find().await;
        let bought = claims
            .iter()
            .filter(|it| it.state == ReservationState::Completed);
        let bought: Vec<_> = bought.map(|it| it.ticket_id).collect();
        let stored = if crate::backend::CLAIMS_ARE_ROWS {
            &owned
        } else {
            &Vec::new()
        };
        assert_eq!(&bought, stored, "tickets and stored claims");
        let allocation: Allocation = self.store.load(EVENT).await.unwrap().unwrap();
        let sold = i64::try_from(owned.len()).unwrap();
        let Stats {
            quantity,
            waiting: waits,
            completed,
            ..
        } = self.stats().await;
        let waiting = i64::try_from(claims.len()).unwrap() - sold;
        let waiting = if crate::backend::CLAIMS_ARE_ROWS {
            waiting
        } else {
            waits
        };
        assert_eq!(
            (allocation.sold, completed, waits, quantity),
            (sold, sold, waiting, allocation.quantity),
            "allocation and reservations"
        );
        assert!(sold <= quantity);
        sold
    }

    async fn find<R: Record>(&self) -> Vec<R> {
        self.store.find(Find::all(R::TABLE, 500)).await.unwrap()
    }
}

pub fn tables() -> Vec<&'static Table> {
    [messaging::TABLES, ticketing::TABLES, &[AnswerRecord::TABLE]].concat()
}

fn router(service: &Service, store: &Store, clock: &Clock) -> Router {
    let idempotency = Idempotency::new(store.clone(), clock.clone());
    let (routes, _) = ticketing::http::router(service.clone()).split_for_parts();
    routes.layer(from_fn_with_state(idempotency, idempotent))
}

async fn open(
    store: &Store,
    clock: &Clock,
    random: &Random,
    settings: &Settings,
) -> (Service, Worker<StockConsumer>, Worker<SagaConsumer>) {
    let opened = Service::open(
        store.clone(),
        clock.clone(),
        random.clone(),
        settings.clone(),
        ticketing::Metrics::default(),
    );
    let service = opened.await.unwrap();
    let context = WorkerContext {
        store: store.clone(),
        bus: Bus::Local(store.clone()),
        clock: clock.clone(),
        random: random.clone(),
        metrics: Metrics::unregistered(),
        dead_letters: DeadLetterSettings::default(),
    };
    let stock = Worker::new(StockConsumer(service.clone()), context.clone()).unwrap();
    let sagas = Worker::new(SagaConsumer(service.clone()), context).unwrap();
    (service, stock, sagas)
}

pub async fn call(router: Router, request: Request<Body>) -> (u16, Value) {
    let response = router.oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    let answer = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    (status, answer)
}

pub fn reserve_body(event: i64, user: i64) -> Value {
    json!({"eventId": event, "userId": user})
}

pub fn process_body(ticket_id: TicketId, user: i64) -> Value {
    json!({"ticketId": ticket_id, "eventId": 1, "userId": user, "totalAmount": 100, "point": 30})
}

pub fn payment_id(ticket_id: TicketId) -> PaymentId {
    PaymentId::of_saga(ticket_id.purchase_saga())
}

pub fn payment(
    ticket_id: TicketId,
    user: i64,
    version: i64,
    (status, refund): (PaymentStatus, Refund),
) -> DomainMessage<domain::Payment> {
    let payment = domain::Payment {
        id: payment_id(ticket_id),
        event_id: EVENT,
        user_id: UserId(user),
        ticket_id,
        saga_id: Some(ticket_id.purchase_saga()),
        pg_payment_id: Some("pg".to_owned()),
        status,
        total_amount: Money::new(100).unwrap(),
        point_amount: Points::new(30).unwrap(),
        final_amount: Money::new(70).unwrap(),
        refund,
        refund_reason: (refund != Refund::None).then(|| "a reason".to_owned()),
        created_at: START,
        updated_at: START,
    };
    DomainMessage::new(payment, version, START)
}

pub fn paid(ticket_id: TicketId, user: i64, version: i64) -> DomainMessage<domain::Payment> {
    payment(
        ticket_id,
        user,
        version,
        (PaymentStatus::Succeeded, Refund::None),
    )
}

pub fn cancelled(ticket_id: TicketId, user: i64, version: i64) -> DomainMessage<domain::Payment> {
    payment(
        ticket_id,
        user,
        version,
        (PaymentStatus::Cancelled, Refund::Done),
    )
}

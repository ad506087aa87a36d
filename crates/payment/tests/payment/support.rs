//! A payment service on its own folder; the tests drive its consumer and its settler by hand.

use std::{net::SocketAddr, path::Path, time::Duration};

use contract::{
    EventId, Money, Payload, PaymentId, Points, SagaId, TicketId, Timestamp, UserId,
    domain::PaymentStatus,
    payment::{CancelRequest, ConfirmedRequest, CreateRequest},
};
use futures::FutureExt;
use messaging::{
    Bus, Clock, Commit, DeadLetterSettings, Fence, Lease, LeaseManager, Message, Metrics, Random,
    Record, ShutdownSwitch, Store, Worker, WorkerContext,
};
use payment::{
    Error, PaymentConsumer, Service, Settings, Settler,
    confirm::{ConfirmInput, ConfirmOutput, Settled},
    record::{HistoryEntry, PaymentRecord},
};
use prometheus_client::registry::Registry;
use reqwest::Method;
use test_support::api::ApiAnswer;
use tokio::task::JoinHandle;
use toss::{self, Charge, Client, Confirm, GatewayOutcome, Lookup, SecretKey};
use toss_sandbox::{Sandbox, SandboxSettings};

pub const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);
pub const SECRET: &str = "test_sk_of_the_tests";
/// The longest wait of a test.
const DEADLINE: Duration = Duration::from_secs(20);

/// The gateway's stub on a port of the system's choice.
pub struct TestGateway {
    pub address: SocketAddr,
    switch: ShutdownSwitch,
    server: JoinHandle<()>,
}

impl TestGateway {
    pub async fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub async fn start_at(address: SocketAddr) -> Self {
        let sandbox = Sandbox::open(SandboxSettings::new(SecretKey::new(SECRET)));
        Self::serving_at(&sandbox.unwrap(), address).await
    }

    /// Serves a sandbox that the test keeps.
    pub async fn serving(sandbox: &Sandbox) -> Self {
        Self::serving_at(sandbox, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    async fn serving_at(sandbox: &Sandbox, address: SocketAddr) -> Self {
        let (switch, mut shutdown) = ShutdownSwitch::new();
        let stopped = async move { shutdown.requested().await };
        let served = sandbox.serve(address, stopped).await;
        let (address, server) = served.unwrap();
        Self {
            address,
            switch,
            server,
        }
    }

    pub async fn stop(self) {
        self.switch.stop();
        self.server.await.unwrap();
    }

    pub fn client(&self) -> Client {
        Client::new(&settings(self.address).gateway).unwrap()
    }

    /// Acts as a buyer, a bank or the merchant at the gateway.
    pub async fn control(&self, path: &str, body: &serde_json::Value) {
        self.tell(Method::POST, path, body).await;
    }

    /// Sets the fault script.
    pub async fn script(&self, script: &serde_json::Value) {
        self.tell(Method::PUT, "faults", script).await;
    }

    async fn tell(&self, method: Method, path: &str, body: &serde_json::Value) {
        let url = format!("http://{}/sandbox/{path}", self.address);
        let client = test_support::api::client();
        let request = client.request(method, url).body(body.to_string());
        let answer = ApiAnswer::read(request.send().await.unwrap())
            .await
            .unwrap();
        assert!(answer.status < 300, "{} {}", answer.status, answer.text);
    }

    /// The charge of a payment.
    pub async fn charge(&self, payment: PaymentId) -> Option<Charge> {
        match self.client().find_by_order(&payment.to_string()).await {
            Lookup::Found(charge) => Some(charge),
            Lookup::NotFound => None,
            Lookup::Unknown { reason } => panic!("the sandbox did not answer: {reason}"),
        }
    }

    /// Charges a payment without the service.
    pub async fn charge_directly(&self, payment: PaymentId, pg_payment_id: &str, amount: i64) {
        let outcome = self.confirm_directly(payment, pg_payment_id, amount).await;
        assert!(
            matches!(outcome, GatewayOutcome::Approved(_)),
            "{outcome:?}"
        );
    }

    /// Confirms a payment without the service.
    pub async fn confirm_directly(
        &self,
        payment: PaymentId,
        pg_payment_id: &str,
        amount: i64,
    ) -> GatewayOutcome {
        let confirm = Confirm {
            payment_key: pg_payment_id.to_owned(),
            order_id: payment.to_string(),
            amount,
            idempotency_key: format!("direct-{pg_payment_id}"),
            test_code: None,
        };
        self.client().confirm(&confirm).await
    }
}

pub fn settings(address: SocketAddr) -> Settings {
    Settings {
        gateway: toss::Settings {
            base_url: format!("http://{address}"),
            secret_key: SecretKey::new(SECRET),
            request_timeout_millis: 10_000,
            ..toss::Settings::default()
        },
        forward_test_codes: true,
        ..Settings::default()
    }
}

pub struct TestPaymentService {
    pub store: Store,
    pub clock: Clock,
    pub service: Service,
    pub settler: Settler,
    registry: Registry,
    worker: Worker<PaymentConsumer>,
}

impl TestPaymentService {
    pub fn open(folder: &Path, settings: Settings) -> Self {
        Self::open_at(folder, settings, START)
    }

    pub fn open_at(folder: &Path, settings: Settings, now: Timestamp) -> Self {
        Self::open_with(folder, settings, Clock::manual(now))
    }

    pub fn open_with(folder: &Path, settings: Settings, clock: Clock) -> Self {
        let answers = web::idempotency::AnswerRecord::TABLE;
        let tables = [messaging::TABLES, payment::TABLES, &[answers]].concat();
        let metrics = Metrics::unregistered();
        let store = Store::open_embedded(folder, &tables, metrics.clone()).unwrap();
        let random = Random::seeded(1);
        let mut registry = Registry::default();
        let service = Service::new(
            store.clone(),
            clock.clone(),
            random.clone(),
            settings,
            payment::Metrics::register(&mut registry),
        )
        .unwrap();
        let context = WorkerContext {
            store: store.clone(),
            bus: Bus::Local(store.clone()),
            clock: clock.clone(),
            random,
            metrics,
            dead_letters: DeadLetterSettings::default(),
        };
        let worker = Worker::new(PaymentConsumer::new(service.clone()), context).unwrap();
        Self {
            settler: Settler::new(service.clone()),
            registry,
            store,
            clock,
            service,
            worker,
        }
    }

    /// Sends a message with an id and lets the consumer handle all messages.
    pub async fn send<P: Payload>(&mut self, id: &str, payload: &P) {
        let mut commit = Commit::new();
        commit.publish(Message::new(id, payload, self.clock.now()));
        self.store.commit(commit).await.unwrap();
        self.drain().await;
    }

    pub async fn drain(&mut self) {
        while self.worker.step().await.unwrap() > 0 {}
    }

    /// Settles what is due, and lets the consumer handle the messages.
    pub async fn settle(&mut self) -> usize {
        let settled = self.settler.settle_due().await.unwrap();
        self.drain().await;
        settled
    }

    /// The fence of a leader that was replaced, and the next leader's lease.
    pub async fn change_leaders(&self) -> (Fence, Lease) {
        let (store, clock) = (self.store.clone(), self.clock.clone());
        let leases = LeaseManager::new(store, clock, "leader".to_owned(), 9_000);
        let first = leases.try_acquire("leader").await.unwrap().unwrap();
        let stale = first.fence();
        first.release().await.unwrap();
        (stale, leases.try_acquire("leader").await.unwrap().unwrap())
    }

    /// The metrics of the service.
    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    pub async fn open_payment(&mut self, number: u64) -> PaymentId {
        let request = creation(number);
        self.send(&format!("create-{number}"), &request).await;
        PaymentId::of_saga(request.saga_id)
    }

    pub async fn payment(&self, id: PaymentId) -> PaymentRecord {
        self.service.show(id).await.unwrap().expect("a payment")
    }

    pub async fn status(&self, id: PaymentId) -> PaymentStatus {
        self.payment(id).await.status
    }

    pub async fn history(&self, id: PaymentId) -> Vec<HistoryEntry> {
        let payment = self.payment(id).await;
        self.service.history(&payment).await.unwrap()
    }

    pub async fn confirm(&self, input: ConfirmInput) -> Result<ConfirmOutput<Settled>, Error> {
        self.service.confirm(input, answer).await
    }

    /// Everything published on these topics so far.
    pub fn published<P: Payload>(&self, topics: &'static [&'static str]) -> Vec<P> {
        let mut subscription = Bus::Local(self.store.clone())
            .subscribe("test", topics)
            .unwrap();
        let mut found = Vec::new();
        while let Some(batch) = subscription.try_next(100).now_or_never().unwrap().unwrap() {
            found.extend(
                batch
                    .messages
                    .iter()
                    .map(|message| message.parse().unwrap()),
            );
        }
        found
    }
}

/// Awaits something for as long as a test may.
pub async fn within<T>(awaited: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, awaited).await.unwrap()
}

/// Waits until a payment has this status.
pub async fn until(store: &Store, id: PaymentId, status: PaymentStatus) {
    let mut committed = store.committed();
    let reached = async {
        loop {
            committed.borrow_and_update();
            let payment: Option<PaymentRecord> = store.load(id).await.unwrap();
            if payment.is_some_and(|payment| payment.status == status) {
                return;
            }
            committed.changed().await.unwrap();
        }
    };
    within(reached).await;
}

/// 10,000 less 3,000 points, to be paid within ten minutes.
pub fn creation(number: u64) -> CreateRequest {
    let random = Random::seeded(number);
    CreateRequest {
        saga_id: SagaId(random.uuid(START)),
        ticket_id: TicketId(random.uuid(START)),
        event_id: EventId(1),
        user_id: UserId(2),
        total_amount: Money::new(10_000).unwrap(),
        point: Points::new(3_000).unwrap(),
        expires_at: Some(START.plus_secs(600)),
    }
}

pub fn input(payment_id: PaymentId) -> ConfirmInput {
    ConfirmInput {
        payment_id,
        pg_payment_id: format!("pg-{payment_id}"),
        amount: Money::new(7_000).unwrap(),
        user_id: Some(UserId(2)),
        refund_account: None,
        test_code: None,
    }
}

pub fn input_with(payment_id: PaymentId, test_code: &str) -> ConfirmInput {
    ConfirmInput {
        test_code: Some(test_code.to_owned()),
        ..input(payment_id)
    }
}

/// The answer of a caller who saves nothing.
pub fn answer(_: &mut Commit, settled: &Settled) -> Settled {
    settled.clone()
}

pub fn settled(output: Result<ConfirmOutput<Settled>, Error>) -> Settled {
    match output {
        Ok(ConfirmOutput::Settled(settled)) => settled,
        other => panic!("expected an outcome, got {other:?}"),
    }
}

pub fn assert_pending(output: &Result<ConfirmOutput<Settled>, Error>) {
    assert!(
        matches!(output, Ok(ConfirmOutput::Pending(_))),
        "expected no outcome, got {output:?}"
    );
}

/// A request for a refund that no saga waits for.
pub fn cancellation(payment_id: PaymentId) -> CancelRequest {
    CancelRequest {
        payment_id,
        reason: "sold out".to_owned(),
        saga_id: None,
    }
}

/// The same from a saga that waits for the response.
pub fn cancellation_by_saga(payment_id: PaymentId) -> CancelRequest {
    CancelRequest {
        saga_id: Some(creation(9).saga_id),
        ..cancellation(payment_id)
    }
}

/// A message about a second charge of an order.
pub fn second_charge(payment_id: PaymentId) -> ConfirmedRequest {
    ConfirmedRequest {
        payment_id,
        pg_payment_id: "pg-second".to_owned(),
        confirmed: true,
        attempt: Some(1),
        decline_code: None,
    }
}

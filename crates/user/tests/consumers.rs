//! The user service's consumer on the embedded store: duplicates, reorders, crashes.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use std::sync::atomic::{AtomicU32, Ordering};

use contract::{
    Money, Payload, PaymentId, Points, SagaId, TicketId, Timestamp, UserId,
    dead_letter::DeadLetter,
    domain::{DomainMessage, Payment, PaymentStatus},
    user::{
        CheckActiveRequest, CheckActiveResponse, CheckFraudRequest, CheckFraudResponse,
        ReservePointRequest, ReservePointResponse, RestorePointRequest, RestorePointResponse,
    },
};
use futures::FutureExt;
use messaging::{
    Bus, Clock, Commit, DeadLetterSettings, Entry, Find, Message, Metrics, Random, Store, Table,
    Worker, WorkerContext,
};
use tempfile::TempDir;
use tokio::runtime::Handle;
use user::{
    Service, Settings,
    consumers::UserConsumer,
    grant::GrantInput,
    ledger::{EntryKind, LedgerEntry},
    model::{Status, User},
    modify::ModifyInput,
    register::RegisterInput,
};
use uuid::Uuid;

const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const KIM: UserId = UserId(1);

fn saga(number: u128) -> SagaId {
    SagaId(Uuid::from_u128(number))
}

fn points(amount: i64) -> Points {
    Points::new(amount).unwrap()
}

struct TestApp {
    worker: Worker<UserConsumer>,
    service: Service,
    store: Store,
    clock: Clock,
    folder: TempDir,
}

impl TestApp {
    /// With the active user Kim, who has 1000 points.
    async fn with_kim() -> Self {
        let app = Self::open_in(tempfile::tempdir().unwrap());
        let kim = RegisterInput {
            id: Some(KIM),
            name: "Kim".to_owned(),
            status: Status::Active,
            points: 1000,
        };
        app.service.register(kim, |_, _| ()).await.unwrap();
        app
    }

    fn open_in(folder: TempDir) -> Self {
        let tables: Vec<&'static Table> = [messaging::TABLES, user::TABLES].concat();
        let metrics = Metrics::unregistered();
        let store = Store::open_embedded(folder.path(), &tables, metrics.clone()).unwrap();
        let clock = Clock::manual(START);
        let service = Service::new(store.clone(), clock.clone(), Settings::default());
        let context = WorkerContext {
            store: store.clone(),
            bus: Bus::Local(store.clone()),
            clock: clock.clone(),
            random: Random::seeded(1),
            metrics,
            dead_letters: DeadLetterSettings::default(),
        };
        let worker = Worker::new(UserConsumer::new(&service), context).unwrap();
        Self {
            worker,
            service,
            store,
            clock,
            folder,
        }
    }

    /// Restarts over the same folder.
    fn reopen(self) -> Self {
        let Self {
            worker,
            service,
            store,
            folder,
            ..
        } = self;
        drop((worker, service, store));
        Self::open_in(folder)
    }

    async fn send<P: Payload>(&self, id: &str, payload: &P) {
        let mut commit = Commit::new();
        commit.publish(Message::new(id, payload, self.clock.now()));
        self.store.commit(commit).await.unwrap();
    }

    async fn work(&mut self) {
        while self.worker.step().await.unwrap() > 0 {}
    }

    /// All messages published on this payload's topic, with their ids.
    fn published<P: Payload>(&self) -> Vec<(String, P)> {
        let topics: &'static [&'static str] = Box::leak(Box::new([P::TOPIC]));
        let mut subscription = Bus::Local(self.store.clone())
            .subscribe("test", topics)
            .unwrap();
        let batch = subscription.try_next(1000).now_or_never().unwrap().unwrap();
        let messages = batch.into_iter().flat_map(|batch| batch.messages);
        messages
            .map(|message| (message.id.clone(), message.parse().unwrap()))
            .collect()
    }

    async fn kim(&self) -> User {
        self.service.show(KIM).await.unwrap()
    }

    async fn balance(&self) -> i64 {
        self.kim().await.balance.get()
    }

    async fn ledger(&self) -> Vec<(EntryKind, i64)> {
        let find = Find::all(LedgerEntry::TABLE, 100).equals("user_id", KIM.0);
        let entries: Vec<LedgerEntry> = self.store.find(find).await.unwrap();
        entries
            .iter()
            .map(|entry| (entry.kind, entry.amount))
            .collect()
    }

    async fn is_consistent(&self) -> bool {
        common::is_consistent(&self.store).await
    }
}

fn reserve(number: u128, point: i64) -> ReservePointRequest {
    ReservePointRequest {
        saga_id: saga(number),
        user_id: KIM,
        point: points(point),
    }
}

fn restore(number: u128, point: i64) -> RestorePointRequest {
    RestorePointRequest {
        saga_id: saga(number),
        user_id: KIM,
        point: points(point),
        held_by: None,
        refunded: false,
    }
}

fn payment(number: u128, status: PaymentStatus, version: i64) -> DomainMessage<Payment> {
    let payment = Payment {
        id: PaymentId(Uuid::from_u128(number)),
        event_id: contract::EventId(1),
        user_id: KIM,
        ticket_id: TicketId(Uuid::from_u128(number)),
        saga_id: Some(saga(number)),
        pg_payment_id: None,
        status,
        total_amount: Money::new(1000).unwrap(),
        point_amount: points(300),
        final_amount: Money::new(700).unwrap(),
        refund: contract::domain::Refund::None,
        refund_reason: None,
        created_at: START,
        updated_at: START,
    };
    DomainMessage::new(payment, version, START)
}

#[tokio::test]
async fn only_a_registered_active_user_may_buy() {
    let mut app = TestApp::with_kim().await;
    let lee = RegisterInput {
        id: Some(UserId(2)),
        name: "Lee".to_owned(),
        status: Status::Inactive,
        points: 0,
    };
    app.service.register(lee, |_, _| ()).await.unwrap();
    for user in 1..=3 {
        let request = CheckActiveRequest {
            saga_id: saga(user),
            user_id: UserId(user as i64),
        };
        app.send(&format!("q{user}"), &request).await;
    }

    app.work().await;

    let said = app.published::<CheckActiveResponse>();
    let answers: Vec<_> = said
        .iter()
        .map(|(_, response)| (response.user_id.0, response.is_active))
        .collect();
    assert_eq!(answers, [(1, true), (2, false), (3, false)]);
    assert_eq!(said[0].0, format!("{}:check.active:response:q1", saga(1)));
}

#[tokio::test]
async fn a_repeated_point_reservation_takes_points_once_and_each_request_gets_a_reply() {
    let mut app = TestApp::with_kim().await;
    for id in ["q1", "q1", "q2"] {
        app.send(id, &reserve(1, 300)).await;
    }
    app.work().await;
    app.send("q2", &reserve(1, 300)).await;
    app.send("q3", &reserve(1, 300)).await;
    app.work().await;

    let said = app.published::<ReservePointResponse>();
    let ids: Vec<_> = said
        .iter()
        .map(|(id, _)| id.rsplit(':').next().unwrap())
        .collect();
    assert_eq!(ids, ["q1", "q2", "q3"]);
    let same = ReservePointResponse {
        saga_id: saga(1),
        user_id: KIM,
        point: points(300),
        reserved: true,
    };
    assert!(
        said.iter().all(|(_, response)| *response == same),
        "{said:?}"
    );
    assert_eq!(app.balance().await, 700);
    assert_eq!(
        app.ledger().await,
        [(EntryKind::Granted, 1000), (EntryKind::Reserved, -300)]
    );
    assert!(app.is_consistent().await);
}

#[tokio::test]
async fn purchases_of_one_batch_share_one_balance() {
    let mut app = TestApp::with_kim().await;
    for number in 1..=4 {
        app.send(&format!("q{number}"), &reserve(number, 300)).await;
    }

    app.work().await;

    let said = app.published::<ReservePointResponse>();
    let reserved: Vec<_> = said.iter().map(|(_, response)| response.reserved).collect();
    assert_eq!(reserved, [true, true, true, false]);
    assert_eq!(app.balance().await, 100);
    assert!(app.is_consistent().await);
}

#[tokio::test]
async fn a_refused_point_reservation_stays_refused_after_a_grant() {
    let mut app = TestApp::with_kim().await;
    app.send("q1", &reserve(1, 1001)).await;
    app.work().await;
    let grant = GrantInput {
        amount: 5000,
        reason: None,
    };
    app.service.grant(KIM, grant, |_, _| ()).await.unwrap();
    app.send("q2", &reserve(1, 1001)).await;
    app.work().await;

    let said = app.published::<ReservePointResponse>();
    assert_eq!(
        said.iter()
            .map(|(_, response)| response.reserved)
            .collect::<Vec<_>>(),
        [false, false]
    );
    assert_eq!(app.balance().await, 6000);
}

#[tokio::test]
async fn points_are_restored_once_and_in_full() {
    let mut app = TestApp::with_kim().await;
    app.send("q1", &reserve(1, 300)).await;
    app.send("q2", &restore(1, 9_999)).await;
    app.send("q3", &restore(1, 300)).await;
    app.work().await;
    let mut app = app.reopen();
    app.send("q4", &restore(1, 300)).await;
    app.work().await;

    let said = app.published::<RestorePointResponse>();
    assert_eq!(said.len(), 3);
    let back = RestorePointResponse {
        saga_id: saga(1),
        user_id: KIM,
        point: points(300),
        succeed: true,
    };
    assert!(
        said.iter().all(|(_, response)| *response == back),
        "{said:?}"
    );
    assert_eq!(app.balance().await, 1000);
    assert_eq!(app.ledger().await.len(), 3);
    assert!(app.is_consistent().await);
}

#[tokio::test]
async fn a_point_reservation_after_its_compensation_takes_nothing() {
    let mut app = TestApp::with_kim().await;
    app.send("q2", &restore(1, 300)).await;
    app.work().await;
    let mut app = app.reopen();
    app.send("q1", &reserve(1, 300)).await;
    app.work().await;

    assert!(app.published::<RestorePointResponse>()[0].1.succeed);
    assert!(!app.published::<ReservePointResponse>()[0].1.reserved);
    assert_eq!(app.ledger().await, [(EntryKind::Granted, 1000)]);
}

#[tokio::test]
async fn another_saga_restores_the_points_of_an_expired_purchase() {
    let mut app = TestApp::with_kim().await;
    app.send("q1", &reserve(1, 300)).await;
    let expired = RestorePointRequest {
        held_by: Some(saga(1)),
        ..restore(2, 0)
    };
    app.send("q2", &expired).await;
    app.work().await;

    let (id, response) = app.published::<RestorePointResponse>().pop().unwrap();
    assert_eq!(id, format!("{}:restore.point:response:q2", saga(2)));
    assert_eq!(
        (response.saga_id, response.point, response.succeed),
        (saga(2), points(300), true)
    );
    assert_eq!(app.balance().await, 1000);
}

#[tokio::test]
async fn a_crash_between_batches_loses_nothing_and_doubles_nothing() {
    let mut app = TestApp::with_kim().await;
    app.send("q1", &reserve(1, 300)).await;
    app.work().await;
    app.send("q2", &reserve(2, 200)).await;

    let mut app = app.reopen();
    app.send("q1", &reserve(1, 300)).await;
    app.work().await;
    let mut app = app.reopen();
    app.work().await;

    assert_eq!(app.published::<ReservePointResponse>().len(), 2);
    assert_eq!(app.balance().await, 500);
    assert!(app.is_consistent().await);
}

#[tokio::test]
async fn used_points_are_restored_only_by_a_cancelled_payment() {
    let mut app = TestApp::with_kim().await;
    app.send("q1", &reserve(1, 300)).await;
    app.send("p3", &payment(1, PaymentStatus::Succeeded, 3))
        .await;
    app.send("q2", &restore(1, 300)).await;
    app.work().await;
    assert!(!app.published::<RestorePointResponse>()[0].1.succeed);
    assert_eq!(app.balance().await, 700);

    app.send("p4", &payment(1, PaymentStatus::Cancelled, 4))
        .await;
    app.send("p4 again", &payment(1, PaymentStatus::Cancelled, 4))
        .await;
    app.send("p3 late", &payment(1, PaymentStatus::Succeeded, 3))
        .await;
    app.work().await;

    assert_eq!(app.balance().await, 1000);
    let kinds: Vec<_> = app
        .ledger()
        .await
        .into_iter()
        .map(|(kind, _)| kind)
        .collect();
    assert_eq!(
        kinds,
        [
            EntryKind::Granted,
            EntryKind::Reserved,
            EntryKind::Used,
            EntryKind::Restored
        ]
    );
    assert!(app.is_consistent().await);
}

#[tokio::test]
async fn used_points_are_restored_once_if_a_saga_reports_the_refund() {
    let mut app = TestApp::with_kim().await;
    app.send("q1", &reserve(1, 300)).await;
    app.work().await;
    app.send("p1", &payment(1, PaymentStatus::Succeeded, 3))
        .await;
    let refunded = RestorePointRequest {
        held_by: Some(saga(1)),
        refunded: true,
        ..restore(2, 300)
    };
    app.send("q2", &refunded).await;
    app.send("p2", &payment(1, PaymentStatus::Cancelled, 5))
        .await;
    app.send("q3", &refunded).await;
    app.work().await;

    let answers = app.published::<RestorePointResponse>();
    assert!(
        answers
            .iter()
            .all(|(_, it)| it.succeed && it.point == points(300)),
        "{answers:?}"
    );
    assert_eq!(answers.len(), 2);
    assert_eq!(app.balance().await, 1000);
    assert!(app.is_consistent().await);
}

#[tokio::test]
async fn a_payment_without_a_hold_changes_nothing() {
    let mut app = TestApp::with_kim().await;
    let before = app.kim().await;
    let mut of_none = payment(1, PaymentStatus::Cancelled, 3);
    of_none.payload.saga_id = None;
    app.send("p1", &of_none).await;
    app.send("p2", &payment(2, PaymentStatus::Cancelled, 3))
        .await;
    app.work().await;

    assert_eq!(app.kim().await, before);
    assert!(app.published::<DeadLetter>().is_empty());
}

#[tokio::test]
async fn a_payment_without_saga_and_with_version_0_uses_the_points_of_its_ticket() {
    for (status, balance) in [
        (PaymentStatus::Succeeded, 700),
        (PaymentStatus::Cancelled, 1000),
    ] {
        let mut app = TestApp::with_kim().await;
        let mut unnamed = payment(7, status, 0);
        unnamed.payload.saga_id = None;
        let held = ReservePointRequest {
            saga_id: unnamed.payload.ticket_id.purchase_saga(),
            ..reserve(7, 300)
        };
        app.send("q1", &held).await;
        for id in ["p1", "p2"] {
            app.send(id, &unnamed).await;
        }
        app.work().await;
        assert_eq!(app.balance().await, balance, "{status:?}");
        assert!(app.is_consistent().await);
        // A restore without a refund leaves used points used.
        let restore = RestorePointRequest {
            saga_id: held.saga_id,
            ..restore(7, 300)
        };
        app.send("q2", &restore).await;
        app.work().await;
        assert_eq!(app.balance().await, balance, "{status:?}");
    }
}

#[tokio::test]
async fn a_request_for_another_users_points_becomes_a_dead_letter_and_delays_no_other() {
    let mut app = TestApp::with_kim().await;
    app.send("q1", &reserve(1, 300)).await;
    app.send(
        "q2",
        &RestorePointRequest {
            user_id: UserId(2),
            ..restore(1, 300)
        },
    )
    .await;
    app.send("q3", &reserve(2, 100)).await;
    app.work().await;

    let letters = app.published::<DeadLetter>();
    assert_eq!(letters.len(), 1);
    assert!(
        letters[0]
            .1
            .reason
            .contains("holds points of user 1, not of user 2")
    );
    assert_eq!(app.balance().await, 600);
}

#[tokio::test]
async fn an_unreadable_message_becomes_a_dead_letter_and_delays_no_other() {
    let mut app = TestApp::with_kim().await;
    let mut negative = Message::new("q1", &reserve(1, 300), START);
    negative.payload = negative.payload.replace("300", "-300");
    let mut commit = Commit::new();
    commit.publish(negative);
    app.store.commit(commit).await.unwrap();
    app.send("q2", &reserve(2, 100)).await;
    app.work().await;

    assert_eq!(app.published::<DeadLetter>().len(), 1);
    assert_eq!(app.balance().await, 900);
}

fn fraud_check(number: u128) -> CheckFraudRequest {
    CheckFraudRequest {
        saga_id: saga(number),
        user_id: KIM,
        total_amount: None,
    }
}

#[tokio::test]
async fn one_purchase_too_many_in_a_minute_is_fraud_and_repeated_checks_count_once() {
    let mut app = TestApp::with_kim().await;
    for number in 1..=11 {
        app.send(&format!("q{number}"), &fraud_check(number)).await;
        app.send(&format!("q{number} again"), &fraud_check(number))
            .await;
    }
    app.work().await;
    app.clock.advance_millis(61_000);
    app.send("q12", &fraud_check(12)).await;
    app.work().await;

    let said = app.published::<CheckFraudResponse>();
    assert_eq!(said.len(), 23);
    let frauds: Vec<_> = said
        .iter()
        .filter(|(_, response)| response.is_fraudulent)
        .collect();
    assert_eq!(frauds.len(), 2);
    assert!(
        frauds
            .iter()
            .all(|(_, response)| response.saga_id == saga(11))
    );
}

#[tokio::test]
async fn a_flagged_user_is_fraudulent_and_an_unknown_user_is_clear() {
    let mut app = TestApp::with_kim().await;
    let flag = ModifyInput {
        name: "Kim".to_owned(),
        status: Status::Active,
        flagged: Some(true),
        version: 1,
    };
    app.service.modify(KIM, flag, |_, _| ()).await.unwrap();
    app.send("q1", &fraud_check(1)).await;
    app.send(
        "q2",
        &CheckFraudRequest {
            user_id: UserId(99),
            ..fraud_check(2)
        },
    )
    .await;
    app.work().await;

    let said = app.published::<CheckFraudResponse>();
    assert_eq!(
        said.iter()
            .map(|(_, response)| response.is_fraudulent)
            .collect::<Vec<_>>(),
        [true, false]
    );
}

#[tokio::test]
async fn concurrent_grants_and_purchases_lose_no_points() {
    let mut app = TestApp::with_kim().await;
    for number in 1..=20 {
        app.send(&format!("q{number}"), &reserve(number, 10)).await;
    }
    let service = app.service.clone();
    let grants = async {
        for _ in 0..20 {
            let grant = GrantInput {
                amount: 7,
                reason: None,
            };
            service.grant(KIM, grant, |_, _| ()).await.unwrap();
        }
    };

    tokio::join!(grants, app.work());

    assert_eq!(app.balance().await, 1000 - 200 + 140);
    assert!(app.is_consistent().await);
}

#[tokio::test]
async fn a_user_who_keeps_buying_can_be_blocked_by_one_request() {
    let mut app = TestApp::with_kim().await;
    let seen = app.kim().await.version;
    for number in 1..=5 {
        let id = format!("q{number}");
        app.send(&id, &fraud_check(number)).await;
        app.send(&format!("r{number}"), &reserve(number, 10)).await;
        app.work().await;
    }
    assert!(app.kim().await.version > seen + 5);

    // The remaining checks run while the operator writes.
    for number in 6..=40 {
        app.send(&format!("q{number}"), &fraud_check(number)).await;
    }
    let block = ModifyInput {
        name: "Kim".to_owned(),
        status: Status::Inactive,
        flagged: None,
        version: seen,
    };
    let service = app.service.clone();
    let (blocked, ()) = tokio::join!(
        service.modify(KIM, block, |_, user| user.status),
        app.work()
    );
    assert_eq!(blocked.unwrap(), Status::Inactive);
    let kim = app.kim().await;
    assert_eq!(kim.status, Status::Inactive);
    assert_eq!(kim.recent_purchases.len(), 40, "no purchase was forgotten");
    assert!(app.is_consistent().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_during_which_points_are_granted_is_tried_again() {
    let app = TestApp::with_kim().await;
    let block = ModifyInput {
        name: "Kim".to_owned(),
        status: Status::Inactive,
        flagged: None,
        version: app.kim().await.version,
    };
    let tries = AtomicU32::new(0);
    let service = app.service.clone();
    let blocked = app.service.modify(KIM, block, |_, user| {
        // Another request changes the user between this one's read and its commit.
        if tries.fetch_add(1, Ordering::Relaxed) == 0 {
            let grant = GrantInput {
                amount: 5,
                reason: Some("a gift".to_owned()),
            };
            let granted = service.grant(KIM, grant, |_, points| points);
            let granted = tokio::task::block_in_place(|| Handle::current().block_on(granted));
            assert_eq!(granted.unwrap(), points(1005));
        }
        user.status
    });
    assert_eq!(blocked.await.unwrap(), Status::Inactive);
    assert_eq!(tries.load(Ordering::Relaxed), 2);
    let kim = app.kim().await;
    assert_eq!((kim.status, kim.balance), (Status::Inactive, points(1005)));
}

//! The user service through its door for messages, on the embedded store: duplicates, reorders, crashes.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

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
    Bus, Clock, Commit, DeadLetterSettings, Entry, Find, Message, Metrics, Random, Shell, Store,
    Table, Worker,
};
use tempfile::TempDir;
use user::{
    Service, Settings, audit,
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

struct House {
    worker: Worker<UserConsumer>,
    service: Service,
    store: Store,
    clock: Clock,
    folder: TempDir,
}

impl House {
    /// With Kim, who is active and has 1000 points.
    async fn with_kim() -> Self {
        let house = Self::open_in(tempfile::tempdir().unwrap());
        let kim = RegisterInput {
            id: Some(KIM),
            name: "Kim".to_owned(),
            status: Status::Active,
            points: 1000,
        };
        house.service.register(kim, |_, _| ()).await.unwrap();
        house
    }

    fn open_in(folder: TempDir) -> Self {
        let tables: Vec<&'static Table> = [messaging::TABLES, user::TABLES].concat();
        let metrics = Metrics::unregistered();
        let store = Store::open_embedded(folder.path(), &tables, metrics.clone()).unwrap();
        let clock = Clock::manual(START);
        let service = Service::new(store.clone(), clock.clone(), Settings::default());
        let shell = Shell {
            store: store.clone(),
            bus: Bus::Local(store.clone()),
            clock: clock.clone(),
            random: Random::seeded(1),
            metrics,
            dead_letters: DeadLetterSettings::default(),
        };
        let worker = Worker::new(UserConsumer::new(&service), shell).unwrap();
        Self {
            worker,
            service,
            store,
            clock,
            folder,
        }
    }

    /// What a crash and a start leave.
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

    /// Everything published so far under this payload's topic, with the ids.
    fn said<P: Payload>(&self) -> Vec<(String, P)> {
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

    async fn is_sound(&self) -> bool {
        audit::check(&audit::load(&self.store).await.unwrap()).is_empty()
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
async fn only_a_known_active_user_may_buy() {
    let mut house = House::with_kim().await;
    let lee = RegisterInput {
        id: Some(UserId(2)),
        name: "Lee".to_owned(),
        status: Status::Inactive,
        points: 0,
    };
    house.service.register(lee, |_, _| ()).await.unwrap();
    for user in 1..=3 {
        let request = CheckActiveRequest {
            saga_id: saga(user),
            user_id: UserId(user as i64),
        };
        house.send(&format!("q{user}"), &request).await;
    }

    house.work().await;

    let said = house.said::<CheckActiveResponse>();
    let answers: Vec<_> = said
        .iter()
        .map(|(_, response)| (response.user_id.0, response.is_active))
        .collect();
    assert_eq!(answers, [(1, true), (2, false), (3, false)]);
    assert_eq!(said[0].0, format!("{}:check.active:response:q1", saga(1)));
}

#[tokio::test]
async fn a_reservation_sent_again_takes_no_second_time_and_every_request_is_answered() {
    let mut house = House::with_kim().await;
    for id in ["q1", "q1", "q2"] {
        house.send(id, &reserve(1, 300)).await;
    }
    house.work().await;
    house.send("q2", &reserve(1, 300)).await;
    house.send("q3", &reserve(1, 300)).await;
    house.work().await;

    let said = house.said::<ReservePointResponse>();
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
    assert_eq!(house.balance().await, 700);
    assert_eq!(
        house.ledger().await,
        [(EntryKind::Granted, 1000), (EntryKind::Reserved, -300)]
    );
    assert!(house.is_sound().await);
}

#[tokio::test]
async fn purchases_of_one_batch_share_one_balance() {
    let mut house = House::with_kim().await;
    for number in 1..=4 {
        house
            .send(&format!("q{number}"), &reserve(number, 300))
            .await;
    }

    house.work().await;

    let said = house.said::<ReservePointResponse>();
    let reserved: Vec<_> = said.iter().map(|(_, response)| response.reserved).collect();
    assert_eq!(reserved, [true, true, true, false]);
    assert_eq!(house.balance().await, 100);
    assert!(house.is_sound().await);
}

#[tokio::test]
async fn a_saga_that_was_refused_stays_refused_though_points_arrive() {
    let mut house = House::with_kim().await;
    house.send("q1", &reserve(1, 1001)).await;
    house.work().await;
    let grant = GrantInput {
        id: KIM,
        amount: 5000,
        reason: None,
    };
    house.service.grant(grant, |_, _| ()).await.unwrap();
    house.send("q2", &reserve(1, 1001)).await;
    house.work().await;

    let said = house.said::<ReservePointResponse>();
    assert_eq!(
        said.iter()
            .map(|(_, response)| response.reserved)
            .collect::<Vec<_>>(),
        [false, false]
    );
    assert_eq!(house.balance().await, 6000);
}

#[tokio::test]
async fn points_come_back_once_and_as_many_as_were_taken() {
    let mut house = House::with_kim().await;
    house.send("q1", &reserve(1, 300)).await;
    house.send("q2", &restore(1, 9_999)).await;
    house.send("q3", &restore(1, 300)).await;
    house.work().await;
    let mut house = house.reopen();
    house.send("q4", &restore(1, 300)).await;
    house.work().await;

    let said = house.said::<RestorePointResponse>();
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
    assert_eq!(house.balance().await, 1000);
    assert_eq!(house.ledger().await.len(), 3);
    assert!(house.is_sound().await);
}

#[tokio::test]
async fn a_reservation_that_comes_after_its_compensation_takes_nothing() {
    let mut house = House::with_kim().await;
    house.send("q2", &restore(1, 300)).await;
    house.work().await;
    let mut house = house.reopen();
    house.send("q1", &reserve(1, 300)).await;
    house.work().await;

    assert!(house.said::<RestorePointResponse>()[0].1.succeed);
    assert!(!house.said::<ReservePointResponse>()[0].1.reserved);
    assert_eq!(house.ledger().await, [(EntryKind::Granted, 1000)]);
}

#[tokio::test]
async fn another_saga_gives_back_what_an_expired_purchase_holds() {
    let mut house = House::with_kim().await;
    house.send("q1", &reserve(1, 300)).await;
    let expired = RestorePointRequest {
        held_by: Some(saga(1)),
        ..restore(2, 0)
    };
    house.send("q2", &expired).await;
    house.work().await;

    let (id, response) = house.said::<RestorePointResponse>().pop().unwrap();
    assert_eq!(id, format!("{}:restore.point:response:q2", saga(2)));
    assert_eq!(
        (response.saga_id, response.point, response.succeed),
        (saga(2), points(300), true)
    );
    assert_eq!(house.balance().await, 1000);
}

#[tokio::test]
async fn a_crash_between_batches_loses_nothing_and_doubles_nothing() {
    let mut house = House::with_kim().await;
    house.send("q1", &reserve(1, 300)).await;
    house.work().await;
    house.send("q2", &reserve(2, 200)).await;

    let mut house = house.reopen();
    house.send("q1", &reserve(1, 300)).await;
    house.work().await;
    let mut house = house.reopen();
    house.work().await;

    assert_eq!(house.said::<ReservePointResponse>().len(), 2);
    assert_eq!(house.balance().await, 500);
    assert!(house.is_sound().await);
}

#[tokio::test]
async fn points_that_were_paid_with_come_back_only_by_a_cancelled_payment() {
    let mut house = House::with_kim().await;
    house.send("q1", &reserve(1, 300)).await;
    house
        .send("p3", &payment(1, PaymentStatus::Succeeded, 3))
        .await;
    house.send("q2", &restore(1, 300)).await;
    house.work().await;
    assert!(!house.said::<RestorePointResponse>()[0].1.succeed);
    assert_eq!(house.balance().await, 700);

    house
        .send("p4", &payment(1, PaymentStatus::Cancelled, 4))
        .await;
    house
        .send("p4 again", &payment(1, PaymentStatus::Cancelled, 4))
        .await;
    house
        .send("p3 late", &payment(1, PaymentStatus::Succeeded, 3))
        .await;
    house.work().await;

    assert_eq!(house.balance().await, 1000);
    let kinds: Vec<_> = house
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
    assert!(house.is_sound().await);
}

#[tokio::test]
async fn points_that_were_paid_with_come_back_once_where_a_saga_says_that_the_money_did() {
    let mut house = House::with_kim().await;
    house.send("q1", &reserve(1, 300)).await;
    house.work().await;
    house
        .send("p1", &payment(1, PaymentStatus::Succeeded, 3))
        .await;
    let refunded = RestorePointRequest {
        held_by: Some(saga(1)),
        refunded: true,
        ..restore(2, 300)
    };
    house.send("q2", &refunded).await;
    house
        .send("p2", &payment(1, PaymentStatus::Cancelled, 5))
        .await;
    house.send("q3", &refunded).await;
    house.work().await;

    let answers = house.said::<RestorePointResponse>();
    assert!(
        answers
            .iter()
            .all(|(_, it)| it.succeed && it.point == points(300)),
        "{answers:?}"
    );
    assert_eq!(answers.len(), 2);
    assert_eq!(house.balance().await, 1000);
    assert!(house.is_sound().await);
}

#[tokio::test]
async fn a_payment_of_no_saga_or_of_an_unknown_one_changes_nothing() {
    let mut house = House::with_kim().await;
    let before = house.kim().await;
    let mut of_none = payment(1, PaymentStatus::Cancelled, 3);
    of_none.payload.saga_id = None;
    house.send("p1", &of_none).await;
    house
        .send("p2", &payment(2, PaymentStatus::Cancelled, 3))
        .await;
    house.work().await;

    assert_eq!(house.kim().await, before);
    assert!(house.said::<DeadLetter>().is_empty());
}

#[tokio::test]
async fn a_payment_that_names_no_saga_and_counts_from_0_settles_the_points_of_its_ticket() {
    for (status, balance) in [
        (PaymentStatus::Succeeded, 700),
        (PaymentStatus::Cancelled, 1000),
    ] {
        let mut house = House::with_kim().await;
        let mut told = payment(7, status, 0);
        told.payload.saga_id = None;
        let held = ReservePointRequest {
            saga_id: told.payload.ticket_id.purchase_saga(),
            ..reserve(7, 300)
        };
        house.send("q1", &held).await;
        for id in ["p1", "p2"] {
            house.send(id, &told).await;
        }
        house.work().await;
        assert_eq!(house.balance().await, balance, "{status:?}");
        assert!(house.is_sound().await);
        // What was paid for is not given back as if it were not.
        let restore = RestorePointRequest {
            saga_id: held.saga_id,
            ..restore(7, 300)
        };
        house.send("q2", &restore).await;
        house.work().await;
        assert_eq!(house.balance().await, balance, "{status:?}");
    }
}

#[tokio::test]
async fn a_claim_on_the_points_of_another_becomes_a_dead_letter_and_delays_nobody() {
    let mut house = House::with_kim().await;
    house.send("q1", &reserve(1, 300)).await;
    house
        .send(
            "q2",
            &RestorePointRequest {
                user_id: UserId(2),
                ..restore(1, 300)
            },
        )
        .await;
    house.send("q3", &reserve(2, 100)).await;
    house.work().await;

    let letters = house.said::<DeadLetter>();
    assert_eq!(letters.len(), 1);
    assert!(
        letters[0]
            .1
            .reason
            .contains("holds points of user 1, not of user 2")
    );
    assert_eq!(house.balance().await, 600);
}

#[tokio::test]
async fn a_message_that_cannot_be_read_becomes_a_dead_letter_and_delays_nobody() {
    let mut house = House::with_kim().await;
    let mut negative = Message::new("q1", &reserve(1, 300), START);
    negative.payload = negative.payload.replace("300", "-300");
    let mut commit = Commit::new();
    commit.publish(negative);
    house.store.commit(commit).await.unwrap();
    house.send("q2", &reserve(2, 100)).await;
    house.work().await;

    assert_eq!(house.said::<DeadLetter>().len(), 1);
    assert_eq!(house.balance().await, 900);
}

fn fraud_check(number: u128) -> CheckFraudRequest {
    CheckFraudRequest {
        saga_id: saga(number),
        user_id: KIM,
        total_amount: None,
    }
}

#[tokio::test]
async fn one_purchase_too_many_in_a_minute_is_fraud_and_attempts_of_one_count_once() {
    let mut house = House::with_kim().await;
    for number in 1..=11 {
        house
            .send(&format!("q{number}"), &fraud_check(number))
            .await;
        house
            .send(&format!("q{number} again"), &fraud_check(number))
            .await;
    }
    house.work().await;
    house.clock.advance_millis(61_000);
    house.send("q12", &fraud_check(12)).await;
    house.work().await;

    let said = house.said::<CheckFraudResponse>();
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
async fn a_flagged_user_is_a_fraud_and_an_unknown_one_is_not_known_to_be() {
    let mut house = House::with_kim().await;
    let flag = ModifyInput {
        id: KIM,
        name: "Kim".to_owned(),
        status: Status::Active,
        flagged: Some(true),
        version: 1,
    };
    house.service.modify(flag, |_, _| ()).await.unwrap();
    house.send("q1", &fraud_check(1)).await;
    house
        .send(
            "q2",
            &CheckFraudRequest {
                user_id: UserId(99),
                ..fraud_check(2)
            },
        )
        .await;
    house.work().await;

    let said = house.said::<CheckFraudResponse>();
    assert_eq!(
        said.iter()
            .map(|(_, response)| response.is_fraudulent)
            .collect::<Vec<_>>(),
        [true, false]
    );
}

#[tokio::test]
async fn grants_and_purchases_at_the_same_time_lose_no_point() {
    let mut house = House::with_kim().await;
    for number in 1..=20 {
        house
            .send(&format!("q{number}"), &reserve(number, 10))
            .await;
    }
    let service = house.service.clone();
    let grants = async {
        for _ in 0..20 {
            let grant = GrantInput {
                id: KIM,
                amount: 7,
                reason: None,
            };
            service.grant(grant, |_, _| ()).await.unwrap();
        }
    };

    tokio::join!(grants, house.work());

    assert_eq!(house.balance().await, 1000 - 200 + 140);
    assert!(house.is_sound().await);
}

#[tokio::test]
async fn a_user_who_keeps_buying_can_be_blocked_at_the_first_try() {
    let mut house = House::with_kim().await;
    let seen = house.kim().await.version;
    for number in 1..=5 {
        let id = format!("q{number}");
        house.send(&id, &fraud_check(number)).await;
        house
            .send(&format!("r{number}"), &reserve(number, 10))
            .await;
        house.work().await;
    }
    assert!(house.kim().await.version > seen + 5);

    // The rest is judged while the operator writes.
    for number in 6..=40 {
        house
            .send(&format!("q{number}"), &fraud_check(number))
            .await;
    }
    let block = ModifyInput {
        id: KIM,
        name: "Kim".to_owned(),
        status: Status::Inactive,
        flagged: None,
        version: seen,
    };
    let service = house.service.clone();
    let (blocked, ()) = tokio::join!(service.modify(block, |_, user| user.status), house.work());
    assert_eq!(blocked.unwrap(), Status::Inactive);
    let kim = house.kim().await;
    assert_eq!(kim.status, Status::Inactive);
    assert_eq!(kim.recent_purchases.len(), 40, "no purchase was forgotten");
    assert!(house.is_sound().await);
}

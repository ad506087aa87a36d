//! Opening, paying and closing.

use std::sync::Arc;

use contract::{
    Money, Payload, PaymentId, Points,
    domain::{self, DomainMessage, PaymentStatus},
    payment::{ConfirmedRequest, CreateRequest, CreateResponse, DeleteRequest, DeleteResponse},
};
use futures::{FutureExt, future::join_all};
use payment::{
    confirm::{ConfirmInput, Error},
    in_flight::InFlight,
    model::Refusal,
    record::{HistoryEntry, OrphanChargeRecord, PaymentRecord, Refund},
};

use serde_json::json;

use crate::world::{
    Peer, World, answer, assert_pending, creation, input, input_with, settings, settled, until,
};

fn responses(world: &World) -> Vec<bool> {
    let responses: Vec<CreateResponse> = world.published(&[CreateResponse::TOPIC]);
    responses.iter().map(|response| response.succeed).collect()
}

fn deletion(request: &CreateRequest) -> DeleteRequest {
    DeleteRequest {
        saga_id: request.saga_id,
        payment_id: PaymentId::of_saga(request.saga_id),
    }
}

#[tokio::test]
async fn an_approved_payment_succeeds_and_the_world_is_told_every_step() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;

    let answer = settled(world.confirm(input(id)).await);
    assert!(answer.succeeded);
    world.drain().await;

    let payment = world.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Succeeded);
    assert_eq!(payment.pg_payment_id, Some(format!("pg-{id}")));
    let charge = peer.charge(id).await.expect("a charge");
    assert_eq!(charge.total_amount, 7_000);
    let told: Vec<DomainMessage<domain::Payment>> = world.published(&["domain.payment"]);
    let told: Vec<_> = told
        .iter()
        .map(|message| (message.version, message.payload.status))
        .collect();
    let steps = [
        (1, PaymentStatus::Created),
        (2, PaymentStatus::Confirming),
        (3, PaymentStatus::Succeeded),
    ];
    assert_eq!(told, steps);
    let history = world.history(id).await;
    let history: Vec<_> = history
        .iter()
        .map(|entry| (entry.payment_version, entry.status))
        .collect();
    assert_eq!(history, steps);
    assert!(settled(world.confirm(input(id)).await).succeeded);
    assert_eq!(world.payment(id).await.attempt, 1, "it is told, not made");
    let other = ConfirmInput {
        pg_payment_id: "pg-of-another-charge".to_owned(),
        ..input(id)
    };
    assert!(matches!(
        world.confirm(other).await,
        Err(Error::Refused(Refusal::AlreadyConfirmed))
    ));
}

#[tokio::test]
async fn what_an_answer_says_can_be_read_at_once() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;

    // No message is handled in between.
    let refused = settled(world.confirm(input_with(id, "REJECT_CARD_PAYMENT")).await);
    assert!(!refused.succeeded);
    assert_eq!(world.status(id).await, PaymentStatus::Failed);
    let approved = settled(world.confirm(input(id)).await);
    assert!(approved.succeeded, "the next attempt can begin at once");
    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
    assert_eq!(settled(world.confirm(input(id)).await), approved);

    world.drain().await;
    let payment = world.payment(id).await;
    assert_eq!((payment.attempt, payment.version), (2, 5));
    let outcomes: Vec<ConfirmedRequest> = world.published(&[ConfirmedRequest::TOPIC]);
    assert_eq!(outcomes.len(), 2, "others may listen");
}

#[tokio::test]
async fn an_outcome_that_was_only_published_is_applied() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    let lost = input_with(id, "SANDBOX_CHARGE_THEN_500");
    assert_pending(&world.confirm(lost).await);

    // A process of an earlier version leaves the change to the consumer.
    let outcome = ConfirmedRequest {
        payment_id: id,
        pg_payment_id: format!("pg-{id}"),
        confirmed: true,
        attempt: Some(1),
        decline_code: None,
    };
    world.send("outcome", &outcome).await;

    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn a_deletion_that_comes_while_the_gateway_is_asked_is_answered_with_the_outcome() {
    for (test_code, status) in [
        (None, PaymentStatus::Succeeded),
        (Some("REJECT_CARD_PAYMENT"), PaymentStatus::Deleted),
    ] {
        let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
        let mut world = World::open(folder.path(), settings(peer.address));
        let id = world.open_payment(1).await;
        let slow = json!({ "on": "confirm", "fault": { "delay": { "millis": 1_000 } } });
        peer.script(&json!({ "rules": [slow] })).await;
        let input = ConfirmInput {
            test_code: test_code.map(str::to_owned),
            ..input(id)
        };
        let service = world.service.clone();
        let attempt = tokio::spawn(async move { service.confirm(input, answer).await });
        until(&world.store, id, PaymentStatus::Confirming).await;
        world.send("delete", &deletion(&creation(1))).await;
        let answers: Vec<DeleteResponse> = world.published(&[DeleteResponse::TOPIC]);
        assert_eq!(answers, [], "nobody can say yet");

        settled(attempt.await.unwrap());

        assert_eq!(world.status(id).await, status);
        world.drain().await;
        let answers: Vec<DeleteResponse> = world.published(&[DeleteResponse::TOPIC]);
        let succeed = status == PaymentStatus::Deleted;
        assert_eq!(answers.len(), 1, "{answers:?}");
        assert_eq!(answers[0].succeed, succeed);
    }
}

#[tokio::test]
async fn a_lookup_of_the_same_payment_does_not_refuse_the_buyers_next_attempt() {
    let attempts = Arc::new(InFlight::default());
    let id = PaymentId::of_saga(creation(1).saga_id);
    let lookup = attempts.enter(id).expect("nobody asks yet");
    let mut buyer = Box::pin(attempts.enter_for_buyer(id));
    assert!(buyer.as_mut().now_or_never().is_none(), "it waits");

    drop(lookup);

    let attempt = buyer.await.expect("the lookup has ended");
    assert!(attempts.enter(id).is_none());
    assert!(
        attempts.enter_for_buyer(id).await.is_none(),
        "two attempts never run at once"
    );
    drop(attempt);
    assert!(attempts.enter_for_buyer(id).await.is_some());
}

#[tokio::test]
async fn a_declined_payment_may_be_tried_again_and_is_charged_once() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;

    let refused = settled(world.confirm(input_with(id, "REJECT_CARD_PAYMENT")).await);
    assert!(!refused.succeeded);
    assert_eq!(refused.decline_code.as_deref(), Some("REJECT_CARD_PAYMENT"));
    world.drain().await;
    let first = world.payment(id).await;
    assert_eq!(first.status, PaymentStatus::Failed);
    assert_eq!(first.decline_code.as_deref(), Some("REJECT_CARD_PAYMENT"));
    assert_eq!(peer.charge(id).await, None);

    assert!(settled(world.confirm(input(id)).await).succeeded);
    world.drain().await;
    let second = world.payment(id).await;
    assert_eq!(
        (second.status, second.attempt),
        (PaymentStatus::Succeeded, 2)
    );
    assert_ne!(first.attempt_key, second.attempt_key);
    assert_eq!(second.decline_code, None);
}

#[tokio::test]
async fn of_many_confirmations_at_once_one_asks_the_gateway() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;

    let outputs = join_all((0..20).map(|_| world.confirm(input(id)))).await;
    world.drain().await;

    let (taken, refused): (Vec<_>, Vec<_>) = outputs.into_iter().partition(Result::is_ok);
    assert_eq!(taken.len(), 1);
    for output in refused {
        assert!(
            matches!(output, Err(Error::Refused(Refusal::InProgress))),
            "{output:?}"
        );
    }
    assert_eq!(world.payment(id).await.attempt, 1);
    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn an_attempt_goes_on_when_its_client_goes_away() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut settings = settings(peer.address);
    settings.gateway.request_timeout_millis = 300;
    let mut world = World::open(folder.path(), settings);
    let id = world.open_payment(1).await;

    tokio::select! {
        biased;
        output = world.confirm(input_with(id, "SANDBOX_HANG")) => panic!("too early: {output:?}"),
        () = until(&world.store, id, PaymentStatus::Confirming) => {}
    }
    // It is still at the gateway: neither the buyer nor the settler may ask a second time.
    assert_eq!(world.settle().await, 0);
    world.service.drained().await;

    assert_eq!(world.settle().await, 1);
    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn after_the_deadline_the_gateway_is_not_asked() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;

    world.clock.advance_millis(600_001);
    assert!(matches!(
        world.confirm(input(id)).await,
        Err(Error::Refused(Refusal::DeadlinePassed { .. }))
    ));

    assert_eq!(peer.charge(id).await, None);
    assert_eq!(world.payment(id).await.attempt, 0);
}

#[tokio::test]
async fn where_points_pay_for_everything_the_gateway_is_not_asked() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let request = CreateRequest {
        point: Points::new(10_000).unwrap(),
        ..creation(1)
    };
    world.send("create", &request).await;
    let id = PaymentId::of_saga(request.saga_id);

    let mut free = input(id);
    free.amount = Money::ZERO;
    let answer = settled(world.confirm(free.clone()).await);
    assert!(answer.succeeded);
    world.drain().await;

    let payment = world.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Succeeded);
    assert_eq!(peer.charge(id).await, None);
    // And what the caller calls it is kept nowhere: nothing proves that it is theirs.
    assert_eq!(
        payment.pg_payment_id.as_deref(),
        Some(&*format!("free-{id}"))
    );
    assert_eq!(Some(&answer.pg_payment_id), payment.pg_payment_id.as_ref());
    let history = world.history(id).await;
    let kept = |entry: &HistoryEntry| entry.pg_payment_id.as_ref() == Some(&free.pg_payment_id);
    assert!(!history.iter().any(kept));
    assert_eq!(settled(world.confirm(free).await), answer);
}

#[tokio::test]
async fn a_free_purchase_leaves_the_stray_charge_of_another_payment_alone() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    // Given a payment whose order was charged twice.
    let paid = world.open_payment(1).await;
    assert!(settled(world.confirm(input(paid)).await).succeeded);
    let other = world.open_payment(2).await;
    peer.charge_directly(other, "pg-second", 7_000).await;
    let second = ConfirmedRequest {
        payment_id: paid,
        pg_payment_id: "pg-second".to_owned(),
        confirmed: true,
        attempt: Some(1),
        decline_code: None,
    };
    world.send("second", &second).await;
    // When somebody names that charge for a purchase that costs nothing.
    let request = CreateRequest {
        point: Points::new(10_000).unwrap(),
        ..creation(3)
    };
    world.send("create-free", &request).await;
    let free = ConfirmInput {
        pg_payment_id: "pg-second".to_owned(),
        amount: Money::ZERO,
        ..input(PaymentId::of_saga(request.saga_id))
    };
    assert!(settled(world.confirm(free).await).succeeded);
    // Also as a message that an earlier version of the program published.
    let of_old = ConfirmedRequest {
        payment_id: PaymentId::of_saga(request.saga_id),
        attempt: None,
        ..second
    };
    world.send("of-old", &of_old).await;

    // Then that charge still goes back.
    let orphan: Option<OrphanChargeRecord> = world.store.load("pg-second").await.unwrap();
    assert_eq!(orphan.map(|it| it.refund), Some(Refund::Requested));
    assert_eq!(world.settle().await, 1);
    let charge = peer.charge(other).await.expect("a charge");
    assert_eq!(charge.balance_amount, 0);
}

#[tokio::test]
async fn a_deletion_that_overtakes_its_creation_closes_it_for_good() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let request = creation(1);

    world.send("delete", &deletion(&request)).await;
    world.send("create", &request).await;
    world.send("create-again", &request).await;
    world.send("delete-again", &deletion(&request)).await;

    assert_eq!(responses(&world), [false, false]);
    let deleted: Vec<DeleteResponse> = world.published(&[DeleteResponse::TOPIC]);
    assert!(deleted.len() == 2 && deleted.iter().all(|response| response.succeed));
    let id = PaymentId::of_saga(request.saga_id);
    assert_eq!(world.service.show(id).await.unwrap(), None);
    assert!(matches!(
        world.confirm(input(id)).await,
        Err(Error::NotFound(_))
    ));
}

#[tokio::test]
async fn points_worth_more_than_the_price_open_nothing_however_often_it_is_asked() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let request = CreateRequest {
        point: Points::new(10_001).unwrap(),
        ..creation(1)
    };

    world.send("create", &request).await;
    world.send("create-again", &request).await;

    assert_eq!(responses(&world), [false, false]);
}

#[tokio::test]
async fn a_message_that_comes_twice_is_answered_once_and_a_repeated_request_alike() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let request = creation(1);

    world.send("create", &request).await;
    world.send("create", &request).await;
    world.send("create-again", &request).await;

    assert_eq!(responses(&world), [true, true]);
    let payments: Vec<PaymentRecord> =
        vec![world.payment(PaymentId::of_saga(request.saga_id)).await];
    assert_eq!(payments[0].version, 1);
}

#[tokio::test]
async fn a_deletion_is_not_answered_while_money_may_move() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let request = creation(1);
    let id = world.open_payment(1).await;

    assert_pending(&world.confirm(input_with(id, "PROVIDER_ERROR")).await);
    world.send("delete", &deletion(&request)).await;

    let deleted: Vec<DeleteResponse> = world.published(&[DeleteResponse::TOPIC]);
    assert!(deleted.is_empty(), "nobody can say yet");
    assert_eq!(world.status(id).await, PaymentStatus::Confirming);
}

//! Money goes back: whenever it is wanted, and exactly once.

use contract::{
    PaymentId,
    dead_letter::DeadLetter,
    domain::{self, DomainMessage, PaymentStatus},
    payment::{CancelRequest, CancelResponse, ConfirmedRequest, DeleteRequest},
};
use payment::{
    audit, operator,
    record::{OrphanChargeRecord, Refund},
};
use toss::{Cancel, ChargeStatus, Confirm, protocol::RefundAccount};
use toss_sandbox::{Fault, FaultScript, FaultTarget};

use serde_json::json;

use crate::reconciling::{Theatre, rule};
use crate::world::{Peer, World, creation, input, input_with, settings, settled};

fn cancellation(payment_id: PaymentId) -> CancelRequest {
    CancelRequest {
        payment_id,
        reason: "sold out".to_owned(),
        saga_id: None,
    }
}

async fn orphan(world: &World) -> OrphanChargeRecord {
    let orphan = world.store.load("pg-second").await.unwrap();
    orphan.expect("a stray")
}

async fn paid(world: &mut World) -> PaymentId {
    let id = world.open_payment(1).await;
    assert!(settled(world.confirm(input(id)).await).succeeded);
    world.drain().await;
    id
}

#[tokio::test]
async fn money_without_a_ticket_goes_back_once() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = paid(&mut world).await;

    world.send("cancel", &cancellation(id)).await;
    world.send("cancel-again", &cancellation(id)).await;
    assert_eq!(world.payment(id).await.refund, Refund::Requested);
    assert_eq!(world.settle().await, 1);

    let payment = world.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Cancelled);
    assert_eq!(payment.refund, Refund::Done);
    let charge = peer.charge(id).await.expect("a charge");
    assert_eq!(
        (charge.status, charge.balance_amount),
        (ChargeStatus::Canceled, 0)
    );
    assert_eq!(world.settle().await, 0);
    assert_eq!(world.payment(id).await.version, 5);
}

#[tokio::test]
async fn a_refund_that_was_done_before_is_recognised() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = paid(&mut world).await;
    let by_hand = Cancel {
        payment_key: format!("pg-{id}"),
        reason: "by hand".to_owned(),
        amount: None,
        refund_account: None,
        idempotency_key: "by-hand".to_owned(),
        test_code: None,
    };
    peer.client().cancel(&by_hand).await;

    world.send("cancel", &cancellation(id)).await;
    assert_eq!(world.settle().await, 1);

    assert_eq!(world.status(id).await, PaymentStatus::Cancelled);
}

#[tokio::test]
async fn a_refund_that_the_gateway_refuses_is_parked_and_visible() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = paid(&mut world).await;
    drop(world);

    // A gateway that has never heard of the charge.
    let other = Peer::start().await;
    let mut world = World::open(folder.path(), settings(other.address));
    world.send("cancel", &cancellation(id)).await;
    assert_eq!(world.settle().await, 1);

    let payment = world.payment(id).await;
    assert_eq!(payment.refund, Refund::Parked);
    assert_eq!(payment.status, PaymentStatus::Succeeded);
    let history = world.history(id).await;
    let last = history.last().expect("a history");
    assert_eq!(last.note, "refund refused: NOT_FOUND_PAYMENT");
    assert_eq!(world.settle().await, 0);
    let facts = audit::payments(&world.store, None).await.unwrap();
    assert!(facts.len() == 1 && !facts[0].is_kept());
}

#[tokio::test]
async fn a_parked_refund_is_asked_for_again_by_a_persons_word() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = paid(&mut world).await;
    assert!(matches!(
        world.service.resume_refund(id).await,
        Err(operator::Error::NotParked)
    ));
    drop(world);
    let other = Peer::start().await;
    let mut world = World::open(folder.path(), settings(other.address));
    world.send("cancel", &cancellation(id)).await;
    assert_eq!(world.settle().await, 1);
    drop(world);

    let mut world = World::open(folder.path(), settings(peer.address));
    world.service.resume_refund(id).await.unwrap();
    assert_eq!(world.settle().await, 1);
    assert_eq!(world.status(id).await, PaymentStatus::Cancelled);
    let charge = peer.charge(id).await.expect("a charge");
    assert_eq!(charge.balance_amount, 0);
}

fn by_saga(payment_id: PaymentId) -> CancelRequest {
    CancelRequest {
        saga_id: Some(creation(9).saga_id),
        ..cancellation(payment_id)
    }
}

#[tokio::test]
async fn a_saga_is_told_once_its_refund_is_done_and_the_payment_stands_until_then() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = paid(&mut world).await;

    world.send("cancel", &by_saga(id)).await;
    world.send("cancel-again", &by_saga(id)).await;
    let told: Vec<CancelResponse> = world.published(&["payment.cancel.response"]);
    assert_eq!(told, [], "nobody can say yet");
    assert_eq!(world.settle().await, 1);
    world.send("cancel-late", &by_saga(id)).await;

    let told: Vec<CancelResponse> = world.published(&["payment.cancel.response"]);
    let told: Vec<_> = told.iter().map(|it| (it.payment_id, it.succeed)).collect();
    assert_eq!(told, [(id, true), (id, true)]);
    let told: Vec<DomainMessage<domain::Payment>> = world.published(&["domain.payment"]);
    let told: Vec<_> = told.iter().map(|it| it.payload.status).skip(2).collect();
    let stands = PaymentStatus::Succeeded;
    assert_eq!(told, [stands, stands, PaymentStatus::Cancelled]);
}

#[tokio::test]
async fn a_saga_whose_refund_the_gateway_refuses_is_told_so_and_nothing_is_parked() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = paid(&mut world).await;
    drop(world);
    let other = Peer::start().await;
    let mut world = World::open(folder.path(), settings(other.address));

    world.send("cancel", &by_saga(id)).await;
    assert_eq!(world.settle().await, 1);

    let told: Vec<CancelResponse> = world.published(&["payment.cancel.response"]);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].code.as_deref(), Some("NOT_FOUND_PAYMENT"));
    let payment = world.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Succeeded);
    assert_eq!(payment.refund, Refund::None);
}

#[tokio::test]
async fn a_second_charge_of_an_order_goes_back_and_the_first_stands() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = paid(&mut world).await;
    let other = world.open_payment(2).await;
    // A gateway that let the order be charged twice would show two charges; this one is told of the other's.
    peer.charge_directly(other, "pg-second", 7_000).await;
    let second = ConfirmedRequest {
        payment_id: id,
        pg_payment_id: "pg-second".to_owned(),
        confirmed: true,
        attempt: Some(1),
        decline_code: None,
    };

    world.send("second", &second).await;
    world.send("second-again", &second).await;
    assert_eq!(world.settle().await, 1);
    assert_eq!(world.settle().await, 0);

    assert_eq!(orphan(&world).await.refund, Refund::Done);
    let charge = peer.charge(other).await.expect("a charge");
    assert_eq!(charge.balance_amount, 0);
    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
    let first = peer.charge(id).await.expect("a charge");
    assert_eq!(first.balance_amount, 7_000);
}

#[tokio::test]
async fn a_second_charge_by_virtual_account_goes_back_once_somebody_says_where_to() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = paid(&mut world).await;
    let other = world.open_payment(2).await;
    let account = json!({ "orderId": other, "paymentKey": "pg-second", "amount": 7_000,
        "method": "VIRTUAL_ACCOUNT" });
    peer.control("payments", &account).await;
    let confirm = Confirm {
        payment_key: "pg-second".to_owned(),
        order_id: other.to_string(),
        amount: 7_000,
        idempotency_key: "second".to_owned(),
        test_code: None,
    };
    peer.client().confirm(&confirm).await;
    peer.control("payments/pg-second/deposit", &json!({})).await;
    let second = ConfirmedRequest {
        payment_id: id,
        pg_payment_id: "pg-second".to_owned(),
        confirmed: true,
        attempt: Some(1),
        decline_code: None,
    };
    world.send("second", &second).await;
    assert_eq!(world.settle().await, 1);
    assert_eq!(orphan(&world).await.refund, Refund::Parked);

    let lee = RefundAccount {
        bank: "20".to_owned(),
        account_number: "456".to_owned(),
        holder_name: "Lee".to_owned(),
    };
    world
        .service
        .set_refund_account(id, &lee, None)
        .await
        .unwrap();
    world
        .service
        .resume_orphan_refund("pg-second")
        .await
        .unwrap();
    assert_eq!(world.settle().await, 1);

    assert_eq!(orphan(&world).await.refund, Refund::Done);
    let charge = peer.charge(other).await.expect("a charge");
    assert_eq!(charge.balance_amount, 0);
}

#[tokio::test]
async fn money_that_comes_after_the_payment_was_closed_goes_back_and_buys_nothing() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    let deletion = DeleteRequest {
        saga_id: creation(1).saga_id,
        payment_id: id,
    };
    world.send("delete", &deletion).await;
    peer.charge_directly(id, "pg-late", 7_000).await;

    let late = ConfirmedRequest {
        payment_id: id,
        pg_payment_id: "pg-late".to_owned(),
        confirmed: true,
        attempt: None,
        decline_code: None,
    };
    world.send("late", &late).await;
    let payment = world.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Succeeded);
    assert_eq!(payment.refund, Refund::Requested);
    assert_eq!(world.settle().await, 1);

    assert_eq!(world.status(id).await, PaymentStatus::Cancelled);
    let charge = peer.charge(id).await.expect("a charge");
    assert_eq!(charge.balance_amount, 0);
    let told: Vec<DomainMessage<domain::Payment>> = world.published(&["domain.payment"]);
    assert!(
        told.len() == 4
            && told
                .iter()
                .all(|m| m.payload.status != PaymentStatus::Succeeded)
    );
}

#[tokio::test]
async fn a_refund_of_a_payment_whose_outcome_is_open_waits_as_a_dead_letter() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    let _ = world
        .confirm(input_with(id, "SANDBOX_CHARGE_THEN_500"))
        .await;

    world.send("cancel", &cancellation(id)).await;

    let letters: Vec<DeadLetter> = world.published(&["common.dlt"]);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].group, "payment");
    assert_eq!(world.payment(id).await.refund, Refund::None);
}

#[tokio::test]
async fn a_refund_whose_bank_is_closed_is_asked_for_again_in_the_morning() {
    let mut theatre = Theatre::open().await;
    let id = theatre.paid(1).await;
    let closed = Fault::Refuse {
        code: "NOT_AVAILABLE_BANK".to_owned(),
        status: None,
    };
    theatre
        .sandbox
        .set_faults(rule(FaultTarget::Cancel, closed, None))
        .unwrap();
    theatre.world.send("cancel", &cancellation(id)).await;
    for _ in 0..3 {
        assert_eq!(theatre.world.settle().await, 0);
        assert_eq!(theatre.world.payment(id).await.refund, Refund::Requested);
        theatre.advance_secs(120);
    }

    theatre.sandbox.set_faults(FaultScript::default()).unwrap();
    assert_eq!(theatre.world.settle().await, 1);

    assert_eq!(theatre.world.status(id).await, PaymentStatus::Cancelled);
    let charge = theatre.peer.charge(id).await.expect("a charge");
    assert_eq!(charge.balance_amount, 0);
}

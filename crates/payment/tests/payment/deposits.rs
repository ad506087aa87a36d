//! Virtual accounts: what the buyer is told, what is waited for, and what is closed.

use contract::{
    domain::PaymentStatus,
    payment::{DeleteRequest, DeleteResponse},
};
use payment::record::OrphanChargeRecord;
use toss::ChargeStatus;

use crate::world::{Peer, World, assert_pending, creation, input, settings};

/// A virtual account that the buyer has asked the gateway for.
async fn requested(peer: &Peer, key: &str, order: &str) {
    let body = serde_json::json!({
        "orderId": order, "amount": 7_000, "method": "VIRTUAL_ACCOUNT", "paymentKey": key,
    });
    peer.control("payments", &body).await;
}

#[tokio::test]
async fn the_buyer_is_told_the_account_and_the_deposit_buys() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    let key = format!("pg-{id}");
    requested(&peer, &key, &id.to_string()).await;

    assert_pending(&world.confirm(input(id)).await);
    world.settle().await;
    let waiting = world.payment(id).await;
    assert_eq!(waiting.status, PaymentStatus::Confirming);
    assert!(waiting.deposit_account.is_some() && waiting.deposit_bank.is_some());
    world.clock.advance_millis(5_000);
    world.settle().await;
    let version = world.payment(id).await.version;
    assert_eq!(version, waiting.version, "it is told once");

    peer.control(&format!("payments/{key}/deposit"), &serde_json::json!({}))
        .await;
    world.clock.advance_millis(60_000);
    world.settle().await;
    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn an_account_that_was_not_paid_in_time_is_closed() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    requested(&peer, &format!("pg-{id}"), &id.to_string()).await;
    assert_pending(&world.confirm(input(id)).await);
    world.settle().await;

    world.clock.advance_millis(600_001);
    world.settle().await;

    let payment = world.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Failed);
    assert_eq!(payment.decline_code.as_deref(), Some("NO_DEPOSIT"));
    let charge = peer.charge(id).await.expect("a closed account");
    assert_eq!(charge.status, ChargeStatus::Canceled);
}

#[tokio::test]
async fn an_account_of_another_window_is_closed_and_does_not_hold_the_attempt_up() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    requested(&peer, "pg-of-another-window", &id.to_string()).await;
    // It was confirmed by an attempt that had been given up.
    peer.confirm_directly(id, "pg-of-another-window", 7_000)
        .await;

    assert_pending(&world.confirm(input(id)).await);
    let mut looks = 0;
    while world.status(id).await == PaymentStatus::Confirming {
        world.settle().await;
        world.clock.advance_millis(15_000);
        looks += 1;
        assert!(looks < 60, "it is confirming for ever");
    }

    let charge = peer.charge(id).await.expect("an account");
    assert_eq!(charge.balance_amount, 0);
    assert_eq!(charge.status, ChargeStatus::Canceled);
}

#[tokio::test]
async fn an_account_that_nobody_wants_any_more_is_closed_and_who_waits_is_told() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    requested(&peer, &format!("pg-{id}"), &id.to_string()).await;
    assert_pending(&world.confirm(input(id)).await);
    world.settle().await;
    let deletion = DeleteRequest {
        saga_id: creation(1).saga_id,
        payment_id: id,
    };

    world.send("delete", &deletion).await;
    world.send("delete-again", &deletion).await;
    world.clock.advance_millis(60_000);
    world.settle().await;

    assert_eq!(world.status(id).await, PaymentStatus::Deleted);
    let told: Vec<DeleteResponse> = world.published(&["payment.delete.response"]);
    assert!(told.len() == 1 && told[0].succeed, "{told:?}");
    let charge = peer.charge(id).await.expect("a closed account");
    assert_eq!(charge.status, ChargeStatus::Canceled);
}

#[tokio::test]
async fn a_charge_that_was_to_go_back_and_is_the_payments_own_now_stays() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    let key = format!("pg-{id}");
    let orphan = OrphanChargeRecord::found(
        id,
        &key,
        contract::Money::new(7_000).unwrap(),
        "it was opened too late",
        world.clock.now(),
    );
    let mut commit = messaging::Commit::new();
    commit.put(&orphan);
    world.store.commit(commit).await.unwrap();

    assert!(crate::world::settled(world.confirm(input(id)).await).succeeded);
    world.drain().await;
    world.settle().await;

    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
    let charge = peer.charge(id).await.expect("a charge");
    assert_eq!(charge.balance_amount, 7_000);
    let orphan: Option<OrphanChargeRecord> = world.store.load(key.as_str()).await.unwrap();
    assert_eq!(orphan, None);
}

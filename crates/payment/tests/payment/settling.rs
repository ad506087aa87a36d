//! Attempts whose outcome was not known are finished, whatever happened to them.

use std::net::TcpListener;

use contract::domain::PaymentStatus;
use messaging::ShutdownSwitch;
use payment::{confirm::Error, model::Refusal};

use crate::world::{
    Peer, START, World, answer, assert_pending, input, input_with, settings, settled, until,
};

#[tokio::test]
async fn an_attempt_that_is_left_open_wakes_the_settler() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    let (switch, shutdown) = ShutdownSwitch::new();
    let settler = tokio::spawn(world.settler.clone().run(shutdown));

    // The clock stands still, so the settler's next look never comes by itself.
    let lost = input_with(id, "SANDBOX_CHARGE_THEN_500");
    assert_pending(&world.confirm(lost).await);
    until(&world.store, id, PaymentStatus::Succeeded).await;

    switch.stop();
    settler.await.unwrap();
}

#[tokio::test]
async fn a_charge_whose_answer_never_came_is_found() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut settings = settings(peer.address);
    settings.gateway.request_timeout_millis = 300;
    let mut world = World::open(folder.path(), settings);
    let id = world.open_payment(1).await;

    assert_pending(&world.confirm(input_with(id, "SANDBOX_HANG")).await);
    assert_eq!(world.status(id).await, PaymentStatus::Confirming);
    assert!(matches!(
        world.confirm(input(id)).await,
        Err(Error::Refused(Refusal::InProgress))
    ));

    assert_eq!(world.settle().await, 1);
    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
    assert_eq!(world.settle().await, 0);
}

#[tokio::test]
async fn a_charge_that_was_answered_with_an_error_is_found() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;

    assert_pending(
        &world
            .confirm(input_with(id, "SANDBOX_CHARGE_THEN_500"))
            .await,
    );

    assert_eq!(world.settle().await, 1);
    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
    assert_eq!(world.history(id).await.len(), 3);
}

#[test]
fn an_attempt_of_a_process_that_died_before_the_gateway_heard_of_it_is_made_again_once() {
    let folder = tempfile::tempdir().unwrap();
    // A peer that takes connections and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();

    let first = tokio::runtime::Runtime::new().unwrap();
    let id = first.block_on(async {
        let mut world = World::open(folder.path(), settings(address));
        let id = world.open_payment(1).await;
        let service = world.service.clone();
        tokio::spawn(async move { service.confirm(input(id), answer).await });
        until(&world.store, id, PaymentStatus::Confirming).await;
        id
    });
    // The process dies: every task of it is dropped where it stands.
    drop(first);

    let second = tokio::runtime::Runtime::new().unwrap();
    second.block_on(async {
        let peer = Peer::start().await;
        let mut world = World::open(folder.path(), settings(peer.address));
        assert_eq!(world.status(id).await, PaymentStatus::Confirming);
        assert_eq!(world.settle().await, 1);
        assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
        let charge = peer.charge(id).await.expect("a charge");
        assert_eq!(charge.balance_amount, 7_000);
        assert_eq!(world.payment(id).await.attempt, 1);
    });
}

#[tokio::test]
async fn a_charge_of_another_key_for_the_same_order_is_found_by_the_order() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    peer.charge_directly(id, "pg-of-another-window", 7_000)
        .await;

    assert_pending(&world.confirm(input(id)).await);

    assert_eq!(world.settle().await, 1);
    let payment = world.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Succeeded);
    assert_eq!(
        payment.pg_payment_id.as_deref(),
        Some("pg-of-another-window")
    );
}

#[tokio::test]
async fn a_charge_of_another_amount_goes_back_and_buys_nothing() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    peer.charge_directly(id, "pg-of-another-window", 1).await;

    assert_pending(&world.confirm(input(id)).await);

    assert_eq!(world.settle().await, 2, "the attempt, and the charge");
    let payment = world.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Failed);
    assert_eq!(payment.decline_code.as_deref(), Some("WRONG_AMOUNT"));
    let charge = peer.charge(id).await.expect("a charge");
    assert_eq!(charge.balance_amount, 0);
}

#[tokio::test]
async fn an_attempt_that_the_gateway_never_charges_can_be_made_anew() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    // The gateway repeats its first answer to this attempt's key, whatever it is.
    assert_pending(&world.confirm(input_with(id, "PROVIDER_ERROR")).await);

    let mut looks = 0;
    while world.status(id).await == PaymentStatus::Confirming {
        world.clock.advance_millis(15_000);
        world.settle().await;
        looks += 1;
        assert!(looks < 30, "it is never given up");
    }
    let payment = world.payment(id).await;
    assert_eq!(payment.decline_code.as_deref(), Some("NOT_CHARGED"));
    assert!(settled(world.confirm(input(id)).await).succeeded);
}

#[tokio::test]
async fn a_silent_gateway_is_asked_again_later_and_not_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::start().await;
    let address = peer.address;
    let mut world = World::open(folder.path(), settings(address));
    let id = world.open_payment(1).await;
    peer.stop().await;
    assert_pending(&world.confirm(input(id)).await);
    assert_eq!(world.settle().await, 0);

    // The gateway is back.
    let _peer = Peer::start_at(address).await;
    assert_eq!(world.settle().await, 0);
    world.clock.advance_millis(1_000);
    assert_eq!(world.settle().await, 1);

    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn past_its_deadline_an_attempt_without_charge_is_given_up_when_nothing_can_be_under_way() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    world.clock.advance_millis(590_000);
    assert_pending(&world.confirm(input_with(id, "UNKNOWN_PAYMENT_ERROR")).await);

    world.clock.advance_millis(11_000);
    assert_eq!(world.settle().await, 0);
    assert_eq!(world.status(id).await, PaymentStatus::Confirming);

    world.clock.advance_millis(60_000);
    assert_eq!(world.settle().await, 1);
    let payment = world.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Failed);
    assert_eq!(payment.decline_code.as_deref(), Some("DEADLINE_PASSED"));
    assert_eq!(peer.charge(id).await, None);
}

#[tokio::test]
async fn past_its_deadline_a_charge_still_counts() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    assert_pending(
        &world
            .confirm(input_with(id, "SANDBOX_CHARGE_THEN_500"))
            .await,
    );
    drop(world);

    let later = START.plus_secs(3_600);
    let mut world = World::open_at(folder.path(), settings(peer.address), later);
    assert_eq!(world.settle().await, 1);
    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn a_running_settler_finishes_what_is_open_and_stops_when_told() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    assert_pending(
        &world
            .confirm(input_with(id, "SANDBOX_CHARGE_THEN_500"))
            .await,
    );

    let (switch, shutdown) = ShutdownSwitch::new();
    let mut committed = world.store.committed();
    committed.borrow_and_update();
    let running = tokio::spawn(world.settler.clone().run(shutdown));
    committed.changed().await.unwrap();
    switch.stop();
    running.await.unwrap();

    world.drain().await;
    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
}

/// Every answer to this kind of request is this error.
async fn always(peer: &Peer, on: &str, code: &str, status: u16) {
    let fault = serde_json::json!({ "refuse": { "code": code, "status": status } });
    peer.script(&serde_json::json!({ "rules": [{ "on": on, "fault": fault }] }))
        .await;
}

#[tokio::test]
async fn an_attempt_whose_key_the_gateway_does_not_speak_of_is_found_by_its_order() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    let key = format!("pg-{id}");
    let refuse = serde_json::json!({ "refuse": { "code": "FORBIDDEN_REQUEST", "status": 403 } });
    let rules = serde_json::json!([
        { "on": "confirm", "fault": refuse },
        { "on": "lookup", "paymentKey": key, "fault": refuse },
    ]);
    peer.script(&serde_json::json!({ "rules": rules })).await;

    assert_pending(&world.confirm(input(id)).await);
    world.clock.advance_millis(700_000);
    world.settle().await;

    let payment = world.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Failed);
    assert_eq!(payment.decline_code.as_deref(), Some("DEADLINE_PASSED"));
}

#[tokio::test]
async fn an_attempt_of_which_the_gateway_will_never_speak_is_given_up_by_a_persons_word() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    assert_pending(
        &world
            .confirm(input_with(id, "SANDBOX_CHARGE_THEN_500"))
            .await,
    );
    always(&peer, "lookup", "FORBIDDEN_REQUEST", 403).await;
    world.clock.advance_millis(11_000);
    world.settle().await;
    assert!(
        world.service.abandon(id, None).await.is_err(),
        "it is too young"
    );

    world.clock.advance_millis(60_000);
    world.service.abandon(id, None).await.unwrap();
    world.drain().await;
    let payment = world.payment(id).await;
    assert_eq!(payment.decline_code.as_deref(), Some("ABANDONED"));
    assert!(world.service.abandon(id, None).await.is_err());

    // It had been charged, as the next attempt finds.
    peer.script(&serde_json::json!({ "rules": [] })).await;
    assert_pending(&world.confirm(input(id)).await);
    world.settle().await;
    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
}

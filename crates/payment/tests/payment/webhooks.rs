//! What the gateway tells unasked: kept before it is answered, handled once, and believed only as far as the gateway
//! confirms it.

use contract::{PaymentId, domain::PaymentStatus};
use messaging::ShutdownSwitch;
use payment::{
    record::{Refund, WebhookRecord, WebhookState},
    webhook::{ReceiveWebhookInput, ReceiveWebhookOutput},
};
use serde_json::{Value, json};
use toss::Cancel;

use crate::world::{Peer, World, assert_pending, input, input_with, settings, settled, until};

/// A webhook about a payment's charge, by its name.
fn told(name: &str, payment: PaymentId, status: &str) -> ReceiveWebhookInput {
    let data = json!({ "paymentKey": format!("pg-{payment}"), "orderId": payment, "status": status, "totalAmount": 1 });
    let body = json!({ "eventType": "PAYMENT_STATUS_CHANGED", "createdAt": "2026-11-22T10:00:00.000000", "data": data });
    ReceiveWebhookInput {
        transmission_id: Some(name.to_owned()),
        body,
    }
}

async fn hear(world: &World, input: ReceiveWebhookInput) -> ReceiveWebhookOutput {
    world.service.receive_webhook(input).await.unwrap()
}

async fn webhook(world: &World, name: &str) -> WebhookRecord {
    world.store.load(name).await.unwrap().expect("a webhook")
}

#[tokio::test]
async fn a_webhook_settles_an_attempt_whose_answer_was_lost() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    assert_pending(
        &world
            .confirm(input_with(id, "SANDBOX_CHARGE_THEN_500"))
            .await,
    );

    assert_eq!(
        hear(&world, told("w1", id, "DONE")).await,
        ReceiveWebhookOutput::Stored
    );
    assert_eq!(
        hear(&world, told("w1", id, "DONE")).await,
        ReceiveWebhookOutput::Duplicate
    );
    world.settle().await;

    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
    assert_eq!(webhook(&world, "w1").await.state, WebhookState::Handled);
}

#[tokio::test]
async fn what_a_webhook_claims_is_not_believed() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;

    hear(&world, told("forged", id, "DONE")).await;
    assert_eq!(
        world.settle().await,
        0,
        "the gateway may show it in a moment"
    );
    world.clock.advance_millis(60_000);
    assert_eq!(world.settle().await, 1);

    assert_eq!(world.status(id).await, PaymentStatus::Created);
    assert_eq!(webhook(&world, "forged").await.state, WebhookState::Ignored);
    assert!(settled(world.confirm(input(id)).await).succeeded);
    world.drain().await;
    for (name, status) in [("a", "ABORTED"), ("c", "CANCELED"), ("e", "EXPIRED")] {
        hear(&world, told(name, id, status)).await;
    }
    world.settle().await;
    world.settle().await;
    world.settle().await;
    let payment = world.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Succeeded);
    assert_eq!(payment.version, 3, "nothing was changed");
}

#[tokio::test]
async fn a_forged_webhook_costs_at_most_three_lookups() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    peer.charge_directly(id, &format!("pg-{id}"), 7_000).await;
    // A fourth lookup would find the charge.
    let refusal = json!({ "refuse": { "code": "NOT_FOUND_PAYMENT", "status": 404 } });
    peer.script(&json!({ "rules": [{ "on": "lookup", "times": 3, "fault": refusal }] }))
        .await;

    hear(&world, told("forged", id, "DONE")).await;
    for _ in 0..60 {
        assert_eq!(world.settle().await, 0);
        world.clock.advance_millis(1_000);
    }
    assert_eq!(world.settle().await, 1);

    assert_eq!(webhook(&world, "forged").await.state, WebhookState::Ignored);
    assert_eq!(world.status(id).await, PaymentStatus::Created);
}

#[tokio::test]
async fn webhooks_that_wait_for_the_gateway_delay_no_open_attempt() {
    const WEBHOOKS: u64 = 20;
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut settings = settings(peer.address);
    settings.gateway.request_timeout_millis = 60_000;
    settings.settle_after_millis = Some(0);
    let mut world = World::open(folder.path(), settings);
    let mut rules = Vec::new();
    for number in 1..=WEBHOOKS {
        let id = world.open_payment(number).await;
        hear(&world, told(&format!("w{number}"), id, "DONE")).await;
        let fault = json!({ "hang": { "millis": 60_000 } });
        rules.push(json!({ "on": "lookup", "paymentKey": format!("pg-{id}"), "fault": fault }));
    }
    peer.script(&json!({ "rules": rules })).await;
    let paid = world.open_payment(WEBHOOKS + 1).await;
    let lost = input_with(paid, "SANDBOX_CHARGE_THEN_500");
    assert_pending(&world.confirm(lost).await);

    let (switch, shutdown) = ShutdownSwitch::new();
    let settler = tokio::spawn(world.settler.clone().run(shutdown));
    until(&world.store, paid, PaymentStatus::Succeeded).await;

    assert_eq!(webhook(&world, "w1").await.state, WebhookState::Received);
    switch.stop();
    settler.await.unwrap();
}

#[tokio::test]
async fn in_whatever_order_webhooks_come_the_payment_becomes_what_the_gateway_shows() {
    for order in [["DONE", "ABORTED"], ["ABORTED", "DONE"]] {
        let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
        let mut world = World::open(folder.path(), settings(peer.address));
        let id = world.open_payment(1).await;
        assert_pending(
            &world
                .confirm(input_with(id, "SANDBOX_CHARGE_THEN_500"))
                .await,
        );
        for status in order {
            hear(&world, told(status, id, status)).await;
        }
        world.settle().await;
        world.settle().await;
        assert_eq!(
            world.status(id).await,
            PaymentStatus::Succeeded,
            "{order:?}"
        );
    }
}

#[tokio::test]
async fn a_cancellation_at_the_gateways_own_desk_cancels_the_payment() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    assert!(settled(world.confirm(input(id)).await).succeeded);
    world.drain().await;
    let by_hand = Cancel {
        payment_key: format!("pg-{id}"),
        reason: "by hand".to_owned(),
        amount: None,
        refund_account: None,
        idempotency_key: "by-hand".to_owned(),
        test_code: None,
    };
    peer.client().cancel(&by_hand).await;

    hear(&world, told("w1", id, "CANCELED")).await;
    world.settle().await;

    let payment = world.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Cancelled);
    assert_eq!(payment.refund, Refund::Done);
}

#[tokio::test]
async fn a_webhook_is_handled_once_the_gateway_can_be_asked() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let address = peer.address;
    let mut world = World::open(folder.path(), settings(address));
    let id = world.open_payment(1).await;
    peer.stop().await;
    hear(&world, told("w1", id, "DONE")).await;
    assert_eq!(world.settle().await, 0);
    assert_eq!(webhook(&world, "w1").await.state, WebhookState::Received);

    let peer = Peer::start_at(address).await;
    peer.charge_directly(id, &format!("pg-{id}"), 7_000).await;
    world.clock.advance_millis(1_000);
    assert_eq!(world.settle().await, 1);

    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn a_deposit_without_its_secret_is_ignored() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    peer.charge_directly(id, &format!("pg-{id}"), 7_000).await;
    let body = json!({ "createdAt": "2026-11-22T10:00:00.000000", "secret": "guessed", "status": "DONE", "transactionKey": "t", "orderId": id });
    let input = ReceiveWebhookInput {
        transmission_id: None,
        body,
    };
    assert_eq!(
        hear(&world, input.clone()).await,
        ReceiveWebhookOutput::Stored
    );
    assert_eq!(hear(&world, input).await, ReceiveWebhookOutput::Duplicate);
    world.settle().await;
    assert_eq!(world.status(id).await, PaymentStatus::Created);
}

#[tokio::test]
async fn what_is_not_ours_is_passed_over_and_what_is_no_webhook_is_refused_by_its_field() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    let tell = |body: Value| ReceiveWebhookInput {
        transmission_id: None,
        body,
    };
    for body in [
        json!({ "eventType": "PAYOUT_STATUS_CHANGED", "data": {} }),
        json!({ "eventType": "PAYMENT_STATUS_CHANGED", "data": { "orderId": "order-of-another-shop", "status": "DONE" } }),
        json!({ "orderId": "01a203c8-3eac-7e91-bc6d-5345692e01ca", "status": "DONE", "secret": "s" }),
    ] {
        assert_eq!(
            hear(&world, tell(body)).await,
            ReceiveWebhookOutput::NotOurs
        );
    }
    for (body, field) in [
        (
            json!({ "eventType": "PAYMENT_STATUS_CHANGED" }),
            "data.orderId",
        ),
        (json!({ "eventType": 1 }), "eventType"),
        (json!({ "orderId": id, "status": "DONE" }), "secret"),
        (json!([]), "orderId"),
    ] {
        let refused = world.service.receive_webhook(tell(body)).await;
        let Err(payment::webhook::Error::Field { name }) = refused else {
            panic!("expected a refusal, got {refused:?}");
        };
        assert_eq!(name, field);
    }
}

//! What the gateway tells unasked: kept before it is answered, handled once, and believed only as far as the gateway
//! confirms it.

use contract::{PaymentId, domain::PaymentStatus};
use futures::FutureExt;
use messaging::ShutdownSwitch;
use payment::{
    record::{Refund, WebhookRecord, WebhookState},
    webhook::{ReceiveWebhookInput, ReceiveWebhookOutput},
};
use serde_json::{Value, json};
use toss::Cancel;

use crate::support::{
    TestGateway, TestPaymentService, assert_pending, input, input_with, settings, settled, until,
    within,
};

/// A webhook about a payment's charge, by its name.
fn told(name: &str, payment: PaymentId, status: &str) -> ReceiveWebhookInput {
    let data = json!({ "paymentKey": format!("pg-{payment}"), "orderId": payment, "status": status, "totalAmount": 1 });
    let body = json!({ "eventType": "PAYMENT_STATUS_CHANGED", "createdAt": "2026-11-22T10:00:00.000000", "data": data });
    ReceiveWebhookInput {
        transmission_id: Some(name.to_owned()),
        body,
    }
}

async fn receive(app: &TestPaymentService, input: ReceiveWebhookInput) -> ReceiveWebhookOutput {
    app.service.receive_webhook(input).await.unwrap()
}

async fn webhook(app: &TestPaymentService, name: &str) -> WebhookRecord {
    app.store.load(name).await.unwrap().expect("a webhook")
}

#[tokio::test]
async fn a_webhook_settles_an_attempt_whose_answer_was_lost() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    assert_pending(&app.confirm(input_with(id, "SANDBOX_CHARGE_THEN_500")).await);

    assert_eq!(
        receive(&app, told("w1", id, "DONE")).await,
        ReceiveWebhookOutput::Stored
    );
    assert_eq!(
        receive(&app, told("w1", id, "DONE")).await,
        ReceiveWebhookOutput::Duplicate
    );
    app.settle().await;

    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
    assert_eq!(webhook(&app, "w1").await.state, WebhookState::Handled);
}

#[tokio::test]
async fn the_content_of_a_webhook_is_not_trusted() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;

    receive(&app, told("forged", id, "DONE")).await;
    assert_eq!(app.settle().await, 0, "the gateway may show it in a moment");
    app.clock.advance_millis(60_000);
    assert_eq!(app.settle().await, 1);

    assert_eq!(app.status(id).await, PaymentStatus::Created);
    assert_eq!(webhook(&app, "forged").await.state, WebhookState::Ignored);
    assert!(settled(app.confirm(input(id)).await).succeeded);
    app.drain().await;
    for (name, status) in [("a", "ABORTED"), ("c", "CANCELED"), ("e", "EXPIRED")] {
        receive(&app, told(name, id, status)).await;
    }
    app.settle().await;
    app.settle().await;
    app.settle().await;
    let payment = app.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Succeeded);
    assert_eq!(payment.version, 3, "nothing was changed");
}

#[tokio::test]
async fn a_forged_webhook_costs_at_most_three_lookups() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    gateway
        .charge_directly(id, &format!("pg-{id}"), 7_000)
        .await;
    // A fourth lookup would find the charge.
    let refusal = json!({ "refuse": { "code": "NOT_FOUND_PAYMENT", "status": 404 } });
    gateway
        .script(&json!({ "rules": [{ "on": "lookup", "times": 3, "fault": refusal }] }))
        .await;

    receive(&app, told("forged", id, "DONE")).await;
    for _ in 0..60 {
        assert_eq!(app.settle().await, 0);
        app.clock.advance_millis(1_000);
    }
    assert_eq!(app.settle().await, 1);

    assert_eq!(webhook(&app, "forged").await.state, WebhookState::Ignored);
    assert_eq!(app.status(id).await, PaymentStatus::Created);
}

#[tokio::test]
async fn webhooks_that_wait_for_the_gateway_delay_no_open_attempt() {
    const WEBHOOKS: u64 = 20;
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut settings = settings(gateway.address);
    settings.gateway.request_timeout_millis = 60_000;
    settings.settle_after_millis = Some(0);
    // Enough for the webhooks' share, and for one attempt.
    settings.gateway.max_connections = 5;
    let mut app = TestPaymentService::open(folder.path(), settings);
    let mut rules = Vec::new();
    for number in 1..=WEBHOOKS {
        let id = app.open_payment(number).await;
        receive(&app, told(&format!("w{number}"), id, "DONE")).await;
        let fault = json!({ "hang": { "millis": 60_000 } });
        rules.push(json!({ "on": "lookup", "paymentKey": format!("pg-{id}"), "fault": fault }));
    }
    gateway.script(&json!({ "rules": rules })).await;

    let (switch, shutdown) = ShutdownSwitch::new();
    let settler = tokio::spawn(app.settler.clone().run(shutdown));
    // The webhooks' lookups may begin after the first attempts.
    for number in WEBHOOKS + 1..WEBHOOKS + 6 {
        let paid = app.open_payment(number).await;
        let lost = input_with(paid, "SANDBOX_CHARGE_THEN_500");
        let confirmed = within(app.confirm(lost)).await;
        assert_pending(&confirmed);
        until(&app.store, paid, PaymentStatus::Succeeded).await;
    }

    assert_eq!(webhook(&app, "w1").await.state, WebhookState::Received);
    switch.stop();
    settler.await.unwrap();
}

#[tokio::test]
async fn a_buyer_who_pays_while_a_webhook_is_looked_up_is_charged() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    receive(&app, told("w1", id, "DONE")).await;
    let slow = json!({ "delay": { "millis": 300 } });
    gateway
        .script(&json!({ "rules": [{ "on": "lookup", "times": 1, "fault": slow }] }))
        .await;
    let settler = app.settler.clone();
    let settling = tokio::spawn(async move { settler.settle_due().await });
    let begun = async {
        while app.service.drained().now_or_never().is_some() {
            tokio::task::yield_now().await;
        }
    };
    within(begun).await;

    assert!(settled(within(app.confirm(input(id))).await).succeeded);

    settling.await.unwrap().unwrap();
}

#[tokio::test]
async fn webhooks_in_any_order_bring_the_payment_to_its_state_at_the_gateway() {
    for order in [["DONE", "ABORTED"], ["ABORTED", "DONE"]] {
        let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
        let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
        let id = app.open_payment(1).await;
        assert_pending(&app.confirm(input_with(id, "SANDBOX_CHARGE_THEN_500")).await);
        for status in order {
            receive(&app, told(status, id, status)).await;
        }
        app.settle().await;
        app.settle().await;
        assert_eq!(app.status(id).await, PaymentStatus::Succeeded, "{order:?}");
    }
}

#[tokio::test]
async fn a_cancellation_at_the_gateways_console_cancels_the_payment() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    assert!(settled(app.confirm(input(id)).await).succeeded);
    app.drain().await;
    let by_hand = Cancel {
        payment_key: format!("pg-{id}"),
        reason: "by hand".to_owned(),
        amount: None,
        refund_account: None,
        idempotency_key: "by-hand".to_owned(),
        test_code: None,
    };
    gateway.client().cancel(&by_hand).await;

    receive(&app, told("w1", id, "CANCELED")).await;
    app.settle().await;

    let payment = app.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Cancelled);
    assert_eq!(payment.refund, Refund::Done);
}

#[tokio::test]
async fn a_webhook_is_handled_once_the_gateway_can_be_asked() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let address = gateway.address;
    let mut app = TestPaymentService::open(folder.path(), settings(address));
    let id = app.open_payment(1).await;
    gateway.stop().await;
    receive(&app, told("w1", id, "DONE")).await;
    assert_eq!(app.settle().await, 0);
    assert_eq!(webhook(&app, "w1").await.state, WebhookState::Received);

    let gateway = TestGateway::start_at(address).await;
    gateway
        .charge_directly(id, &format!("pg-{id}"), 7_000)
        .await;
    app.clock.advance_millis(1_000);
    assert_eq!(app.settle().await, 1);

    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn after_a_long_outage_a_webhook_is_handled_within_half_of_the_time_that_it_lasted() {
    const MINUTE: i64 = 60_000;
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    gateway
        .charge_directly(id, &format!("pg-{id}"), 7_000)
        .await;
    let away = json!({ "refuse": { "code": "COMMON_ERROR" } });
    gateway
        .script(&json!({ "rules": [{ "on": "lookup", "fault": away }] }))
        .await;

    receive(&app, told("w1", id, "DONE")).await;
    for _ in 0..40 {
        assert_eq!(app.settle().await, 0);
        app.clock.advance_millis(MINUTE / 2);
    }
    gateway.script(&json!({ "rules": [] })).await;
    app.clock.advance_millis(10 * MINUTE);
    assert_eq!(app.settle().await, 1);

    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn a_deposit_without_its_secret_is_ignored() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    gateway
        .charge_directly(id, &format!("pg-{id}"), 7_000)
        .await;
    let body = json!({ "createdAt": "2026-11-22T10:00:00.000000", "secret": "guessed", "status": "DONE", "transactionKey": "t", "orderId": id });
    let input = ReceiveWebhookInput {
        transmission_id: None,
        body,
    };
    assert_eq!(
        receive(&app, input.clone()).await,
        ReceiveWebhookOutput::Stored
    );
    assert_eq!(receive(&app, input).await, ReceiveWebhookOutput::Duplicate);
    app.settle().await;
    assert_eq!(app.status(id).await, PaymentStatus::Created);
}

#[tokio::test]
async fn a_webhook_about_another_payment_is_ignored_and_an_invalid_one_is_refused_by_its_field() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
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
            receive(&app, tell(body)).await,
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
        let refused = app.service.receive_webhook(tell(body)).await;
        let Err(payment::webhook::Error::Field { name }) = refused else {
            panic!("expected a refusal, got {refused:?}");
        };
        assert_eq!(name, field);
    }
}

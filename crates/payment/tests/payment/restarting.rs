//! A process goes on with what an earlier one has stored, also if that one's clock was ahead by twenty minutes.

use std::path::Path;

use contract::{Timestamp, domain::PaymentStatus, payment::CancelResponse};
use payment::{
    record::{Refund, WebhookRecord, WebhookState},
    webhook::ReceiveWebhookInput,
};
use serde_json::{Value, json};

use crate::support::{
    START, TestGateway, TestPaymentService, assert_pending, cancellation_by_saga, input,
    input_with, settings, settled,
};

/// The time of the clock that was set back.
const EARLIER: Timestamp = START.plus_secs(-1_200);
/// After this no request of an earlier process is at the gateway.
const IN_FLIGHT_MILLIS: i64 = 61_000;

fn restart(
    stopped: TestPaymentService,
    folder: &Path,
    gateway: &TestGateway,
    now: Timestamp,
) -> TestPaymentService {
    drop(stopped);
    TestPaymentService::open_at(folder, settings(gateway.address), now)
}

async fn script(gateway: &TestGateway, rules: Value) {
    gateway.script(&json!({ "rules": rules })).await;
}

fn refuse(code: &str) -> Value {
    json!({ "refuse": { "code": code } })
}

#[tokio::test]
async fn a_refusal_after_a_restart_decides_only_when_no_request_of_before_can_be_in_flight() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    assert!(settled(app.confirm(input(id)).await).succeeded);
    app.drain().await;
    let rules = json!([
        { "on": "cancel", "times": 1, "fault": "dropBefore" },
        { "on": "cancel", "fault": refuse("NOT_CANCELABLE_PAYMENT") },
    ]);
    script(&gateway, rules).await;
    app.send("cancel", &cancellation_by_saga(id)).await;
    assert_eq!(app.settle().await, 0);

    let mut app = restart(app, folder.path(), &gateway, START.plus_secs(5));
    assert_eq!(app.settle().await, 0);
    let refund = app.payment(id).await;
    assert_eq!(refund.refund, Refund::Requested);
    assert_eq!(
        refund.refund_code.as_deref(),
        Some("NOT_CANCELABLE_PAYMENT")
    );

    app.clock.advance_millis(IN_FLIGHT_MILLIS);
    assert_eq!(app.settle().await, 1);
    assert_eq!(app.payment(id).await.refund, Refund::None);
    let told: Vec<CancelResponse> = app.published(&["payment.cancel.response"]);
    assert_eq!(
        told.iter().map(|it| it.succeed).collect::<Vec<_>>(),
        [false]
    );
}

#[tokio::test]
async fn an_attempt_of_a_later_time_is_settled_at_once() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    assert_pending(&app.confirm(input_with(id, "SANDBOX_CHARGE_THEN_500")).await);

    let mut app = restart(app, folder.path(), &gateway, EARLIER);
    assert_eq!(app.settle().await, 1);
    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn an_attempt_of_a_later_time_without_a_charge_is_given_up_in_time() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    // The gateway repeats its first answer to this attempt's key.
    assert_pending(&app.confirm(input_with(id, "PROVIDER_ERROR")).await);

    let mut app = restart(app, folder.path(), &gateway, EARLIER);
    for _ in 0..30 {
        app.clock.advance_millis(15_000);
        app.settle().await;
    }
    let payment = app.payment(id).await;
    assert_eq!(payment.decline_code.as_deref(), Some("NOT_CHARGED"));
}

#[tokio::test]
async fn an_operator_can_give_up_an_attempt_of_a_later_time() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    assert_pending(&app.confirm(input_with(id, "SANDBOX_CHARGE_THEN_500")).await);

    let app = restart(app, folder.path(), &gateway, EARLIER);
    app.clock.advance_millis(IN_FLIGHT_MILLIS);
    app.service.abandon(id, None).await.unwrap();
    let payment = app.payment(id).await;
    assert_eq!(payment.decline_code.as_deref(), Some("ABANDONED"));
}

#[tokio::test]
async fn a_webhook_of_a_later_time_about_no_charge_is_ignored_in_time() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    let data = json!({ "paymentKey": "pg", "orderId": id, "status": "DONE", "totalAmount": 1 });
    let webhook = ReceiveWebhookInput {
        transmission_id: Some("w".to_owned()),
        body: json!({ "eventType": "PAYMENT_STATUS_CHANGED", "data": data }),
    };
    app.service.receive_webhook(webhook).await.unwrap();

    let mut app = restart(app, folder.path(), &gateway, EARLIER);
    assert_eq!(app.settle().await, 0, "the gateway may show it in a moment");
    app.clock.advance_millis(60_000);
    assert_eq!(app.settle().await, 1);
    let webhook: WebhookRecord = app.store.load("w").await.unwrap().unwrap();
    assert_eq!(webhook.state, WebhookState::Ignored);
}

#[tokio::test]
async fn a_refund_of_a_time_two_days_later_is_parked_after_a_day() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    assert!(settled(app.confirm(input(id)).await).succeeded);
    app.drain().await;
    let rules = json!([{ "on": "cancel", "fault": refuse("REFUND_POLICY_2027") }]);
    script(&gateway, rules).await;
    app.send("cancel", &cancellation_by_saga(id)).await;
    assert_eq!(app.settle().await, 0);

    let earlier = START.plus_secs(-2 * 24 * 3_600);
    let mut app = restart(app, folder.path(), &gateway, earlier);
    app.clock.advance_millis(24 * 3_600_000);
    assert_eq!(app.settle().await, 1);
    assert_eq!(app.payment(id).await.refund, Refund::Parked);
}

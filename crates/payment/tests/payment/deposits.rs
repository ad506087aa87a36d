//! Virtual accounts: what the buyer is told, what is waited for, and what is closed.

use contract::{
    domain::PaymentStatus,
    payment::{DeleteRequest, DeleteResponse},
};
use payment::record::OrphanChargeRecord;
use toss::ChargeStatus;

use crate::support::{TestGateway, TestPaymentService, assert_pending, creation, input, settings};

/// A virtual account that the buyer has asked the gateway for.
async fn requested(gateway: &TestGateway, key: &str, order: &str) {
    let body = serde_json::json!({
        "orderId": order, "amount": 7_000, "method": "VIRTUAL_ACCOUNT", "paymentKey": key,
    });
    gateway.control("payments", &body).await;
}

#[tokio::test]
async fn the_buyer_sees_the_account_and_the_deposit_completes_the_payment() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    let key = format!("pg-{id}");
    requested(&gateway, &key, &id.to_string()).await;

    assert_pending(&app.confirm(input(id)).await);
    app.settle().await;
    let waiting = app.payment(id).await;
    assert_eq!(waiting.status, PaymentStatus::Confirming);
    assert!(waiting.deposit_account.is_some() && waiting.deposit_bank.is_some());
    app.clock.advance_millis(5_000);
    app.settle().await;
    let version = app.payment(id).await.version;
    assert_eq!(version, waiting.version, "it is told once");

    gateway
        .control(&format!("payments/{key}/deposit"), &serde_json::json!({}))
        .await;
    app.clock.advance_millis(60_000);
    app.settle().await;
    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn an_account_without_a_deposit_in_time_is_closed() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    requested(&gateway, &format!("pg-{id}"), &id.to_string()).await;
    assert_pending(&app.confirm(input(id)).await);
    app.settle().await;

    app.clock.advance_millis(600_001);
    app.settle().await;

    let payment = app.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Failed);
    assert_eq!(payment.decline_code.as_deref(), Some("NO_DEPOSIT"));
    let charge = gateway.charge(id).await.expect("a closed account");
    assert_eq!(charge.status, ChargeStatus::Canceled);
}

#[tokio::test]
async fn an_account_of_another_payment_window_is_closed_and_does_not_block_the_attempt() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    requested(&gateway, "pg-of-another-window", &id.to_string()).await;
    // It was confirmed by an attempt that had been given up.
    gateway
        .confirm_directly(id, "pg-of-another-window", 7_000)
        .await;

    assert_pending(&app.confirm(input(id)).await);
    let mut looks = 0;
    while app.status(id).await == PaymentStatus::Confirming {
        app.settle().await;
        app.clock.advance_millis(15_000);
        looks += 1;
        assert!(looks < 60, "it is confirming for ever");
    }

    let charge = gateway.charge(id).await.expect("an account");
    assert_eq!(charge.balance_amount, 0);
    assert_eq!(charge.status, ChargeStatus::Canceled);
}

#[tokio::test]
async fn an_account_of_a_deleted_payment_is_closed_and_the_saga_is_answered() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    requested(&gateway, &format!("pg-{id}"), &id.to_string()).await;
    assert_pending(&app.confirm(input(id)).await);
    app.settle().await;
    let deletion = DeleteRequest {
        saga_id: creation(1).saga_id,
        payment_id: id,
    };

    app.send("delete", &deletion).await;
    app.send("delete-again", &deletion).await;
    app.clock.advance_millis(60_000);
    app.settle().await;

    assert_eq!(app.status(id).await, PaymentStatus::Deleted);
    let told: Vec<DeleteResponse> = app.published(&["payment.delete.response"]);
    assert!(told.len() == 1 && told[0].succeed, "{told:?}");
    let charge = gateway.charge(id).await.expect("a closed account");
    assert_eq!(charge.status, ChargeStatus::Canceled);
}

#[tokio::test]
async fn an_orphan_charge_that_becomes_the_payments_own_is_not_refunded() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    let key = format!("pg-{id}");
    let orphan = OrphanChargeRecord::found(
        id,
        &key,
        contract::Money::new(7_000).unwrap(),
        "it was opened too late",
        app.clock.now(),
    );
    let mut commit = messaging::Commit::new();
    commit.put(&orphan);
    app.store.commit(commit).await.unwrap();

    assert!(crate::support::settled(app.confirm(input(id)).await).succeeded);
    app.drain().await;
    app.settle().await;

    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
    let charge = gateway.charge(id).await.expect("a charge");
    assert_eq!(charge.balance_amount, 7_000);
    let orphan: Option<OrphanChargeRecord> = app.store.load(key.as_str()).await.unwrap();
    assert_eq!(orphan, None);
}

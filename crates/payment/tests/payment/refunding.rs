//! Money goes back: whenever it is wanted, and exactly once.

use contract::{
    PaymentId,
    dead_letter::DeadLetter,
    domain::{self, DomainMessage, PaymentStatus},
    payment::{CancelResponse, ConfirmedRequest, DeleteRequest},
};
use messaging::{Find, Record};
use payment::{
    Error,
    record::{OrphanChargeRecord, PaymentRecord, Refund},
};
use toss::{Cancel, ChargeStatus, Confirm, protocol::RefundAccount};
use toss_sandbox::{Fault, FaultScript, FaultTarget};

use serde_json::json;

use crate::reconciling::{SandboxHarness, rule};
use crate::support::{
    TestGateway, TestPaymentService, cancellation, cancellation_by_saga, creation, input,
    input_with, second_charge, settings, settled,
};

async fn orphan(app: &TestPaymentService) -> OrphanChargeRecord {
    let orphan = app.store.load("pg-second").await.unwrap();
    orphan.expect("a stray")
}

async fn paid(app: &mut TestPaymentService) -> PaymentId {
    let id = app.open_payment(1).await;
    assert!(settled(app.confirm(input(id)).await).succeeded);
    app.drain().await;
    id
}

#[tokio::test]
async fn a_payment_without_a_ticket_is_refunded_once() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = paid(&mut app).await;

    app.send("cancel", &cancellation(id)).await;
    app.send("cancel-again", &cancellation(id)).await;
    assert_eq!(app.payment(id).await.refund, Refund::Requested);
    assert_eq!(app.settle().await, 1);

    let payment = app.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Cancelled);
    assert_eq!(payment.refund, Refund::Done);
    let charge = gateway.charge(id).await.expect("a charge");
    assert_eq!(
        (charge.status, charge.balance_amount),
        (ChargeStatus::Canceled, 0)
    );
    assert_eq!(app.settle().await, 0);
    assert_eq!(app.payment(id).await.version, 5);
}

#[tokio::test]
async fn a_refund_that_was_done_before_is_recognised() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = paid(&mut app).await;
    let by_hand = Cancel {
        payment_key: format!("pg-{id}"),
        reason: "by hand".to_owned(),
        amount: None,
        refund_account: None,
        idempotency_key: "by-hand".to_owned(),
        test_code: None,
    };
    gateway.client().cancel(&by_hand).await;

    app.send("cancel", &cancellation(id)).await;
    assert_eq!(app.settle().await, 1);

    assert_eq!(app.status(id).await, PaymentStatus::Cancelled);
}

#[tokio::test]
async fn a_refund_that_the_gateway_refuses_is_parked_and_visible() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = paid(&mut app).await;
    drop(app);

    // A gateway that has never heard of the charge.
    let other = TestGateway::start().await;
    let mut app = TestPaymentService::open(folder.path(), settings(other.address));
    app.send("cancel", &cancellation(id)).await;
    assert_eq!(app.settle().await, 1);

    let payment = app.payment(id).await;
    assert_eq!(payment.refund, Refund::Parked);
    assert_eq!(payment.status, PaymentStatus::Succeeded);
    let history = app.history(id).await;
    let last = history.last().expect("a history");
    assert_eq!(last.note, "refund refused: NOT_FOUND_PAYMENT");
    assert_eq!(app.settle().await, 0);
    let find = Find::all(PaymentRecord::TABLE, 2);
    let all: Vec<PaymentRecord> = app.store.find(find).await.unwrap();
    assert_eq!(all, [payment]);
}

#[tokio::test]
async fn an_operator_can_retry_a_parked_refund() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = paid(&mut app).await;
    assert!(matches!(
        app.service.resume_refund(id).await,
        Err(Error::NotParked)
    ));
    drop(app);
    let other = TestGateway::start().await;
    let mut app = TestPaymentService::open(folder.path(), settings(other.address));
    app.send("cancel", &cancellation(id)).await;
    assert_eq!(app.settle().await, 1);
    drop(app);

    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    app.service.resume_refund(id).await.unwrap();
    assert_eq!(app.settle().await, 1);
    assert_eq!(app.status(id).await, PaymentStatus::Cancelled);
    let charge = gateway.charge(id).await.expect("a charge");
    assert_eq!(charge.balance_amount, 0);
}

#[tokio::test]
async fn a_saga_is_answered_when_its_refund_is_done_and_the_payment_stays_paid_until_then() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = paid(&mut app).await;

    app.send("cancel", &cancellation_by_saga(id)).await;
    app.send("cancel-again", &cancellation_by_saga(id)).await;
    let told: Vec<CancelResponse> = app.published(&["payment.cancel.response"]);
    assert_eq!(told, [], "it is not decided yet");
    assert_eq!(app.settle().await, 1);
    app.send("cancel-late", &cancellation_by_saga(id)).await;

    let told: Vec<CancelResponse> = app.published(&["payment.cancel.response"]);
    let told: Vec<_> = told.iter().map(|it| (it.payment_id, it.succeed)).collect();
    assert_eq!(told, [(id, true), (id, true)]);
    let told: Vec<DomainMessage<domain::Payment>> = app.published(&["domain.payment"]);
    let told: Vec<_> = told.iter().map(|it| it.payload.status).skip(2).collect();
    let stands = PaymentStatus::Succeeded;
    assert_eq!(told, [stands, stands, PaymentStatus::Cancelled]);
}

#[tokio::test]
async fn a_saga_is_answered_when_its_refund_is_refused_and_nothing_is_parked() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = paid(&mut app).await;
    drop(app);
    let other = TestGateway::start().await;
    let mut app = TestPaymentService::open(folder.path(), settings(other.address));

    app.send("cancel", &cancellation_by_saga(id)).await;
    assert_eq!(app.settle().await, 1);

    let told: Vec<CancelResponse> = app.published(&["payment.cancel.response"]);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].code.as_deref(), Some("NOT_FOUND_PAYMENT"));
    let payment = app.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Succeeded);
    assert_eq!(payment.refund, Refund::None);
}

#[tokio::test]
async fn a_second_charge_of_an_order_is_refunded_and_the_first_stays() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = paid(&mut app).await;
    let other = app.open_payment(2).await;
    // A gateway that let the order be charged twice would show two charges; this one is told of the other's.
    gateway.charge_directly(other, "pg-second", 7_000).await;
    let second = second_charge(id);

    app.send("second", &second).await;
    app.send("second-again", &second).await;
    assert_eq!(app.settle().await, 1);
    assert_eq!(app.settle().await, 0);

    assert_eq!(orphan(&app).await.refund, Refund::Done);
    let charge = gateway.charge(other).await.expect("a charge");
    assert_eq!(charge.balance_amount, 0);
    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
    let first = gateway.charge(id).await.expect("a charge");
    assert_eq!(first.balance_amount, 7_000);
}

#[tokio::test]
async fn a_second_charge_by_virtual_account_is_refunded_once_an_account_is_set() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = paid(&mut app).await;
    let other = app.open_payment(2).await;
    let account = json!({ "orderId": other, "paymentKey": "pg-second", "amount": 7_000,
        "method": "VIRTUAL_ACCOUNT" });
    gateway.control("payments", &account).await;
    let confirm = Confirm {
        payment_key: "pg-second".to_owned(),
        order_id: other.to_string(),
        amount: 7_000,
        idempotency_key: "second".to_owned(),
        test_code: None,
    };
    gateway.client().confirm(&confirm).await;
    gateway
        .control("payments/pg-second/deposit", &json!({}))
        .await;
    let second = second_charge(id);
    app.send("second", &second).await;
    assert_eq!(app.settle().await, 1);
    assert_eq!(orphan(&app).await.refund, Refund::Parked);

    let lee = RefundAccount {
        bank: "20".to_owned(),
        account_number: "456".to_owned(),
        holder_name: "Lee".to_owned(),
    };
    app.service
        .set_refund_account(id, &lee, None)
        .await
        .unwrap();
    app.service.resume_orphan_refund("pg-second").await.unwrap();
    assert_eq!(app.settle().await, 1);

    assert_eq!(orphan(&app).await.refund, Refund::Done);
    let charge = gateway.charge(other).await.expect("a charge");
    assert_eq!(charge.balance_amount, 0);
}

#[tokio::test]
async fn a_charge_after_the_payment_was_closed_is_refunded_and_buys_nothing() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    let deletion = DeleteRequest {
        saga_id: creation(1).saga_id,
        payment_id: id,
    };
    app.send("delete", &deletion).await;
    gateway.charge_directly(id, "pg-late", 7_000).await;

    let late = ConfirmedRequest {
        payment_id: id,
        pg_payment_id: "pg-late".to_owned(),
        confirmed: true,
        attempt: None,
        decline_code: None,
    };
    app.send("late", &late).await;
    let payment = app.payment(id).await;
    assert_eq!(payment.status, PaymentStatus::Succeeded);
    assert_eq!(payment.refund, Refund::Requested);
    assert_eq!(app.settle().await, 1);

    assert_eq!(app.status(id).await, PaymentStatus::Cancelled);
    let charge = gateway.charge(id).await.expect("a charge");
    assert_eq!(charge.balance_amount, 0);
    let told: Vec<DomainMessage<domain::Payment>> = app.published(&["domain.payment"]);
    assert!(
        told.len() == 4
            && told
                .iter()
                .all(|m| m.payload.status != PaymentStatus::Succeeded)
    );
}

#[tokio::test]
async fn a_refund_of_a_payment_whose_outcome_is_open_waits_as_a_dead_letter() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    let _ = app.confirm(input_with(id, "SANDBOX_CHARGE_THEN_500")).await;

    app.send("cancel", &cancellation(id)).await;

    let letters: Vec<DeadLetter> = app.published(&["common.dlt"]);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].group, "payment");
    assert_eq!(app.payment(id).await.refund, Refund::None);
}

#[tokio::test]
async fn a_refund_whose_bank_is_closed_is_retried_until_it_opens() {
    let mut harness = SandboxHarness::open().await;
    let id = harness.paid(1).await;
    let closed = Fault::Refuse {
        code: "NOT_AVAILABLE_BANK".to_owned(),
        status: None,
    };
    harness
        .sandbox
        .set_faults(rule(FaultTarget::Cancel, closed, None))
        .unwrap();
    harness.app.send("cancel", &cancellation(id)).await;
    for _ in 0..3 {
        assert_eq!(harness.app.settle().await, 0);
        assert_eq!(harness.app.payment(id).await.refund, Refund::Requested);
        harness.advance_secs(120);
    }

    harness.sandbox.set_faults(FaultScript::default()).unwrap();
    assert_eq!(harness.app.settle().await, 1);

    assert_eq!(harness.app.status(id).await, PaymentStatus::Cancelled);
    let charge = harness.gateway.charge(id).await.expect("a charge");
    assert_eq!(charge.balance_amount, 0);
}

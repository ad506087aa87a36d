//! What an honest gateway never shows: a second charge, another amount, rows that nobody can read.

use contract::{PaymentId, domain::PaymentStatus};
use payment::{
    reconcile::DifferenceKind,
    record::{OrphanChargeRecord, Refund},
};
use tempfile::TempDir;

use super::{counts, only_difference, reconcile, stub::StubGateway};
use crate::support::{
    START, TestGateway, TestPaymentService, cancellation, input, settings, settled,
};

/// Paid at an honest gateway; from then on another one is asked.
async fn paid_then_told_by(stub: &StubGateway) -> (TestPaymentService, PaymentId, TempDir) {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    assert!(settled(app.confirm(input(id)).await).succeeded);
    app.drain().await;
    drop(app);
    let app = TestPaymentService::open(folder.path(), settings(stub.address));
    (app, id, folder)
}

#[tokio::test]
async fn a_second_charge_of_an_order_is_found_and_refunded() {
    let stub = StubGateway::start().await;
    let (mut app, id, _folder) = paid_then_told_by(&stub).await;
    let order = id.to_string();
    stub.charge(&format!("pg-{id}"), &order, 7_000, START);
    stub.charge("pg-second", &order, 7_000, START);

    let report = reconcile(&mut app).await;
    assert_eq!(report.summary.counts, counts(|it| it.settled = 1));
    assert_eq!(app.settle().await, 1, "the second charge");

    assert_eq!(stub.balance("pg-second"), 0);
    assert_eq!(stub.balance(&format!("pg-{id}")), 7_000);
    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
    let orphan: Option<OrphanChargeRecord> = app.store.load("pg-second").await.unwrap();
    assert_eq!(orphan.map(|it| it.refund), Some(Refund::Done));
    let again = reconcile(&mut app).await;
    assert_eq!(again.summary.counts, counts(|it| it.matched = 1));
}

#[tokio::test]
async fn a_charge_of_another_amount_is_reported_to_operators() {
    let stub = StubGateway::start().await;
    let (mut app, id, _folder) = paid_then_told_by(&stub).await;
    stub.charge(&format!("pg-{id}"), &id.to_string(), 6_999, START);

    let report = reconcile(&mut app).await;

    let difference = only_difference(&report, DifferenceKind::DifferentAmount);
    assert_eq!(difference.amount_ours, Some(7_000));
    assert_eq!(difference.amount_theirs, Some(6_999));
    assert_eq!(
        stub.balance(&format!("pg-{id}")),
        6_999,
        "nobody touched it"
    );
}

#[tokio::test]
async fn a_row_that_cannot_be_read_hides_nothing_and_is_reported() {
    let stub = StubGateway::start().await;
    let (mut app, id, _folder) = paid_then_told_by(&stub).await;
    stub.list_nonsense();
    stub.charge(&format!("pg-{id}"), &id.to_string(), 7_000, START);

    let report = reconcile(&mut app).await;

    let expected = counts(|it| (it.matched, it.unreadable) = (1, 1));
    assert_eq!(report.summary.counts, expected);
    assert!(!report.is_clean());
}

#[tokio::test]
async fn a_parked_refund_is_reported_until_it_is_refunded() {
    let stub = StubGateway::start().await;
    let (mut app, id, _folder) = paid_then_told_by(&stub).await;
    // The stub knows of no such charge yet, and refuses.
    app.send("cancel", &cancellation(id)).await;
    assert_eq!(app.settle().await, 1);
    let key = format!("pg-{id}");
    stub.charge(&key, &id.to_string(), 7_000, START);

    let report = reconcile(&mut app).await;
    let difference = only_difference(&report, DifferenceKind::ParkedRefund);
    assert_eq!(difference.note.as_deref(), Some("NOT_FOUND_PAYMENT"));

    stub.list(&key, &id.to_string(), "CANCELED", -7_000, START);
    stub.show(&key, &id.to_string(), "CANCELED", 7_000, 0);
    let report = reconcile(&mut app).await;
    assert_eq!(report.summary.counts, counts(|it| it.settled = 1));
    assert_eq!(app.status(id).await, PaymentStatus::Cancelled);
}

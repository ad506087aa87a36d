//! Reconciliations that nobody asks for: each period once, and none left out.

use contract::{PaymentId, Timestamp, domain::PaymentStatus};
use messaging::ShutdownSwitch;
use payment::{Reconciler, reconcile::Error};
use toss_sandbox::{Fault, FaultScript, FaultTarget};

use super::{SandboxHarness, counts, kept, rule, stub::StubGateway};
use crate::support::{START, TestGateway, TestPaymentService, settings};

#[tokio::test]
async fn each_scheduled_period_starts_where_the_last_one_ended() {
    let mut harness = SandboxHarness::open().await;
    let reconciler = Reconciler::new(harness.app.service.clone());
    let lag = |at: Timestamp| at.plus_secs(-120);

    let first = reconciler.reconcile_due().await.unwrap().expect("a first");
    assert_eq!(first.summary.to, lag(START));
    assert_eq!(first.summary.from, lag(START).plus_secs(-24 * 3_600));
    assert_eq!(reconciler.reconcile_due().await.unwrap(), None);

    // A person's reconciliation of another time changes nothing of the schedule.
    harness.reconcile().await;
    harness.paid(1).await;
    harness.advance_secs(3_600);
    let silent = rule(FaultTarget::Transactions, Fault::DoThen500, Some(3));
    harness.sandbox.set_faults(silent).unwrap();
    let failed = reconciler.reconcile_due().await;
    assert!(matches!(failed, Err(Error::Gateway { .. })), "{failed:?}");
    harness.sandbox.set_faults(FaultScript::default()).unwrap();

    harness.advance_secs(60);
    let second = reconciler.reconcile_due().await.unwrap().expect("a second");
    assert_eq!(second.summary.from, first.summary.to);
    assert_eq!(second.summary.to, lag(harness.app.clock.now()));
    assert_eq!(second.summary.counts, counts(|it| it.matched = 1));

    // Nobody was there for longer than a period may be.
    harness.advance_secs(40 * 24 * 3_600);
    let third = reconciler.reconcile_due().await.unwrap().expect("a third");
    assert_eq!(
        third.summary.from,
        third.summary.to.plus_secs(-31 * 24 * 3_600)
    );
}

#[tokio::test]
async fn a_reconciliation_that_lost_its_lease_stores_no_report_and_its_period_stays_due() {
    let harness = SandboxHarness::open().await;
    let (stale, lease) = harness.app.change_leaders().await;
    let reconciler = |fence| Reconciler::new(harness.app.service.fenced_by(Some(fence)));
    let refused = reconciler(stale).reconcile_due().await;
    assert!(matches!(refused, Err(Error::Store(_))), "{refused:?}");

    let first = reconciler(lease.fence()).reconcile_due().await.unwrap();
    let first = first.expect("the period is due");
    assert_eq!(first.summary.from, START.plus_secs(-120 - 24 * 3_600));
}

#[tokio::test]
async fn a_clock_that_was_far_ahead_for_one_run_stops_no_later_one() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let run_at = |now| {
        let app = TestPaymentService::open_at(folder.path(), settings(gateway.address), now);
        let reconciler = Reconciler::new(app.service.clone());
        async move { (reconciler.reconcile_due().await.unwrap(), app) }
    };
    let first = run_at(START).await.0.expect("a first");
    let ahead = START.plus_secs(20 * 24 * 3_600);
    assert!(run_at(ahead).await.0.is_some());

    let (next, app) = run_at(START.plus_secs(3_600)).await;
    let next = next.expect("the clock is right again");
    assert_eq!(next.summary.from, first.summary.to);
    let reconciler = Reconciler::new(app.service.clone());
    assert_eq!(reconciler.reconcile_due().await.unwrap(), None);
    app.clock.advance_millis(3_600_000);
    let third = reconciler.reconcile_due().await.unwrap().expect("a third");
    assert_eq!(third.summary.from, next.summary.to);
}

#[tokio::test]
async fn a_charge_that_the_gateway_lists_after_its_period_was_compared_is_found() {
    let (folder, stub) = (tempfile::tempdir().unwrap(), StubGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(stub.address));
    let id = app.open_payment(1).await;
    let reconciler = Reconciler::new(app.service.clone());
    app.clock.advance_millis(200_000);
    let first = reconciler.reconcile_due().await.unwrap().expect("a first");
    let stranger = PaymentId(messaging::Random::seeded(99).uuid(START));
    let late = first.summary.to.plus_millis(-1);
    stub.charge("pg-late", &id.to_string(), 7_000, late);
    stub.charge("pg-foreign", &stranger.to_string(), 500, late);

    app.clock.advance_millis(3_600_000);
    let second = reconciler.reconcile_due().await.unwrap().expect("a second");
    app.drain().await;

    assert_eq!(second.summary.counts, counts(|it| it.settled = 1));
    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn a_schedule_that_is_switched_off_does_nothing() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut never = settings(gateway.address);
    never.reconcile_every_secs = 0;
    let app = TestPaymentService::open(folder.path(), never);
    let reconciler = Reconciler::new(app.service.clone());
    assert_eq!(reconciler.reconcile_due().await.unwrap(), None);
}

#[tokio::test]
async fn the_task_reconciles_by_its_clock_and_stops_when_told() {
    let harness = SandboxHarness::open().await;
    let (switch, shutdown) = ShutdownSwitch::new();
    let reconciler = Reconciler::new(harness.app.service.clone());
    let mut committed = harness.app.store.committed();
    let task = tokio::spawn(reconciler.run(shutdown));
    committed.changed().await.unwrap();
    assert_eq!(kept(&harness.app).await, 1);
    harness.advance_secs(3_600);
    committed.changed().await.unwrap();
    assert_eq!(kept(&harness.app).await, 2);
    switch.stop();
    task.await.unwrap();
}

//! Reconciliation: nothing that the gateway lists and nothing that stands here goes unseen; what can be put right is.

mod api;
mod differing;
mod histories;
mod schedule;
mod stub;

use std::sync::Arc;

use contract::{PaymentId, domain::PaymentStatus};
use messaging::{Find, Record};
use payment::reconcile::{Counts, DifferenceKind, Error, Period, Report};
use tempfile::TempDir;
use toss::{Cancel, SecretKey};
use toss_sandbox::{
    Fault, FaultRule, FaultScript, FaultTarget, ManualClock, Sandbox, SandboxSettings,
};

use crate::support::{
    SECRET, START, TestGateway, TestPaymentService, assert_pending, cancellation, input,
    input_with, settings, settled,
};

/// The service and a sandbox whose clock follows the service's.
pub struct SandboxHarness {
    pub app: TestPaymentService,
    pub sandbox: Sandbox,
    pub gateway: TestGateway,
    gateway_clock: Arc<ManualClock>,
    _folder: TempDir,
}

impl SandboxHarness {
    pub async fn open() -> Self {
        let start = jiff::Timestamp::from_millisecond(START.as_millis()).unwrap();
        let gateway_clock = Arc::new(ManualClock::new(start));
        let sandbox = Sandbox::open(SandboxSettings {
            clock: gateway_clock.clone(),
            ..SandboxSettings::new(SecretKey::new(SECRET))
        });
        let sandbox = sandbox.unwrap();
        let gateway = TestGateway::serving(&sandbox).await;
        let folder = tempfile::tempdir().unwrap();
        Self {
            app: TestPaymentService::open(folder.path(), settings(gateway.address)),
            sandbox,
            gateway,
            gateway_clock,
            _folder: folder,
        }
    }

    pub fn advance_secs(&self, secs: i64) {
        self.app.clock.advance_millis(secs * 1_000);
        self.gateway_clock.advance_millis(secs * 1_000);
    }

    pub async fn paid(&mut self, number: u64) -> PaymentId {
        let id = self.app.open_payment(number).await;
        assert!(settled(self.app.confirm(input(id)).await).succeeded);
        self.app.drain().await;
        id
    }

    async fn refunded(&mut self, number: u64) -> PaymentId {
        let id = self.paid(number).await;
        self.app
            .send(&format!("cancel-{number}"), &cancellation(id))
            .await;
        assert_eq!(self.app.settle().await, 1);
        id
    }

    pub async fn reconcile(&mut self) -> Report {
        reconcile(&mut self.app).await
    }

    pub async fn reconcile_last_secs(&mut self, secs: i64) -> Report {
        let now = self.app.clock.now();
        let period = Period {
            from: now.plus_secs(-secs),
            to: now.plus_millis(1),
        };
        let report = self.app.service.reconcile(period).await.unwrap();
        self.app.drain().await;
        report
    }
}

/// From an hour before the test's beginning to just after now.
fn period(app: &TestPaymentService) -> Period {
    Period {
        from: START.plus_secs(-3_600),
        to: app.clock.now().plus_millis(1),
    }
}

/// Reconciles, and lets the consumer take in what was found.
async fn reconcile(app: &mut TestPaymentService) -> Report {
    let report = app.service.reconcile(period(app)).await.unwrap();
    app.drain().await;
    report
}

fn counts(change: impl FnOnce(&mut Counts)) -> Counts {
    let mut counts = Counts::default();
    change(&mut counts);
    counts
}

/// The one difference of a report, and nothing else in it.
#[track_caller]
fn only_difference(report: &Report, kind: DifferenceKind) -> &payment::reconcile::Difference {
    assert_eq!(report.differences.len(), 1, "{report:?}");
    assert_eq!(report.differences[0].kind, kind, "{report:?}");
    assert_eq!(report.summary.counts.of(kind), 1, "{report:?}");
    assert!(!report.is_clean());
    &report.differences[0]
}

#[tokio::test]
async fn agreeing_payments_match_without_a_lookup_or_a_change() {
    let mut harness = SandboxHarness::open().await;
    let kept = harness.paid(1).await;
    harness.advance_secs(60);
    let back = harness.refunded(2).await;
    let declined = harness.app.open_payment(3).await;
    let _ = harness
        .app
        .confirm(input_with(declined, "REJECT_CARD_PAYMENT"))
        .await;
    harness.app.drain().await;
    let versions = [kept, back, declined];
    let before = versions_of(&harness.app, &versions).await;
    // From now on, lookups get no answer.
    let lookups = rule(FaultTarget::Lookup, Fault::DoThen500, None);
    harness.sandbox.set_faults(lookups).unwrap();

    let report = harness.reconcile().await;

    assert_eq!(report.summary.counts, counts(|it| it.matched = 3));
    assert!(report.is_clean());
    assert_eq!(versions_of(&harness.app, &versions).await, before);
}

async fn versions_of(app: &TestPaymentService, ids: &[PaymentId]) -> Vec<i64> {
    let mut versions = Vec::new();
    for id in ids {
        versions.push(app.payment(*id).await.version);
    }
    versions
}

pub fn rule(on: FaultTarget, fault: Fault, times: Option<u32>) -> FaultScript {
    FaultScript {
        seed: 1,
        rules: vec![FaultRule {
            on,
            order_id: None,
            payment_key: None,
            skip: None,
            times,
            per_mille: None,
            fault,
        }],
    }
}

#[tokio::test]
async fn a_charge_whose_answer_and_webhook_were_lost_is_found() {
    let mut harness = SandboxHarness::open().await;
    let id = harness.app.open_payment(1).await;
    assert_pending(
        &harness
            .app
            .confirm(input_with(id, "SANDBOX_CHARGE_THEN_500"))
            .await,
    );
    harness.advance_secs(1);

    let report = harness.reconcile().await;
    assert_eq!(report.summary.counts, counts(|it| it.settled = 1));
    assert_eq!(harness.app.status(id).await, PaymentStatus::Succeeded);

    let again = harness.reconcile().await;
    assert_eq!(again.summary.counts, counts(|it| it.matched = 1));
}

#[tokio::test]
async fn a_charge_of_a_payment_that_was_given_up_is_found_long_after() {
    let mut harness = SandboxHarness::open().await;
    let id = harness.app.open_payment(1).await;
    let _ = harness
        .app
        .confirm(input_with(id, "REJECT_CARD_PAYMENT"))
        .await;
    harness.app.drain().await;
    harness.advance_secs(7_200);
    harness.gateway.charge_directly(id, "pg-late", 7_000).await;

    let last_hour = Period {
        from: harness.app.clock.now().plus_secs(-60),
        ..period(&harness.app)
    };
    let report = harness.app.service.reconcile(last_hour).await.unwrap();
    harness.app.drain().await;

    assert_eq!(report.summary.counts, counts(|it| it.settled = 1));
    assert_eq!(harness.app.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn a_refund_made_at_the_gateway_is_applied() {
    let mut harness = SandboxHarness::open().await;
    let id = harness.paid(1).await;
    let by_hand = Cancel {
        payment_key: format!("pg-{id}"),
        reason: "by hand".to_owned(),
        amount: None,
        refund_account: None,
        idempotency_key: "by-hand".to_owned(),
        test_code: None,
    };
    harness.gateway.client().cancel(&by_hand).await;

    let report = harness.reconcile().await;

    assert_eq!(report.summary.counts, counts(|it| it.settled = 1));
    assert_eq!(harness.app.status(id).await, PaymentStatus::Cancelled);
    let again = harness.reconcile().await;
    assert_eq!(again.summary.counts, counts(|it| it.matched = 1));
}

#[tokio::test]
async fn a_partial_refund_is_reported_to_operators() {
    let mut harness = SandboxHarness::open().await;
    let id = harness.paid(1).await;
    let part = Cancel {
        payment_key: format!("pg-{id}"),
        reason: "by hand".to_owned(),
        amount: Some(1_000),
        refund_account: None,
        idempotency_key: "by-hand".to_owned(),
        test_code: None,
    };
    harness.gateway.client().cancel(&part).await;

    let report = harness.reconcile().await;
    let difference = only_difference(&report, DifferenceKind::DifferentAmount);
    assert_eq!(difference.theirs.as_deref(), Some("PARTIAL_CANCELED"));
    assert_eq!(difference.amount_theirs, Some(6_000));
    let again = harness.reconcile().await;
    assert_eq!(
        again.differences, report.differences,
        "two runs give the same"
    );
}

#[tokio::test]
async fn a_charge_without_a_payment_is_reported_and_never_changed() {
    let mut harness = SandboxHarness::open().await;
    let ours = harness.paid(1).await;
    let stranger = PaymentId(messaging::Random::seeded(99).uuid(START));
    harness
        .gateway
        .charge_directly(stranger, "pg-foreign", 500)
        .await;

    let report = harness.reconcile().await;

    let difference = only_difference(&report, DifferenceKind::MissingHere);
    assert_eq!(difference.order_id, Some(stranger.to_string()));
    assert_eq!(difference.pg_payment_id.as_deref(), Some("pg-foreign"));
    assert_eq!(difference.amount_theirs, Some(500));
    assert_eq!(report.summary.counts.matched, 1);
    let charge = harness.gateway.charge(stranger).await.expect("a charge");
    assert_eq!(charge.balance_amount, 500);
    assert_eq!(harness.app.status(ours).await, PaymentStatus::Succeeded);
    assert_eq!(harness.reconcile().await.differences, report.differences);
}

#[tokio::test]
async fn a_paid_payment_that_the_gateway_does_not_know_is_reported() {
    let (folder, gateway) = (tempfile::tempdir().unwrap(), TestGateway::start().await);
    let mut app = TestPaymentService::open(folder.path(), settings(gateway.address));
    let id = app.open_payment(1).await;
    assert!(settled(app.confirm(input(id)).await).succeeded);
    app.drain().await;
    drop(app);

    let other = TestGateway::start().await;
    let mut app = TestPaymentService::open(folder.path(), settings(other.address));
    let report = reconcile(&mut app).await;

    let difference = only_difference(&report, DifferenceKind::MissingThere);
    assert_eq!(difference.payment_id, Some(id));
    assert_eq!(difference.ours.as_deref(), Some("SUCCEEDED"));
    assert_eq!(app.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn without_the_gateways_list_nothing_is_reported_or_changed() {
    let mut harness = SandboxHarness::open().await;
    harness.paid(1).await;
    let silent = rule(FaultTarget::Transactions, Fault::DoThen500, None);
    harness.sandbox.set_faults(silent).unwrap();

    let refused = harness.app.service.reconcile(period(&harness.app)).await;

    assert!(matches!(refused, Err(Error::Gateway { .. })), "{refused:?}");
    assert_eq!(kept(&harness.app).await, 0);
    harness.sandbox.set_faults(FaultScript::default()).unwrap();
    assert_eq!(
        harness.reconcile().await.summary.counts,
        counts(|it| it.matched = 1)
    );
}

#[tokio::test]
async fn a_payment_whose_lookup_fails_is_reported_as_not_asked() {
    let mut harness = SandboxHarness::open().await;
    let id = harness.app.open_payment(1).await;
    assert_pending(
        &harness
            .app
            .confirm(input_with(id, "SANDBOX_CHARGE_THEN_500"))
            .await,
    );
    let silent = rule(FaultTarget::Lookup, Fault::DoThen500, None);
    harness.sandbox.set_faults(silent).unwrap();

    let report = harness.reconcile().await;

    let difference = only_difference(&report, DifferenceKind::NotAsked);
    assert_eq!(difference.payment_id, Some(id));
    assert_eq!(harness.app.status(id).await, PaymentStatus::Confirming);
}

async fn kept(app: &TestPaymentService) -> usize {
    let table = payment::record::ReconciliationRecord::TABLE;
    let kept: Vec<payment::record::ReconciliationRecord> =
        app.store.find(Find::all(table, 100)).await.unwrap();
    kept.len()
}

#[tokio::test]
async fn a_report_is_stored_and_read_back() {
    let mut harness = SandboxHarness::open().await;
    harness.paid(1).await;
    let stranger = PaymentId(messaging::Random::seeded(99).uuid(START));
    harness
        .gateway
        .charge_directly(stranger, "pg-foreign", 500)
        .await;

    let report = harness.reconcile().await;

    let id = &report.summary.id;
    let read = harness.app.service.reconciliation(id).await.unwrap();
    assert_eq!(read, Some(report));
}

#[tokio::test]
async fn an_invalid_period_is_refused_by_its_field() {
    let harness = SandboxHarness::open().await;
    let day = 24 * 3_600;
    for (from, to) in [
        (START, START),
        (START.plus_millis(1), START),
        (START.plus_secs(-31 * day - 1), START),
    ] {
        let refused = harness.app.service.reconcile(Period { from, to }).await;
        assert!(
            matches!(refused, Err(Error::Period { field: "from", .. })),
            "{refused:?}"
        );
    }
}

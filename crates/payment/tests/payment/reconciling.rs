//! Reconciliation: nothing that the gateway lists and nothing that stands here goes unseen; what can be put right is.

mod differing;
mod door;
mod double;
mod histories;
mod schedule;

use std::sync::Arc;

use contract::{PaymentId, domain::PaymentStatus, payment::CancelRequest};
use messaging::{Find, Record};
use payment::reconcile::{Counts, DifferenceKind, Error, Period, Report};
use tempfile::TempDir;
use toss::{Cancel, SecretKey};
use toss_sandbox::{
    Fault, FaultRule, FaultScript, FaultTarget, ManualClock, Sandbox, SandboxSettings,
};

use crate::world::{
    Peer, SECRET, START, World, assert_pending, input, input_with, settings, settled,
};

/// Our service, and the sandbox on a clock of its own that goes with ours.
pub struct Theatre {
    pub world: World,
    pub sandbox: Sandbox,
    pub peer: Peer,
    gateway_clock: Arc<ManualClock>,
    _folder: TempDir,
}

impl Theatre {
    pub async fn open() -> Self {
        let start = jiff::Timestamp::from_millisecond(START.as_millis()).unwrap();
        let gateway_clock = Arc::new(ManualClock::new(start));
        let sandbox = Sandbox::open(SandboxSettings {
            clock: gateway_clock.clone(),
            ..SandboxSettings::new(SecretKey::new(SECRET))
        });
        let sandbox = sandbox.unwrap();
        let peer = Peer::serving(&sandbox).await;
        let folder = tempfile::tempdir().unwrap();
        Self {
            world: World::open(folder.path(), settings(peer.address)),
            sandbox,
            peer,
            gateway_clock,
            _folder: folder,
        }
    }

    pub fn advance_secs(&self, secs: i64) {
        self.world.clock.advance_millis(secs * 1_000);
        self.gateway_clock.advance_millis(secs * 1_000);
    }

    pub async fn paid(&mut self, number: u64) -> PaymentId {
        let id = self.world.open_payment(number).await;
        assert!(settled(self.world.confirm(input(id)).await).succeeded);
        self.world.drain().await;
        id
    }

    async fn refunded(&mut self, number: u64) -> PaymentId {
        let id = self.paid(number).await;
        self.world
            .send(&format!("cancel-{number}"), &cancellation(id))
            .await;
        assert_eq!(self.world.settle().await, 1);
        id
    }

    pub async fn reconcile(&mut self) -> Report {
        reconcile(&mut self.world).await
    }

    pub async fn reconcile_last_secs(&mut self, secs: i64) -> Report {
        let now = self.world.clock.now();
        let period = Period {
            from: now.plus_secs(-secs),
            to: now.plus_millis(1),
        };
        let report = self.world.service.reconcile(period).await.unwrap();
        self.world.drain().await;
        report
    }
}

fn cancellation(payment_id: PaymentId) -> CancelRequest {
    CancelRequest {
        payment_id,
        reason: "sold out".to_owned(),
        saga_id: None,
    }
}

/// From an hour before the test's beginning to just after now.
fn period(world: &World) -> Period {
    Period {
        from: START.plus_secs(-3_600),
        to: world.clock.now().plus_millis(1),
    }
}

/// Reconciles, and lets the consumer take in what was found.
async fn reconcile(world: &mut World) -> Report {
    let report = world.service.reconcile(period(world)).await.unwrap();
    world.drain().await;
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
async fn what_both_sides_say_is_matched_and_nothing_is_touched() {
    let mut theatre = Theatre::open().await;
    let kept = theatre.paid(1).await;
    theatre.advance_secs(60);
    let back = theatre.refunded(2).await;
    let declined = theatre.world.open_payment(3).await;
    let _ = theatre
        .world
        .confirm(input_with(declined, "REJECT_CARD_PAYMENT"))
        .await;
    theatre.world.drain().await;
    let versions = [kept, back, declined];
    let before = versions_of(&theatre.world, &versions).await;
    // Whoever looks anything up now gets no answer.
    let lookups = rule(FaultTarget::Lookup, Fault::DoThen500, None);
    theatre.sandbox.set_faults(lookups).unwrap();

    let report = theatre.reconcile().await;

    assert_eq!(report.summary.counts, counts(|it| it.matched = 3));
    assert!(report.is_clean());
    assert_eq!(versions_of(&theatre.world, &versions).await, before);
}

async fn versions_of(world: &World, ids: &[PaymentId]) -> Vec<i64> {
    let mut versions = Vec::new();
    for id in ids {
        versions.push(world.payment(*id).await.version);
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
async fn money_whose_answer_and_webhook_were_lost_is_found() {
    let mut theatre = Theatre::open().await;
    let id = theatre.world.open_payment(1).await;
    assert_pending(
        &theatre
            .world
            .confirm(input_with(id, "SANDBOX_CHARGE_THEN_500"))
            .await,
    );
    theatre.advance_secs(1);

    let report = theatre.reconcile().await;
    assert_eq!(report.summary.counts, counts(|it| it.settled = 1));
    assert_eq!(theatre.world.status(id).await, PaymentStatus::Succeeded);

    let again = theatre.reconcile().await;
    assert_eq!(again.summary.counts, counts(|it| it.matched = 1));
}

#[tokio::test]
async fn money_for_a_payment_that_was_given_up_is_found_long_after() {
    let mut theatre = Theatre::open().await;
    let id = theatre.world.open_payment(1).await;
    let _ = theatre
        .world
        .confirm(input_with(id, "REJECT_CARD_PAYMENT"))
        .await;
    theatre.world.drain().await;
    theatre.advance_secs(7_200);
    theatre.peer.charge_directly(id, "pg-late", 7_000).await;

    let last_hour = Period {
        from: theatre.world.clock.now().plus_secs(-60),
        ..period(&theatre.world)
    };
    let report = theatre.world.service.reconcile(last_hour).await.unwrap();
    theatre.world.drain().await;

    assert_eq!(report.summary.counts, counts(|it| it.settled = 1));
    assert_eq!(theatre.world.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn money_that_somebody_gave_back_at_the_gateway_itself_is_seen() {
    let mut theatre = Theatre::open().await;
    let id = theatre.paid(1).await;
    let by_hand = Cancel {
        payment_key: format!("pg-{id}"),
        reason: "by hand".to_owned(),
        amount: None,
        refund_account: None,
        idempotency_key: "by-hand".to_owned(),
        test_code: None,
    };
    theatre.peer.client().cancel(&by_hand).await;

    let report = theatre.reconcile().await;

    assert_eq!(report.summary.counts, counts(|it| it.settled = 1));
    assert_eq!(theatre.world.status(id).await, PaymentStatus::Cancelled);
    let again = theatre.reconcile().await;
    assert_eq!(again.summary.counts, counts(|it| it.matched = 1));
}

#[tokio::test]
async fn a_part_that_was_given_back_is_for_a_person() {
    let mut theatre = Theatre::open().await;
    let id = theatre.paid(1).await;
    let part = Cancel {
        payment_key: format!("pg-{id}"),
        reason: "by hand".to_owned(),
        amount: Some(1_000),
        refund_account: None,
        idempotency_key: "by-hand".to_owned(),
        test_code: None,
    };
    theatre.peer.client().cancel(&part).await;

    let report = theatre.reconcile().await;
    let difference = only_difference(&report, DifferenceKind::DifferentAmount);
    assert_eq!(difference.theirs.as_deref(), Some("PARTIAL_CANCELED"));
    assert_eq!(difference.amount_theirs, Some(6_000));
    let again = theatre.reconcile().await;
    assert_eq!(
        again.differences, report.differences,
        "two runs give the same"
    );
}

#[tokio::test]
async fn a_charge_of_an_order_that_is_none_of_ours_is_listed_and_never_touched() {
    let mut theatre = Theatre::open().await;
    let ours = theatre.paid(1).await;
    let stranger = PaymentId(messaging::Random::seeded(99).uuid(START));
    theatre
        .peer
        .charge_directly(stranger, "pg-foreign", 500)
        .await;

    let report = theatre.reconcile().await;

    let difference = only_difference(&report, DifferenceKind::MissingHere);
    assert_eq!(difference.order_id, Some(stranger.to_string()));
    assert_eq!(difference.pg_payment_id.as_deref(), Some("pg-foreign"));
    assert_eq!(difference.amount_theirs, Some(500));
    assert_eq!(report.summary.counts.matched, 1);
    let charge = theatre.peer.charge(stranger).await.expect("a charge");
    assert_eq!(charge.balance_amount, 500);
    assert_eq!(theatre.world.status(ours).await, PaymentStatus::Succeeded);
    assert_eq!(theatre.reconcile().await.differences, report.differences);
}

#[tokio::test]
async fn a_paid_payment_that_the_gateway_does_not_know_is_listed() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    assert!(settled(world.confirm(input(id)).await).succeeded);
    world.drain().await;
    drop(world);

    let other = Peer::start().await;
    let mut world = World::open(folder.path(), settings(other.address));
    let report = reconcile(&mut world).await;

    let difference = only_difference(&report, DifferenceKind::MissingThere);
    assert_eq!(difference.payment_id, Some(id));
    assert_eq!(difference.ours.as_deref(), Some("SUCCEEDED"));
    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn a_gateway_that_lists_nothing_leaves_everything_unconcluded() {
    let mut theatre = Theatre::open().await;
    theatre.paid(1).await;
    let silent = rule(FaultTarget::Transactions, Fault::DoThen500, None);
    theatre.sandbox.set_faults(silent).unwrap();

    let refused = theatre
        .world
        .service
        .reconcile(period(&theatre.world))
        .await;

    assert!(matches!(refused, Err(Error::Gateway { .. })), "{refused:?}");
    assert_eq!(kept(&theatre.world).await, 0);
    theatre.sandbox.set_faults(FaultScript::default()).unwrap();
    assert_eq!(
        theatre.reconcile().await.summary.counts,
        counts(|it| it.matched = 1)
    );
}

#[tokio::test]
async fn a_payment_that_the_gateway_does_not_answer_about_is_told_as_not_asked() {
    let mut theatre = Theatre::open().await;
    let id = theatre.world.open_payment(1).await;
    assert_pending(
        &theatre
            .world
            .confirm(input_with(id, "SANDBOX_CHARGE_THEN_500"))
            .await,
    );
    let silent = rule(FaultTarget::Lookup, Fault::DoThen500, None);
    theatre.sandbox.set_faults(silent).unwrap();

    let report = theatre.reconcile().await;

    let difference = only_difference(&report, DifferenceKind::NotAsked);
    assert_eq!(difference.payment_id, Some(id));
    assert_eq!(theatre.world.status(id).await, PaymentStatus::Confirming);
}

async fn kept(world: &World) -> usize {
    let table = payment::record::ReconciliationRecord::TABLE;
    let kept: Vec<payment::record::ReconciliationRecord> =
        world.store.find(Find::all(table, 100)).await.unwrap();
    kept.len()
}

#[tokio::test]
async fn a_report_is_kept_and_read_back_as_it_was() {
    let mut theatre = Theatre::open().await;
    theatre.paid(1).await;
    let stranger = PaymentId(messaging::Random::seeded(99).uuid(START));
    theatre
        .peer
        .charge_directly(stranger, "pg-foreign", 500)
        .await;

    let report = theatre.reconcile().await;

    let id = &report.summary.id;
    let read = theatre.world.service.reconciliation(id).await.unwrap();
    assert_eq!(read, Some(report));
}

#[tokio::test]
async fn a_period_that_cannot_be_is_refused_by_its_field() {
    let theatre = Theatre::open().await;
    let day = 24 * 3_600;
    for (from, to) in [
        (START, START),
        (START.plus_millis(1), START),
        (START.plus_secs(-31 * day - 1), START),
    ] {
        let refused = theatre.world.service.reconcile(Period { from, to }).await;
        assert!(
            matches!(refused, Err(Error::Period { field: "from", .. })),
            "{refused:?}"
        );
    }
}

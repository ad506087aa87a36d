//! Reconciliations that nobody asks for: each period once, and none left out.

use contract::{PaymentId, Timestamp, domain::PaymentStatus};
use messaging::ShutdownSwitch;
use payment::{Reconciler, reconcile::Error};
use toss_sandbox::{Fault, FaultScript, FaultTarget};

use super::{Theatre, counts, double::Double, kept, rule};
use crate::world::{Peer, START, World, settings};

#[tokio::test]
async fn on_schedule_each_period_begins_where_the_last_one_ended() {
    let mut theatre = Theatre::open().await;
    let reconciler = Reconciler::new(theatre.world.service.clone());
    let lag = |at: Timestamp| at.plus_secs(-120);

    let first = reconciler.reconcile_due().await.unwrap().expect("a first");
    assert_eq!(first.summary.to, lag(START));
    assert_eq!(first.summary.from, lag(START).plus_secs(-24 * 3_600));
    assert_eq!(reconciler.reconcile_due().await.unwrap(), None);

    // A person's reconciliation of another time changes nothing of the schedule.
    theatre.reconcile().await;
    theatre.paid(1).await;
    theatre.advance_secs(3_600);
    let silent = rule(FaultTarget::Transactions, Fault::DoThen500, Some(3));
    theatre.sandbox.set_faults(silent).unwrap();
    let failed = reconciler.reconcile_due().await;
    assert!(matches!(failed, Err(Error::Gateway { .. })), "{failed:?}");
    theatre.sandbox.set_faults(FaultScript::default()).unwrap();

    theatre.advance_secs(60);
    let second = reconciler.reconcile_due().await.unwrap().expect("a second");
    assert_eq!(second.summary.from, first.summary.to);
    assert_eq!(second.summary.to, lag(theatre.world.clock.now()));
    assert_eq!(second.summary.counts, counts(|it| it.matched = 1));

    // Nobody was there for longer than a period may be.
    theatre.advance_secs(40 * 24 * 3_600);
    let third = reconciler.reconcile_due().await.unwrap().expect("a third");
    assert_eq!(
        third.summary.from,
        third.summary.to.plus_secs(-31 * 24 * 3_600)
    );
}

#[tokio::test]
async fn a_clock_that_was_far_ahead_for_one_run_stops_no_later_one() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let run_at = |now| {
        let world = World::open_at(folder.path(), settings(peer.address), now);
        let reconciler = Reconciler::new(world.service.clone());
        async move { (reconciler.reconcile_due().await.unwrap(), world) }
    };
    let first = run_at(START).await.0.expect("a first");
    let ahead = START.plus_secs(20 * 24 * 3_600);
    assert!(run_at(ahead).await.0.is_some());

    let (next, world) = run_at(START.plus_secs(3_600)).await;
    let next = next.expect("the clock is right again");
    assert_eq!(next.summary.from, first.summary.to);
    let reconciler = Reconciler::new(world.service.clone());
    assert_eq!(reconciler.reconcile_due().await.unwrap(), None);
    world.clock.advance_millis(3_600_000);
    let third = reconciler.reconcile_due().await.unwrap().expect("a third");
    assert_eq!(third.summary.from, next.summary.to);
}

#[tokio::test]
async fn money_that_the_gateway_lists_only_after_its_period_was_compared_is_found() {
    let (folder, double) = (tempfile::tempdir().unwrap(), Double::start().await);
    let mut world = World::open(folder.path(), settings(double.address));
    let id = world.open_payment(1).await;
    let reconciler = Reconciler::new(world.service.clone());
    world.clock.advance_millis(200_000);
    let first = reconciler.reconcile_due().await.unwrap().expect("a first");
    let stranger = PaymentId(messaging::Random::seeded(99).uuid(START));
    let late = first.summary.to.plus_millis(-1);
    double.charge("pg-late", &id.to_string(), 7_000, late);
    double.charge("pg-foreign", &stranger.to_string(), 500, late);

    world.clock.advance_millis(3_600_000);
    let second = reconciler.reconcile_due().await.unwrap().expect("a second");
    world.drain().await;

    assert_eq!(second.summary.counts, counts(|it| it.settled = 1));
    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
}

#[tokio::test]
async fn a_schedule_that_is_switched_off_does_nothing() {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut never = settings(peer.address);
    never.reconcile_every_secs = 0;
    let world = World::open(folder.path(), never);
    let reconciler = Reconciler::new(world.service.clone());
    assert_eq!(reconciler.reconcile_due().await.unwrap(), None);
}

#[tokio::test]
async fn the_task_reconciles_by_its_clock_and_stops_when_told() {
    let theatre = Theatre::open().await;
    let (switch, shutdown) = ShutdownSwitch::new();
    let reconciler = Reconciler::new(theatre.world.service.clone());
    let mut committed = theatre.world.store.committed();
    let task = tokio::spawn(reconciler.run(shutdown));
    committed.changed().await.unwrap();
    assert_eq!(kept(&theatre.world).await, 1);
    theatre.advance_secs(3_600);
    committed.changed().await.unwrap();
    assert_eq!(kept(&theatre.world).await, 2);
    switch.stop();
    task.await.unwrap();
}

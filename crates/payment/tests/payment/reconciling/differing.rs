//! What an honest gateway never shows: a second charge, another amount, rows that nobody can read.

use contract::{PaymentId, domain::PaymentStatus};
use payment::{
    reconcile::DifferenceKind,
    record::{OrphanChargeRecord, Refund},
};
use tempfile::TempDir;

use super::{cancellation, counts, double::Double, only_difference, reconcile};
use crate::world::{Peer, START, World, input, settings, settled};

/// Paid at an honest gateway; from then on another one is asked.
async fn paid_then_told_by(double: &Double) -> (World, PaymentId, TempDir) {
    let (folder, peer) = (tempfile::tempdir().unwrap(), Peer::start().await);
    let mut world = World::open(folder.path(), settings(peer.address));
    let id = world.open_payment(1).await;
    assert!(settled(world.confirm(input(id)).await).succeeded);
    world.drain().await;
    drop(world);
    let world = World::open(folder.path(), settings(double.address));
    (world, id, folder)
}

#[tokio::test]
async fn a_second_charge_of_an_order_is_found_and_goes_back() {
    let double = Double::start().await;
    let (mut world, id, _folder) = paid_then_told_by(&double).await;
    let order = id.to_string();
    double.charge(&format!("pg-{id}"), &order, 7_000, START);
    double.charge("pg-second", &order, 7_000, START);

    let report = reconcile(&mut world).await;
    assert_eq!(report.summary.counts, counts(|it| it.settled = 1));
    assert_eq!(world.settle().await, 1, "the second charge");

    assert_eq!(double.balance("pg-second"), 0);
    assert_eq!(double.balance(&format!("pg-{id}")), 7_000);
    assert_eq!(world.status(id).await, PaymentStatus::Succeeded);
    let orphan: Option<OrphanChargeRecord> = world.store.load("pg-second").await.unwrap();
    assert_eq!(orphan.map(|it| it.refund), Some(Refund::Done));
    let again = reconcile(&mut world).await;
    assert_eq!(again.summary.counts, counts(|it| it.matched = 1));
}

#[tokio::test]
async fn another_amount_than_was_asked_is_for_a_person() {
    let double = Double::start().await;
    let (mut world, id, _folder) = paid_then_told_by(&double).await;
    double.charge(&format!("pg-{id}"), &id.to_string(), 6_999, START);

    let report = reconcile(&mut world).await;

    let difference = only_difference(&report, DifferenceKind::DifferentAmount);
    assert_eq!(difference.amount_ours, Some(7_000));
    assert_eq!(difference.amount_theirs, Some(6_999));
    assert_eq!(
        double.balance(&format!("pg-{id}")),
        6_999,
        "nobody touched it"
    );
}

#[tokio::test]
async fn a_row_that_cannot_be_read_hides_nothing_and_is_told() {
    let double = Double::start().await;
    let (mut world, id, _folder) = paid_then_told_by(&double).await;
    double.list_nonsense();
    double.charge(&format!("pg-{id}"), &id.to_string(), 7_000, START);

    let report = reconcile(&mut world).await;

    let expected = counts(|it| (it.matched, it.unreadable) = (1, 1));
    assert_eq!(report.summary.counts, expected);
    assert!(!report.is_clean());
}

#[tokio::test]
async fn a_parked_refund_is_listed_until_somebody_gives_the_money_back() {
    let double = Double::start().await;
    let (mut world, id, _folder) = paid_then_told_by(&double).await;
    // The double knows of no such charge yet, and refuses.
    world.send("cancel", &cancellation(id)).await;
    assert_eq!(world.settle().await, 1);
    let key = format!("pg-{id}");
    double.charge(&key, &id.to_string(), 7_000, START);

    let report = reconcile(&mut world).await;
    let difference = only_difference(&report, DifferenceKind::ParkedRefund);
    assert_eq!(difference.note.as_deref(), Some("NOT_FOUND_PAYMENT"));

    double.list(&key, &id.to_string(), "CANCELED", -7_000, START);
    double.show(&key, &id.to_string(), "CANCELED", 7_000, 0);
    let report = reconcile(&mut world).await;
    assert_eq!(report.summary.counts, counts(|it| it.settled = 1));
    assert_eq!(world.status(id).await, PaymentStatus::Cancelled);
}

//! How a refund ends that the gateway does not simply do: what is unknown stays unknown, and what lasts is told.

use contract::{
    PaymentId,
    payment::{CancelRequest, CancelResponse, ConfirmedRequest},
};
use payment::{
    reconcile::DifferenceKind,
    record::{OrphanChargeRecord, Refund},
};
use toss::protocol::RefundAccount;
use toss_sandbox::{Fault, FaultScript, FaultTarget};

use crate::reconciling::{Theatre, rule};
use crate::world::creation;

const REFUSED: &str = "INVALID_REFUND_ACCOUNT_INFO";
const NEVER_HEARD_OF: &str = "REFUND_POLICY_2027";

fn refuse(code: &str) -> Fault {
    Fault::Refuse {
        code: code.to_owned(),
        status: None,
    }
}

/// Strikes cancellations with one fault after the other, once each.
fn in_turn(faults: Vec<Fault>) -> FaultScript {
    let rules = faults
        .into_iter()
        .map(|it| rule(FaultTarget::Cancel, it, Some(1)));
    FaultScript {
        seed: 1,
        rules: rules.flat_map(|script| script.rules).collect(),
    }
}

fn cancellation(payment_id: PaymentId) -> CancelRequest {
    CancelRequest {
        payment_id,
        reason: "sold out".to_owned(),
        saga_id: None,
    }
}

fn by_saga(payment_id: PaymentId) -> CancelRequest {
    CancelRequest {
        saga_id: Some(creation(9).saga_id),
        ..cancellation(payment_id)
    }
}

/// A payment whose buyer has named an account, so that a refund may be asked for twice.
async fn paid_with_account(theatre: &mut Theatre) -> PaymentId {
    let id = theatre.paid(1).await;
    let account = RefundAccount {
        bank: "20".to_owned(),
        account_number: "456".to_owned(),
        holder_name: "Lee".to_owned(),
    };
    let world = &theatre.world;
    world
        .service
        .set_refund_account(id, &account, None)
        .await
        .unwrap();
    id
}

async fn refund(theatre: &Theatre, id: PaymentId) -> (Refund, Option<String>) {
    let payment = theatre.world.payment(id).await;
    (payment.refund, payment.refund_code)
}

fn answers(theatre: &Theatre) -> Vec<bool> {
    let told: Vec<CancelResponse> = theatre.world.published(&["payment.cancel.response"]);
    told.iter().map(|it| it.succeed).collect()
}

async fn assert_refunded(theatre: &mut Theatre, id: PaymentId) {
    theatre.sandbox.set_faults(FaultScript::default()).unwrap();
    assert_eq!(theatre.world.settle().await, 1);
    assert_eq!(refund(theatre, id).await, (Refund::Done, None));
    let charge = theatre.peer.charge(id).await.expect("a charge");
    assert_eq!(charge.balance_amount, 0);
}

#[tokio::test]
async fn a_second_question_without_an_answer_leaves_the_refund_open() {
    for request in [cancellation, by_saga] {
        let mut theatre = Theatre::open().await;
        let id = paid_with_account(&mut theatre).await;
        let script = in_turn(vec![refuse(REFUSED), Fault::DropBefore]);
        theatre.sandbox.set_faults(script).unwrap();

        theatre.world.send("cancel", &request(id)).await;
        assert_eq!(theatre.world.settle().await, 0);
        assert_eq!(refund(&theatre, id).await.0, Refund::Requested);
        assert!(answers(&theatre).is_empty(), "nobody can say yet");

        theatre.advance_secs(120);
        assert_refunded(&mut theatre, id).await;
    }
}

#[tokio::test]
async fn a_second_question_that_is_refused_decides_by_its_own_code() {
    let mut theatre = Theatre::open().await;
    let id = paid_with_account(&mut theatre).await;
    let script = in_turn(vec![refuse(REFUSED), refuse("NOT_CANCELABLE_PAYMENT")]);
    theatre.sandbox.set_faults(script).unwrap();

    theatre.world.send("cancel", &cancellation(id)).await;
    assert_eq!(theatre.world.settle().await, 1);

    let code = Some("NOT_CANCELABLE_PAYMENT".to_owned());
    assert_eq!(refund(&theatre, id).await, (Refund::Parked, code));
}

#[tokio::test]
async fn a_bank_that_is_closed_is_not_asked_without_its_account() {
    let mut theatre = Theatre::open().await;
    let id = paid_with_account(&mut theatre).await;
    let script = in_turn(vec![refuse("NOT_AVAILABLE_BANK"), refuse(REFUSED)]);
    theatre.sandbox.set_faults(script).unwrap();

    theatre.world.send("cancel", &cancellation(id)).await;
    assert_eq!(theatre.world.settle().await, 0);

    let code = Some("NOT_AVAILABLE_BANK".to_owned());
    assert_eq!(refund(&theatre, id).await, (Refund::Requested, code));
}

#[tokio::test]
async fn a_refusal_decides_only_once_no_earlier_request_can_be_under_way() {
    let mut theatre = Theatre::open().await;
    let id = theatre.paid(1).await;
    let mut script = in_turn(vec![Fault::DropBefore]);
    let refusal = rule(FaultTarget::Cancel, refuse("NOT_CANCELABLE_PAYMENT"), None);
    script.rules.extend(refusal.rules);
    theatre.sandbox.set_faults(script).unwrap();

    theatre.world.send("cancel", &by_saga(id)).await;
    assert_eq!(theatre.world.settle().await, 0);
    theatre.advance_secs(5);
    assert_eq!(theatre.world.settle().await, 0);
    let code = Some("NOT_CANCELABLE_PAYMENT".to_owned());
    assert_eq!(refund(&theatre, id).await, (Refund::Requested, code));
    assert!(answers(&theatre).is_empty(), "nobody can say yet");

    theatre.advance_secs(60);
    assert_eq!(theatre.world.settle().await, 1);
    assert_eq!(refund(&theatre, id).await.0, Refund::None);
    assert_eq!(answers(&theatre), [false]);
}

#[tokio::test]
async fn a_refund_that_is_never_done_is_told_and_parked_with_its_last_code() {
    let mut theatre = Theatre::open().await;
    let id = theatre.paid(1).await;
    let never = rule(FaultTarget::Cancel, refuse(NEVER_HEARD_OF), None);
    theatre.sandbox.set_faults(never).unwrap();
    theatre.world.send("cancel", &by_saga(id)).await;
    assert_eq!(theatre.world.settle().await, 0);
    let code = Some(NEVER_HEARD_OF.to_owned());
    assert_eq!(
        refund(&theatre, id).await,
        (Refund::Requested, code.clone())
    );
    let version = theatre.world.payment(id).await.version;

    // It is told once, and asked for on.
    theatre.advance_secs(600);
    assert_eq!(theatre.world.settle().await, 0);
    assert_eq!(theatre.world.payment(id).await.version, version);
    let overdue = "payment_refunds_overdue 0";
    assert!(theatre.world.metrics().contains(overdue));
    assert!(theatre.reconcile().await.is_clean());

    // After two hours operators are told.
    theatre.advance_secs(7_200);
    assert_eq!(theatre.world.settle().await, 0);
    let overdue = "payment_refunds_overdue 1";
    assert!(theatre.world.metrics().contains(overdue));
    assert_told(&mut theatre, NEVER_HEARD_OF).await;

    // After a day it is parked, and the saga still waits: the money may be back.
    theatre.advance_secs(24 * 3_600);
    assert_eq!(theatre.world.settle().await, 1);
    assert_eq!(refund(&theatre, id).await, (Refund::Parked, code));
    theatre.world.send("cancel-again", &by_saga(id)).await;
    assert!(answers(&theatre).is_empty(), "nobody can say yet");
    theatre.advance_secs(600);
    assert_told(&mut theatre, NEVER_HEARD_OF).await;

    theatre.world.service.resume_refund(id).await.unwrap();
    assert_refunded(&mut theatre, id).await;
    assert_eq!(answers(&theatre), [true]);
}

/// The reconciliation of the last minute lists the one refund that stands still, whenever it was asked for.
async fn assert_told(theatre: &mut Theatre, code: &str) {
    let report = theatre.reconcile_last_secs(60).await;
    assert_eq!(report.summary.counts.parked_refunds, 1, "{report:?}");
    let difference = &report.differences[0];
    assert_eq!(difference.kind, DifferenceKind::ParkedRefund);
    let note = difference.note.as_deref().unwrap_or_default();
    assert!(note.contains(code), "{note}");
}

#[tokio::test]
async fn a_gateway_that_is_silent_for_days_parks_nothing_and_is_told() {
    let mut theatre = Theatre::open().await;
    let id = theatre.paid(1).await;
    let silence = rule(FaultTarget::Cancel, Fault::DropBefore, None);
    theatre.sandbox.set_faults(silence).unwrap();
    theatre.world.send("cancel", &cancellation(id)).await;
    for _ in 0..3 {
        theatre.advance_secs(24 * 3_600);
        assert_eq!(theatre.world.settle().await, 0);
        assert_eq!(refund(&theatre, id).await, (Refund::Requested, None));
        assert_told(&mut theatre, "requested at").await;
    }

    theatre.advance_secs(120);
    assert_refunded(&mut theatre, id).await;
}

#[tokio::test]
async fn a_stray_charge_that_never_goes_back_is_told_and_parked_with_its_last_code() {
    let mut theatre = Theatre::open().await;
    let id = theatre.paid(1).await;
    let other = theatre.world.open_payment(2).await;
    theatre
        .peer
        .charge_directly(other, "pg-second", 7_000)
        .await;
    let second = ConfirmedRequest {
        payment_id: id,
        pg_payment_id: "pg-second".to_owned(),
        confirmed: true,
        attempt: Some(1),
        decline_code: None,
    };
    let never = rule(FaultTarget::Cancel, refuse(NEVER_HEARD_OF), None);
    theatre.sandbox.set_faults(never).unwrap();
    theatre.world.send("second", &second).await;
    assert_eq!(theatre.world.settle().await, 0);
    theatre.advance_secs(7_201);
    assert_eq!(theatre.world.settle().await, 0);
    let overdue = "payment_refunds_overdue 1";
    assert!(theatre.world.metrics().contains(overdue));
    assert_told(&mut theatre, NEVER_HEARD_OF).await;

    theatre.advance_secs(24 * 3_600);
    assert_eq!(theatre.world.settle().await, 1);
    let orphan: Option<OrphanChargeRecord> = theatre.world.store.load("pg-second").await.unwrap();
    let orphan = orphan.expect("a stray");
    assert_eq!(orphan.refund, Refund::Parked);
    assert_eq!(orphan.refund_code.as_deref(), Some(NEVER_HEARD_OF));
    theatre.advance_secs(600);
    assert_told(&mut theatre, NEVER_HEARD_OF).await;
}

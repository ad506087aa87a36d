//! How a refund ends that the gateway does not simply do: what is unknown stays unknown, and what lasts is told.

use contract::{PaymentId, payment::CancelResponse};
use payment::{
    Settler,
    reconcile::DifferenceKind,
    record::{OrphanChargeRecord, Refund},
};
use toss::protocol::RefundAccount;
use toss_sandbox::{Fault, FaultScript, FaultTarget};

use crate::reconciling::{SandboxHarness, rule};
use crate::support::{cancellation, cancellation_by_saga, second_charge};

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

/// The first cancellation gets no answer, and every later one is refused.
fn lost_then_refused() -> FaultScript {
    let mut script = in_turn(vec![Fault::DropBefore]);
    let refusal = rule(FaultTarget::Cancel, refuse("NOT_CANCELABLE_PAYMENT"), None);
    script.rules.extend(refusal.rules);
    script
}

/// A payment whose buyer has named an account, so that a refund may be asked for twice.
async fn paid_with_account(harness: &mut SandboxHarness) -> PaymentId {
    let id = harness.paid(1).await;
    let account = RefundAccount {
        bank: "20".to_owned(),
        account_number: "456".to_owned(),
        holder_name: "Lee".to_owned(),
    };
    let app = &harness.app;
    app.service
        .set_refund_account(id, &account, None)
        .await
        .unwrap();
    id
}

async fn refund(harness: &SandboxHarness, id: PaymentId) -> (Refund, Option<String>) {
    let payment = harness.app.payment(id).await;
    (payment.refund, payment.refund_code)
}

fn answers(harness: &SandboxHarness) -> Vec<bool> {
    let told: Vec<CancelResponse> = harness.app.published(&["payment.cancel.response"]);
    told.iter().map(|it| it.succeed).collect()
}

async fn assert_refunded(harness: &mut SandboxHarness, id: PaymentId) {
    harness.sandbox.set_faults(FaultScript::default()).unwrap();
    assert_eq!(harness.app.settle().await, 1);
    assert_eq!(refund(harness, id).await, (Refund::Done, None));
    let charge = harness.gateway.charge(id).await.expect("a charge");
    assert_eq!(charge.balance_amount, 0);
}

#[tokio::test]
async fn a_second_request_without_an_answer_leaves_the_refund_open() {
    for request in [cancellation, cancellation_by_saga] {
        let mut harness = SandboxHarness::open().await;
        let id = paid_with_account(&mut harness).await;
        let script = in_turn(vec![refuse(REFUSED), Fault::DropBefore]);
        harness.sandbox.set_faults(script).unwrap();

        harness.app.send("cancel", &request(id)).await;
        assert_eq!(harness.app.settle().await, 0);
        assert_eq!(refund(&harness, id).await.0, Refund::Requested);
        assert!(answers(&harness).is_empty(), "it is not decided yet");

        harness.advance_secs(120);
        assert_refunded(&mut harness, id).await;
    }
}

#[tokio::test]
async fn a_second_request_that_is_refused_decides_with_its_own_code() {
    let mut harness = SandboxHarness::open().await;
    let id = paid_with_account(&mut harness).await;
    let script = in_turn(vec![refuse(REFUSED), refuse("NOT_CANCELABLE_PAYMENT")]);
    harness.sandbox.set_faults(script).unwrap();

    harness.app.send("cancel", &cancellation(id)).await;
    assert_eq!(harness.app.settle().await, 1);

    let code = Some("NOT_CANCELABLE_PAYMENT".to_owned());
    assert_eq!(refund(&harness, id).await, (Refund::Parked, code));
}

#[tokio::test]
async fn a_refund_to_a_closed_bank_is_not_repeated_without_the_account() {
    let mut harness = SandboxHarness::open().await;
    let id = paid_with_account(&mut harness).await;
    let script = in_turn(vec![refuse("NOT_AVAILABLE_BANK"), refuse(REFUSED)]);
    harness.sandbox.set_faults(script).unwrap();

    harness.app.send("cancel", &cancellation(id)).await;
    assert_eq!(harness.app.settle().await, 0);

    let code = Some("NOT_AVAILABLE_BANK".to_owned());
    assert_eq!(refund(&harness, id).await, (Refund::Requested, code));
}

#[tokio::test]
async fn a_refusal_decides_only_when_no_earlier_request_can_be_in_flight() {
    let mut harness = SandboxHarness::open().await;
    let id = harness.paid(1).await;
    harness.sandbox.set_faults(lost_then_refused()).unwrap();

    harness.app.send("cancel", &cancellation_by_saga(id)).await;
    assert_eq!(harness.app.settle().await, 0);
    harness.advance_secs(5);
    assert_eq!(harness.app.settle().await, 0);
    let code = Some("NOT_CANCELABLE_PAYMENT".to_owned());
    assert_eq!(refund(&harness, id).await, (Refund::Requested, code));
    assert!(answers(&harness).is_empty(), "it is not decided yet");

    harness.advance_secs(60);
    assert_eq!(harness.app.settle().await, 1);
    assert_eq!(refund(&harness, id).await.0, Refund::None);
    assert_eq!(answers(&harness), [false]);
}

#[tokio::test]
async fn a_refusal_right_after_a_change_of_settlers_does_not_decide() {
    let mut harness = SandboxHarness::open().await;
    let id = harness.paid(1).await;
    let refusal = rule(FaultTarget::Cancel, refuse("NOT_CANCELABLE_PAYMENT"), None);
    harness.sandbox.set_faults(refusal).unwrap();
    harness.app.send("cancel", &cancellation(id)).await;

    // The settler before may have sent a request.
    harness.advance_secs(5);
    let (_, lease) = harness.app.change_leaders().await;
    let settler = Settler::new(harness.app.service.fenced_by(Some(lease.fence())));
    assert_eq!(settler.settle_due().await, Ok(0));
    assert_eq!(refund(&harness, id).await.0, Refund::Requested);

    harness.advance_secs(60);
    assert_eq!(settler.settle_due().await, Ok(1));
    assert_eq!(refund(&harness, id).await.0, Refund::Parked);
}

/// What a process remembers of a request of its own says nothing about the settlers since.
#[tokio::test]
async fn a_settler_that_leads_again_waits_for_the_requests_of_the_one_between() {
    let mut harness = SandboxHarness::open().await;
    let id = harness.paid(1).await;
    harness.sandbox.set_faults(lost_then_refused()).unwrap();
    harness.app.send("cancel", &cancellation(id)).await;
    assert_eq!(harness.app.settle().await, 0);

    harness.advance_secs(120);
    let (_, lease) = harness.app.change_leaders().await;
    let settler = Settler::new(harness.app.service.fenced_by(Some(lease.fence())));
    assert_eq!(settler.settle_due().await, Ok(0));
    assert_eq!(refund(&harness, id).await.0, Refund::Requested);
}

#[tokio::test]
async fn a_refund_that_is_never_done_is_reported_and_parked_with_its_last_code() {
    let mut harness = SandboxHarness::open().await;
    let id = harness.paid(1).await;
    let never = rule(FaultTarget::Cancel, refuse(NEVER_HEARD_OF), None);
    harness.sandbox.set_faults(never).unwrap();
    harness.app.send("cancel", &cancellation_by_saga(id)).await;
    assert_eq!(harness.app.settle().await, 0);
    let code = Some(NEVER_HEARD_OF.to_owned());
    assert_eq!(
        refund(&harness, id).await,
        (Refund::Requested, code.clone())
    );
    let version = harness.app.payment(id).await.version;

    // It is told once, and asked for on.
    harness.advance_secs(600);
    assert_eq!(harness.app.settle().await, 0);
    assert_eq!(harness.app.payment(id).await.version, version);
    let overdue = "payment_refunds_overdue 0";
    assert!(harness.app.metrics().contains(overdue));
    assert!(harness.reconcile().await.is_clean());

    // After two hours operators are told.
    harness.advance_secs(7_200);
    assert_eq!(harness.app.settle().await, 0);
    let overdue = "payment_refunds_overdue 1";
    assert!(harness.app.metrics().contains(overdue));
    assert_reported(&mut harness, NEVER_HEARD_OF).await;

    // After a day it is parked, and the saga still waits: the money may be back.
    harness.advance_secs(24 * 3_600);
    assert_eq!(harness.app.settle().await, 1);
    assert_eq!(refund(&harness, id).await, (Refund::Parked, code));
    harness
        .app
        .send("cancel-again", &cancellation_by_saga(id))
        .await;
    assert!(answers(&harness).is_empty(), "it is not decided yet");
    harness.advance_secs(600);
    assert_reported(&mut harness, NEVER_HEARD_OF).await;

    harness.app.service.resume_refund(id).await.unwrap();
    assert_refunded(&mut harness, id).await;
    assert_eq!(answers(&harness), [true]);
}

/// The reconciliation of the last minute lists the one refund that stands still, whenever it was asked for.
async fn assert_reported(harness: &mut SandboxHarness, code: &str) {
    let report = harness.reconcile_last_secs(60).await;
    assert_eq!(report.summary.counts.parked_refunds, 1, "{report:?}");
    let difference = &report.differences[0];
    assert_eq!(difference.kind, DifferenceKind::ParkedRefund);
    let note = difference.note.as_deref().unwrap_or_default();
    assert!(note.contains(code), "{note}");
}

#[tokio::test]
async fn a_gateway_that_is_silent_for_days_parks_nothing_and_is_reported() {
    let mut harness = SandboxHarness::open().await;
    let id = harness.paid(1).await;
    let silence = rule(FaultTarget::Cancel, Fault::DropBefore, None);
    harness.sandbox.set_faults(silence).unwrap();
    harness.app.send("cancel", &cancellation(id)).await;
    for _ in 0..3 {
        harness.advance_secs(24 * 3_600);
        assert_eq!(harness.app.settle().await, 0);
        assert_eq!(refund(&harness, id).await, (Refund::Requested, None));
        assert_reported(&mut harness, "requested at").await;
    }

    harness.advance_secs(120);
    assert_refunded(&mut harness, id).await;
}

#[tokio::test]
async fn an_orphan_charge_that_is_never_refunded_is_reported_and_parked_with_its_last_code() {
    let mut harness = SandboxHarness::open().await;
    let id = harness.paid(1).await;
    let other = harness.app.open_payment(2).await;
    harness
        .gateway
        .charge_directly(other, "pg-second", 7_000)
        .await;
    let second = second_charge(id);
    let never = rule(FaultTarget::Cancel, refuse(NEVER_HEARD_OF), None);
    harness.sandbox.set_faults(never).unwrap();
    harness.app.send("second", &second).await;
    assert_eq!(harness.app.settle().await, 0);
    harness.advance_secs(7_201);
    assert_eq!(harness.app.settle().await, 0);
    let overdue = "payment_refunds_overdue 1";
    assert!(harness.app.metrics().contains(overdue));
    assert_reported(&mut harness, NEVER_HEARD_OF).await;

    harness.advance_secs(24 * 3_600);
    assert_eq!(harness.app.settle().await, 1);
    let orphan: Option<OrphanChargeRecord> = harness.app.store.load("pg-second").await.unwrap();
    let orphan = orphan.expect("a stray");
    assert_eq!(orphan.refund, Refund::Parked);
    assert_eq!(orphan.refund_code.as_deref(), Some(NEVER_HEARD_OF));
    harness.advance_secs(600);
    assert_reported(&mut harness, NEVER_HEARD_OF).await;
}

//! Whatever happened between the service and its gateway: after a reconciliation and the settler, the two agree.

use contract::domain::PaymentStatus;
use messaging::{Find, Random, Record};
use payment::record::PaymentRecord;
use toss_sandbox::{Fault, FaultRule, FaultScript, FaultTarget};

use super::SandboxHarness;
use crate::support::{cancellation, input};

/// Histories tried; each is named by its seed.
const SEEDS: u64 = 12;
const PAYMENTS: u64 = 8;

fn faults(seed: u64) -> FaultScript {
    let rule = |on, per_mille, fault| FaultRule {
        on,
        order_id: None,
        payment_key: None,
        skip: None,
        times: None,
        per_mille: Some(per_mille),
        fault,
    };
    let refuse = |code: &str| Fault::Refuse {
        code: code.to_owned(),
        status: None,
    };
    FaultScript {
        seed,
        rules: vec![
            rule(FaultTarget::Confirm, 150, refuse("REJECT_CARD_PAYMENT")),
            rule(FaultTarget::Confirm, 150, Fault::DoThen500),
            rule(FaultTarget::Confirm, 150, Fault::DoThenDrop),
            rule(FaultTarget::Confirm, 100, Fault::DropBefore),
            rule(FaultTarget::Confirm, 100, Fault::LieProviderError),
            rule(FaultTarget::Confirm, 100, Fault::TruncatedBody),
            rule(FaultTarget::Cancel, 200, Fault::DoThen500),
            rule(FaultTarget::Cancel, 200, Fault::DropBefore),
            rule(FaultTarget::Lookup, 200, Fault::DoThen500),
        ],
    }
}

async fn all(harness: &SandboxHarness) -> Vec<PaymentRecord> {
    let find = Find::all(PaymentRecord::TABLE, 100);
    harness.app.store.find(find).await.unwrap()
}

/// One history with everything in it that a seed draws.
async fn play(harness: &mut SandboxHarness, seed: u64) {
    harness.sandbox.set_faults(faults(seed)).unwrap();
    let random = Random::seeded(seed);
    for number in 1..=PAYMENTS {
        let id = harness.app.open_payment(number).await;
        for _ in 0..=random.below(3) {
            let _ = harness.app.confirm(input(id)).await;
            harness.app.drain().await;
        }
        match random.below(4) {
            0 => {
                let message = format!("cancel-{number}");
                harness.app.send(&message, &cancellation(id)).await;
            }
            1 => _ = harness.app.settle().await,
            2 => drop(harness.reconcile().await),
            _ => harness.advance_secs(5),
        }
    }
}

#[tokio::test]
async fn after_a_reconciliation_the_gateway_holds_the_sum_of_the_paid_payments() {
    for seed in 1..=SEEDS {
        let mut harness = SandboxHarness::open().await;
        play(&mut harness, seed).await;

        // The gateway is itself again.
        harness.sandbox.set_faults(FaultScript::default()).unwrap();
        harness.reconcile().await;
        let is_open = |it: &PaymentRecord| {
            it.status == PaymentStatus::Confirming
                || it.refund == payment::record::Refund::Requested
        };
        let mut looks = 0;
        while all(&harness).await.iter().any(is_open) {
            harness.advance_secs(60);
            harness.app.settle().await;
            looks += 1;
            assert!(looks < 40, "seed {seed}: it never comes to rest");
        }

        let report = harness.reconcile().await;
        assert!(report.is_clean(), "seed {seed}: {report:?}");
        assert_eq!(report.summary.counts.settled, 0, "seed {seed}: {report:?}");
        let paid = all(&harness).await;
        let paid = paid
            .iter()
            .filter(|it| it.status == PaymentStatus::Succeeded);
        let ours: i64 = paid.map(|it| it.final_amount.get()).sum();
        let books = harness.sandbox.totals().unwrap();
        assert_eq!(books.held, ours, "seed {seed}: {books:?}");
        assert_eq!(books.orders_charged_twice, [""; 0], "seed {seed}");
    }
}

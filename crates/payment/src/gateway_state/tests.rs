//! A table of every status of a payment against every status of a charge.

use contract::{Money, PaymentId, SagaId};
use messaging::Random;

use super::*;
use crate::record::{
    OrphanChargeRecord,
    sample::{NOW, payment},
};
use PaymentStatus::{Cancelled, Confirming, Created, Deleted, Failed, Succeeded};

/// The charge of `payment`, of 700, of which `balance` is left.
fn charge(payment: &PaymentRecord, status: ChargeStatus, balance: i64) -> Charge {
    Charge {
        payment_key: "pg-1".to_owned(),
        order_id: payment.order_id(),
        status,
        total_amount: 700,
        balance_amount: balance,
        secret: None,
        virtual_account: None,
    }
}

fn state(status: PaymentStatus, refund: Refund, at: ChargeStatus, balance: i64) -> GatewayState {
    let payment = payment(status, refund);
    compare(&payment, &charge(&payment, at, balance))
}

fn approved() -> GatewayState {
    GatewayState::Outcome(AttemptOutcome::Approved {
        pg_payment_id: "pg-1".to_owned(),
    })
}

#[test]
fn every_charge_is_an_outcome_in_sync_or_an_orphan() {
    let state = |status| state(status, Refund::None, ChargeStatus::Done, 700);
    for status in [Created, Confirming, Failed, Deleted] {
        assert_eq!(state(status), approved(), "{status:?}");
    }
    assert_eq!(state(Succeeded), GatewayState::InSync);
    assert_eq!(state(Cancelled), GatewayState::Orphan);
}

#[test]
fn a_second_charge_of_an_order_is_an_orphan_whatever_its_amount() {
    let payment = payment(Succeeded, Refund::None);
    for amount in [700, 1] {
        let second = Charge {
            payment_key: "pg-2".to_owned(),
            total_amount: amount,
            ..charge(&payment, ChargeStatus::Done, amount)
        };
        assert_eq!(compare(&payment, &second), GatewayState::Orphan);
    }
}

#[test]
fn a_charge_of_another_amount_is_never_an_approval() {
    for status in [Created, Confirming, Failed, Deleted] {
        let payment = payment(status, Refund::None);
        let wrong = Charge {
            total_amount: 699,
            ..charge(&payment, ChargeStatus::Done, 699)
        };
        assert_eq!(compare(&payment, &wrong), GatewayState::WrongAmount);
    }
}

#[test]
fn a_refund_made_by_any_side_is_detected() {
    let canceled = |status, refund| state(status, refund, ChargeStatus::Canceled, 0);
    assert_eq!(
        canceled(Succeeded, Refund::None),
        GatewayState::CancelledAtGateway
    );
    assert_eq!(
        canceled(Succeeded, Refund::Requested),
        GatewayState::Refunded
    );
    assert_eq!(canceled(Succeeded, Refund::Parked), GatewayState::Refunded);
    assert_eq!(canceled(Cancelled, Refund::Done), GatewayState::InSync);
    assert!(matches!(
        canceled(Confirming, Refund::None),
        GatewayState::Outcome(AttemptOutcome::Declined { .. })
    ));
}

#[test]
fn a_deposit_is_awaited_and_its_reversal_is_detected() {
    let waiting = |status, refund| state(status, refund, ChargeStatus::WaitingForDeposit, 700);
    assert_eq!(
        waiting(Confirming, Refund::None),
        GatewayState::AwaitingDeposit
    );
    assert_eq!(
        waiting(Succeeded, Refund::None),
        GatewayState::DepositReversed
    );
    assert_eq!(waiting(Succeeded, Refund::Requested), GatewayState::InSync);
    assert_eq!(waiting(Created, Refund::None), GatewayState::InSync);
}

#[test]
fn an_account_that_was_opened_after_its_attempt_was_given_up_is_closed() {
    for status in [Failed, Deleted, Cancelled] {
        let late = state(status, Refund::None, ChargeStatus::WaitingForDeposit, 700);
        assert_eq!(late, GatewayState::Orphan, "{status:?}");
    }
}

#[test]
fn an_end_without_money_declines_an_open_attempt_and_never_undoes_a_payment() {
    for end in [ChargeStatus::Aborted, ChargeStatus::Expired] {
        let declined = GatewayState::Outcome(AttemptOutcome::Declined {
            code: end.as_str().to_owned(),
        });
        assert_eq!(state(Confirming, Refund::None, end.clone(), 0), declined);
        assert!(matches!(
            state(Succeeded, Refund::None, end.clone(), 0),
            GatewayState::Mismatch(_)
        ));
        for status in [Created, Failed, Cancelled, Deleted] {
            let agrees = state(status, Refund::None, end.clone(), 0);
            assert_eq!(agrees, GatewayState::InSync, "{status:?}");
        }
    }
}

#[test]
fn an_unfinished_charge_leaves_an_attempt_open() {
    for status in [ChargeStatus::Ready, ChargeStatus::InProgress] {
        assert_eq!(
            state(Confirming, Refund::None, status.clone(), 0),
            GatewayState::Pending
        );
        assert!(matches!(
            state(Succeeded, Refund::None, status, 0),
            GatewayState::Mismatch(_)
        ));
    }
}

#[test]
fn what_cannot_be_judged_is_a_mismatch() {
    let partly = state(Succeeded, Refund::None, ChargeStatus::PartialCanceled, 300);
    assert!(matches!(partly, GatewayState::Mismatch(_)));
    let unknown = ChargeStatus::Other("NEW".to_owned());
    let unknown = state(Confirming, Refund::None, unknown, 700);
    assert!(matches!(unknown, GatewayState::Mismatch(_)));
    let payment = payment(Confirming, Refund::None);
    let foreign = Charge {
        order_id: "another-order".to_owned(),
        ..charge(&payment, ChargeStatus::Done, 700)
    };
    assert_eq!(compare(&payment, &foreign), GatewayState::OtherOrder);
}

/// As a record of an earlier version of the program, which kept what the caller called it.
#[test]
fn a_free_payment_has_no_charge() {
    let mut free = payment(Succeeded, Refund::None);
    free.final_amount = Money::ZERO;
    let charged = charge(&free, ChargeStatus::Done, 700);
    assert_eq!(compare(&free, &charged), GatewayState::Orphan);
    let amount = Money::new(700).unwrap();
    let orphan = OrphanChargeRecord::found(free.payment_id, "pg-1", amount, "beside it", NOW);
    assert!(!free.keeps(&orphan) && !free.owns(&orphan));
}

#[test]
fn an_orphan_charge_belongs_to_its_own_payment_alone() {
    let paid = payment(Succeeded, Refund::None);
    let found = |payment_id| {
        let amount = Money::new(700).unwrap();
        OrphanChargeRecord::found(payment_id, "pg-second", amount, "beside it", NOW)
    };
    let other = PaymentId::of_saga(SagaId(Random::System.uuid(NOW)));
    assert!(paid.owns(&found(paid.payment_id)) && !paid.owns(&found(other)));
}

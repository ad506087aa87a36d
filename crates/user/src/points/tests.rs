//! Each request in each state of a hold; [`histories`]: any history with duplicates and reorders.

mod histories;

use super::*;
use crate::{
    ledger::{self, LedgerEntry},
    model::Status,
};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const KIM: UserId = UserId(1);

fn points(amount: i64) -> Points {
    Points::new(amount).unwrap()
}

fn saga(number: u128) -> SagaId {
    SagaId(uuid::Uuid::from_u128(number))
}

fn request(point: i64) -> HoldRequest {
    HoldRequest {
        saga_id: saga(1),
        user_id: KIM,
        point: points(point),
    }
}

fn kim(balance: i64) -> Option<User> {
    let user = User::new(KIM, "Kim".to_owned(), Status::Active, NOW);
    Some(User {
        balance: points(balance),
        version: 1,
        ..user
    })
}

fn hold(state: HoldState, payment_version: i64) -> Option<Hold> {
    Some(Hold {
        version: 1,
        payment_version,
        ..Hold::new(request(300), state, NOW)
    })
}

fn payment(status: PaymentStatus, version: i64) -> PaymentUpdate {
    PaymentUpdate {
        user_id: KIM,
        status,
        version,
    }
}

/// The changed balance, hold state, and entry kind with its amount.
type Seen = (Option<i64>, Option<HoldState>, Option<(EntryKind, i64)>);

fn seen(change: &BalanceChange) -> Seen {
    (
        change.user.as_ref().map(|user| user.balance.get()),
        change.hold.as_ref().map(|hold| hold.state),
        change
            .entry
            .as_ref()
            .map(|entry| (entry.kind, entry.amount)),
    )
}

const NOTHING: Seen = (None, None, None);

#[test]
fn reserve_takes_points_once_and_repeats_the_current_state() {
    use HoldState::{Held, Refused, Restored, Used};
    let taken = (Some(200), Some(Held), Some((EntryKind::Reserved, -300)));
    let all = (Some(0), Some(Held), Some((EntryKind::Reserved, -300)));
    let table = [
        ("enough", kim(500), None, 300, (true, taken)),
        ("just enough", kim(300), None, 300, (true, all)),
        (
            "too little",
            kim(299),
            None,
            300,
            (false, (None, Some(Refused), None)),
        ),
        (
            "nothing asked",
            kim(0),
            None,
            0,
            (true, (None, Some(Held), None)),
        ),
        (
            "no user",
            None,
            None,
            300,
            (false, (None, Some(Refused), None)),
        ),
        (
            "no user, nothing asked",
            None,
            None,
            0,
            (false, (None, Some(Refused), None)),
        ),
        ("again", kim(200), hold(Held, 0), 300, (true, NOTHING)),
        ("again, paid", kim(200), hold(Used, 5), 300, (true, NOTHING)),
        (
            "again, richer",
            kim(500),
            hold(Refused, 0),
            300,
            (false, NOTHING),
        ),
        (
            "late, given back",
            kim(500),
            hold(Restored, 0),
            300,
            (false, NOTHING),
        ),
        (
            "late, tombstone",
            kim(500),
            hold(Restored, 0),
            299,
            (false, NOTHING),
        ),
    ];
    for (row, user, hold, point, expected) in table {
        let (reply, change) = reserve(request(point), user, hold, NOW).unwrap();
        assert_eq!((reply, seen(&change)), expected, "{row}");
    }
}

#[test]
fn restore_returns_the_held_amount_and_ignores_the_requested_one() {
    use HoldState::{Held, Refused, Restored, Used};
    let reply = |succeed, point| RestoreReply {
        succeed,
        point: points(point),
    };
    let restored = (Some(500), Some(Restored), Some((EntryKind::Restored, 300)));
    let same_for_both = [
        ("held", hold(Held, 0), (reply(true, 300), restored)),
        ("restored", hold(Restored, 0), (reply(true, 300), NOTHING)),
        ("refused", hold(Refused, 0), (reply(true, 0), NOTHING)),
        (
            "unknown",
            None,
            (reply(true, 0), (None, Some(Restored), None)),
        ),
    ];
    for reason in [RestoreReason::Unpaid, RestoreReason::Refunded] {
        for (row, hold, expected) in same_for_both.clone() {
            let (reply, change) = restore(request(9_999), reason, kim(200), hold, NOW).unwrap();
            assert_eq!((reply, seen(&change)), expected, "{row}, {reason:?}");
        }
    }
    let paid = |reason| {
        let (reply, change) =
            restore(request(9_999), reason, kim(200), hold(Used, 5), NOW).unwrap();
        (reply, seen(&change))
    };
    assert_eq!(paid(RestoreReason::Unpaid), (reply(false, 0), NOTHING));
    assert_eq!(paid(RestoreReason::Refunded), (reply(true, 300), restored));
}

#[test]
fn a_refund_and_a_cancelled_payment_restore_points_once_in_either_order() {
    let paid = || hold(HoldState::Used, 3);
    let cancelled = payment(PaymentStatus::Cancelled, 5);
    let saved = |change: &BalanceChange| (change.user.clone(), change.hold.clone());

    let (_, first) = restore(request(300), RestoreReason::Refunded, kim(200), paid(), NOW).unwrap();
    let (user, hold) = saved(&first);
    let second = apply_payment(cancelled, user, hold, NOW).unwrap();
    assert_eq!((seen(&first).0, seen(&second)), (Some(500), NOTHING));

    let first = apply_payment(cancelled, kim(200), paid(), NOW).unwrap();
    let (user, hold) = saved(&first);
    let (reply, second) = restore(request(300), RestoreReason::Refunded, user, hold, NOW).unwrap();
    assert_eq!((seen(&first).0, seen(&second)), (Some(500), NOTHING));
    assert_eq!((reply.succeed, reply.point), (true, points(300)));
}

#[test]
fn a_payment_uses_or_restores_points_and_an_older_version_changes_nothing() {
    use HoldState::{Held, Refused, Restored, Used};
    use PaymentStatus::{Cancelled, Confirming, Created, Deleted, Failed, Succeeded};
    let used = (Some(200), Some(Used), Some((EntryKind::Used, 0)));
    let restored = (Some(500), Some(Restored), Some((EntryKind::Restored, 300)));
    let table = [
        ("paid", hold(Held, 0), payment(Succeeded, 3), used),
        (
            "paid already",
            hold(Used, 3),
            payment(Succeeded, 4),
            NOTHING,
        ),
        ("cancelled", hold(Held, 0), payment(Cancelled, 3), restored),
        (
            "cancelled after paid",
            hold(Used, 3),
            payment(Cancelled, 4),
            restored,
        ),
        (
            "the same again",
            hold(Used, 3),
            payment(Cancelled, 3),
            NOTHING,
        ),
        ("older", hold(Used, 3), payment(Cancelled, 2), NOTHING),
        (
            "paid, restored",
            hold(Restored, 0),
            payment(Succeeded, 3),
            NOTHING,
        ),
        (
            "cancelled, restored",
            hold(Restored, 0),
            payment(Cancelled, 3),
            NOTHING,
        ),
        (
            "paid, refused",
            hold(Refused, 0),
            payment(Succeeded, 3),
            NOTHING,
        ),
        (
            "cancelled, refused",
            hold(Refused, 0),
            payment(Cancelled, 3),
            NOTHING,
        ),
        ("created", hold(Held, 0), payment(Created, 1), NOTHING),
        ("confirming", hold(Held, 0), payment(Confirming, 2), NOTHING),
        ("failed", hold(Held, 0), payment(Failed, 3), NOTHING),
        ("deleted", hold(Held, 0), payment(Deleted, 3), NOTHING),
        ("unknown saga", None, payment(Succeeded, 3), NOTHING),
    ];
    for (row, hold, payment, expected) in table {
        let change = apply_payment(payment, kim(200), hold, NOW).unwrap();
        assert_eq!(seen(&change), expected, "{row}");
    }
}

#[test]
fn a_hold_without_points_changes_state_without_a_ledger_entry() {
    let empty = |state| {
        Some(Hold {
            point: Points::ZERO,
            ..hold(state, 0).unwrap()
        })
    };
    let used = apply_payment(
        payment(PaymentStatus::Succeeded, 3),
        None,
        empty(HoldState::Held),
        NOW,
    );
    assert_eq!(seen(&used.unwrap()), (None, Some(HoldState::Used), None));
    let (_, back) = restore(
        request(0),
        RestoreReason::Unpaid,
        None,
        empty(HoldState::Held),
        NOW,
    )
    .unwrap();
    assert_eq!(seen(&back), (None, Some(HoldState::Restored), None));
}

#[test]
fn a_broken_invariant_is_an_error_and_not_a_refusal() {
    let lee = HoldRequest {
        user_id: UserId(2),
        ..request(300)
    };
    let foreign = InvariantError::ForeignHold {
        saga_id: saga(1),
        owner: KIM,
        claimed: UserId(2),
    };
    let held = || hold(HoldState::Held, 0);
    assert_eq!(reserve(lee, kim(500), held(), NOW).unwrap_err(), foreign);
    assert_eq!(
        restore(lee, RestoreReason::Unpaid, kim(500), held(), NOW).unwrap_err(),
        foreign
    );
    let of_lee = PaymentUpdate {
        user_id: UserId(2),
        ..payment(PaymentStatus::Cancelled, 3)
    };
    assert_eq!(
        apply_payment(of_lee, kim(500), held(), NOW).unwrap_err(),
        foreign
    );

    let other = InvariantError::OtherAmount {
        saga_id: saga(1),
        known: points(300),
        claimed: points(301),
    };
    assert_eq!(
        reserve(request(301), kim(500), held(), NOW).unwrap_err(),
        other
    );
    assert_eq!(
        restore(request(300), RestoreReason::Unpaid, None, held(), NOW).unwrap_err(),
        InvariantError::NoUser(KIM)
    );
    let full = restore(
        request(300),
        RestoreReason::Unpaid,
        kim(i64::MAX),
        held(),
        NOW,
    );
    assert_eq!(full.unwrap_err(), InvariantError::Overflow(KIM));
}

#[test]
fn a_grant_is_positive_and_bounded() {
    let user = || kim(200).unwrap();
    for amount in [0, -1, i64::MIN, i64::MAX, ledger::BALANCE_MAX - 199] {
        let refused = ledger::grant(user(), amount, None, NOW).unwrap_err();
        assert_eq!(refused.field, "amount", "{amount}");
    }
    for reason in ["x".repeat(201), "a\0b".to_owned()] {
        let refused = ledger::grant(user(), 1, Some(reason), NOW).unwrap_err();
        assert_eq!(refused.field, "reason");
    }
    let most = ledger::grant(user(), ledger::BALANCE_MAX - 200, None, NOW).unwrap();
    assert_eq!(most.user.unwrap().balance, points(ledger::BALANCE_MAX));
}

//! Holds under every request in every state; [`histories`]: under any history of duplicates and reorders.

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

fn claim(point: i64) -> Claim {
    Claim {
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
        ..Hold::new(claim(300), state, NOW)
    })
}

fn payment(status: PaymentStatus, version: i64) -> Settlement {
    Settlement {
        user_id: KIM,
        status,
        version,
    }
}

/// Balance, state of the hold, kind and amount of the entry: whatever was changed.
type Seen = (Option<i64>, Option<HoldState>, Option<(EntryKind, i64)>);

fn seen(change: &Change) -> Seen {
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
fn reserve_takes_once_and_says_the_truth_ever_after() {
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
        let (told, change) = reserve(claim(point), user, hold, NOW).unwrap();
        assert_eq!((told, seen(&change)), expected, "{row}");
    }
}

#[test]
fn restore_gives_back_what_the_hold_took_and_never_what_is_claimed() {
    use HoldState::{Held, Refused, Restored as Back, Used};
    let told = |succeed, point| Restored {
        succeed,
        point: points(point),
    };
    let given = (Some(500), Some(Back), Some((EntryKind::Restored, 300)));
    let same_for_both = [
        ("held", hold(Held, 0), (told(true, 300), given)),
        ("given back", hold(Back, 0), (told(true, 300), NOTHING)),
        ("refused", hold(Refused, 0), (told(true, 0), NOTHING)),
        ("unknown", None, (told(true, 0), (None, Some(Back), None))),
    ];
    for why in [Why::Unpaid, Why::Refunded] {
        for (row, hold, expected) in same_for_both.clone() {
            let (told, change) = restore(claim(9_999), why, kim(200), hold, NOW).unwrap();
            assert_eq!((told, seen(&change)), expected, "{row}, {why:?}");
        }
    }
    let paid = |why| {
        let (told, change) = restore(claim(9_999), why, kim(200), hold(Used, 5), NOW).unwrap();
        (told, seen(&change))
    };
    assert_eq!(paid(Why::Unpaid), (told(false, 0), NOTHING));
    assert_eq!(paid(Why::Refunded), (told(true, 300), given));
}

#[test]
fn points_of_a_refunded_purchase_come_back_once_whoever_says_so_first() {
    let paid = || hold(HoldState::Used, 3);
    let cancelled = payment(PaymentStatus::Cancelled, 5);
    let saved = |change: &Change| (change.user.clone(), change.hold.clone());

    let (_, first) = restore(claim(300), Why::Refunded, kim(200), paid(), NOW).unwrap();
    let (user, hold) = saved(&first);
    let second = settle(cancelled, user, hold, NOW).unwrap();
    assert_eq!((seen(&first).0, seen(&second)), (Some(500), NOTHING));

    let first = settle(cancelled, kim(200), paid(), NOW).unwrap();
    let (user, hold) = saved(&first);
    let (told, second) = restore(claim(300), Why::Refunded, user, hold, NOW).unwrap();
    assert_eq!((seen(&first).0, seen(&second)), (Some(500), NOTHING));
    assert_eq!((told.succeed, told.point), (true, points(300)));
}

#[test]
fn a_payment_uses_points_or_brings_them_back_and_an_older_word_of_it_changes_nothing() {
    use HoldState::{Held, Refused, Restored as Back, Used};
    use PaymentStatus::{Cancelled, Confirming, Created, Deleted, Failed, Succeeded};
    let used = (Some(200), Some(Used), Some((EntryKind::Used, 0)));
    let given = (Some(500), Some(Back), Some((EntryKind::Restored, 300)));
    let table = [
        ("paid", hold(Held, 0), payment(Succeeded, 3), used),
        (
            "paid already",
            hold(Used, 3),
            payment(Succeeded, 4),
            NOTHING,
        ),
        ("cancelled", hold(Held, 0), payment(Cancelled, 3), given),
        (
            "cancelled after paid",
            hold(Used, 3),
            payment(Cancelled, 4),
            given,
        ),
        (
            "the same again",
            hold(Used, 3),
            payment(Cancelled, 3),
            NOTHING,
        ),
        ("older", hold(Used, 3), payment(Cancelled, 2), NOTHING),
        (
            "paid, given back",
            hold(Back, 0),
            payment(Succeeded, 3),
            NOTHING,
        ),
        (
            "cancelled, given back",
            hold(Back, 0),
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
        ("of nobody we know", None, payment(Succeeded, 3), NOTHING),
    ];
    for (row, hold, payment, expected) in table {
        let change = settle(payment, kim(200), hold, NOW).unwrap();
        assert_eq!(seen(&change), expected, "{row}");
    }
}

#[test]
fn a_hold_without_points_passes_through_all_states_without_a_word_in_the_ledger() {
    let empty = |state| {
        Some(Hold {
            point: Points::ZERO,
            ..hold(state, 0).unwrap()
        })
    };
    let used = settle(
        payment(PaymentStatus::Succeeded, 3),
        None,
        empty(HoldState::Held),
        NOW,
    );
    assert_eq!(seen(&used.unwrap()), (None, Some(HoldState::Used), None));
    let (_, back) = restore(claim(0), Why::Unpaid, None, empty(HoldState::Held), NOW).unwrap();
    assert_eq!(seen(&back), (None, Some(HoldState::Restored), None));
}

#[test]
fn what_cannot_be_is_told_apart_from_what_is_refused() {
    let lee = Claim {
        user_id: UserId(2),
        ..claim(300)
    };
    let foreign = Broken::ForeignHold {
        saga_id: saga(1),
        owner: KIM,
        claimed: UserId(2),
    };
    let held = || hold(HoldState::Held, 0);
    assert_eq!(reserve(lee, kim(500), held(), NOW).unwrap_err(), foreign);
    assert_eq!(
        restore(lee, Why::Unpaid, kim(500), held(), NOW).unwrap_err(),
        foreign
    );
    let of_lee = Settlement {
        user_id: UserId(2),
        ..payment(PaymentStatus::Cancelled, 3)
    };
    assert_eq!(settle(of_lee, kim(500), held(), NOW).unwrap_err(), foreign);

    let other = Broken::OtherAmount {
        saga_id: saga(1),
        known: points(300),
        claimed: points(301),
    };
    assert_eq!(
        reserve(claim(301), kim(500), held(), NOW).unwrap_err(),
        other
    );
    assert_eq!(
        restore(claim(300), Why::Unpaid, None, held(), NOW).unwrap_err(),
        Broken::NoUser(KIM)
    );
    let full = restore(claim(300), Why::Unpaid, kim(i64::MAX), held(), NOW);
    assert_eq!(full.unwrap_err(), Broken::Overflow(KIM));
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

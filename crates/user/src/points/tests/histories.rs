//! Any history of requests, payments and grants, with duplicates and reorders, accounts for all points.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// The store's rows in memory.
#[derive(Default)]
struct StoredState {
    users: BTreeMap<UserId, User>,
    holds: BTreeMap<SagaId, Hold>,
    ledger: Vec<LedgerEntry>,
}

impl StoredState {
    fn save(&mut self, change: BalanceChange) {
        if let Some(user) = change.user {
            let version = user.version + 1;
            self.users.insert(user.user_id, User { version, ..user });
        }
        if let Some(hold) = change.hold {
            let version = hold.version + 1;
            self.holds.insert(hold.saga_id, Hold { version, ..hold });
        }
        self.ledger.extend(change.entry);
    }

    fn entries(&self, saga_id: SagaId, kind: EntryKind) -> Vec<i64> {
        let of_saga = self
            .ledger
            .iter()
            .filter(|entry| entry.saga_id == Some(saga_id) && entry.kind == kind);
        of_saga.map(|entry| entry.amount).collect()
    }

    fn in_state(&self, user_id: UserId, state: HoldState) -> i64 {
        let holds = self
            .holds
            .values()
            .filter(|hold| hold.user_id == user_id && hold.state == state);
        holds.map(|hold| hold.point.get()).sum()
    }
}

#[derive(Debug, Clone)]
enum Event {
    Grant {
        user: i64,
        amount: i64,
    },
    Reserve {
        saga: u128,
    },
    Restore {
        saga: u128,
        reason: RestoreReason,
    },
    Payment {
        saga: u128,
        status: PaymentStatus,
        version: i64,
    },
}

const SAGAS: u128 = 5;

fn event() -> impl Strategy<Value = Event> {
    let status = prop_oneof![
        Just(PaymentStatus::Created),
        Just(PaymentStatus::Succeeded),
        Just(PaymentStatus::Cancelled),
        Just(PaymentStatus::Failed),
    ];
    prop_oneof![
        1 => (1..3_i64, 1..500_i64).prop_map(|(user, amount)| Event::Grant { user, amount }),
        3 => (0..SAGAS).prop_map(|saga| Event::Reserve { saga }),
        3 => (0..SAGAS, prop_oneof![2 => Just(RestoreReason::Unpaid), 1 => Just(RestoreReason::Refunded)])
            .prop_map(|(saga, reason)| Event::Restore { saga, reason }),
        3 => (0..SAGAS, status, 1..6_i64)
            .prop_map(|(saga, status, version)| Event::Payment { saga, status, version }),
    ]
}

/// Each saga has one user and one amount. User 3 is not registered.
fn request_of(number: u128) -> HoldRequest {
    let small = i64::try_from(number).unwrap();
    HoldRequest {
        saga_id: saga(number),
        user_id: UserId(1 + small % 3),
        point: points(small * 100),
    }
}

fn apply(stored: &mut StoredState, event: &Event) {
    let of = |stored: &StoredState, request: HoldRequest| {
        (
            stored.users.get(&request.user_id).cloned(),
            stored.holds.get(&request.saga_id).cloned(),
        )
    };
    let change = match *event {
        Event::Grant { user, amount } => {
            let user = stored.users[&UserId(user)].clone();
            ledger::grant(user, amount, None, NOW).unwrap()
        }
        Event::Reserve { saga } => {
            let (user, hold) = of(stored, request_of(saga));
            reserve(request_of(saga), user, hold, NOW).unwrap().1
        }
        Event::Restore { saga, reason } => {
            let (user, hold) = of(stored, request_of(saga));
            restore(request_of(saga), reason, user, hold, NOW)
                .unwrap()
                .1
        }
        Event::Payment {
            saga,
            status,
            version,
        } => {
            let (user, hold) = of(stored, request_of(saga));
            let user_id = request_of(saga).user_id;
            apply_payment(
                PaymentUpdate {
                    user_id,
                    status,
                    version,
                },
                user,
                hold,
                NOW,
            )
            .unwrap()
        }
    };
    stored.save(change);
}

proptest! {
    #[test]
    fn any_history_accounts_for_all_points(
        history in proptest::collection::vec(event(), 0..60),
    ) {
        let mut stored = StoredState::default();
        for id in [UserId(1), UserId(2)] {
            let user = User::new(id, "Kim".to_owned(), Status::Active, NOW);
            stored.save(ledger::grant(user, 250, None, NOW).unwrap());
        }
        for event in &history {
            apply(&mut stored, event);
            for user in stored.users.values() {
                let entries: Vec<_> = stored.ledger.iter().filter(|entry| entry.user_id == user.user_id).collect();
                let sum: i64 = entries.iter().map(|entry| entry.amount).sum();
                prop_assert_eq!(user.balance.get(), sum);
                prop_assert_eq!(entries.last().unwrap().balance_after, user.balance);
                let granted = entries.iter().filter(|entry| entry.kind == EntryKind::Granted);
                let granted: i64 = granted.map(|entry| entry.amount).sum();
                let away = stored.in_state(user.user_id, HoldState::Held) + stored.in_state(user.user_id, HoldState::Used);
                prop_assert_eq!(granted, user.balance.get() + away);
            }
            for number in 0..SAGAS {
                let taken = stored.entries(saga(number), EntryKind::Reserved);
                let back = stored.entries(saga(number), EntryKind::Restored);
                prop_assert!(taken.len() <= 1 && back.len() <= taken.len());
                prop_assert!(stored.entries(saga(number), EntryKind::Used).len() <= taken.len());
                prop_assert!(back.iter().zip(&taken).all(|(back, taken)| *back == -taken));
            }
        }
    }

    #[test]
    fn repeated_messages_end_in_the_same_state_as_single_ones(
        history in proptest::collection::vec(event(), 0..40), repeats in proptest::collection::vec(0..4_usize, 40),
    ) {
        let is_message = |event: &&Event| !matches!(event, Event::Grant { .. });
        let history: Vec<_> = history.iter().filter(is_message).collect();
        let (mut once, mut often) = (StoredState::default(), StoredState::default());
        for stored in [&mut once, &mut often] {
            for id in [UserId(1), UserId(2)] {
                let user = User::new(id, "Kim".to_owned(), Status::Active, NOW);
                stored.save(ledger::grant(user, 250, None, NOW).unwrap());
            }
        }
        for (event, repeat) in history.iter().zip(repeats) {
            apply(&mut once, event);
            for _ in 0..=repeat {
                apply(&mut often, event);
            }
        }
        prop_assert_eq!(once.users, often.users);
        prop_assert_eq!(once.holds, often.holds);
        prop_assert_eq!(once.ledger, often.ledger);
    }
}

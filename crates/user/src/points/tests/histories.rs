//! Any history of requests, payments and grants, with duplicates and reorders: every point is accounted for.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// What a store keeps, in a map.
#[derive(Default)]
struct Books {
    users: BTreeMap<UserId, User>,
    holds: BTreeMap<SagaId, Hold>,
    ledger: Vec<LedgerEntry>,
}

impl Books {
    fn save(&mut self, change: Change) {
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
enum Happening {
    Grant {
        user: i64,
        amount: i64,
    },
    Reserve {
        saga: u128,
    },
    Restore {
        saga: u128,
        why: Why,
    },
    Payment {
        saga: u128,
        status: PaymentStatus,
        version: i64,
    },
}

const SAGAS: u128 = 5;

fn happening() -> impl Strategy<Value = Happening> {
    let status = prop_oneof![
        Just(PaymentStatus::Created),
        Just(PaymentStatus::Succeeded),
        Just(PaymentStatus::Cancelled),
        Just(PaymentStatus::Failed),
    ];
    prop_oneof![
        1 => (1..3_i64, 1..500_i64).prop_map(|(user, amount)| Happening::Grant { user, amount }),
        3 => (0..SAGAS).prop_map(|saga| Happening::Reserve { saga }),
        3 => (0..SAGAS, prop_oneof![2 => Just(Why::Unpaid), 1 => Just(Why::Refunded)])
            .prop_map(|(saga, why)| Happening::Restore { saga, why }),
        3 => (0..SAGAS, status, 1..6_i64)
            .prop_map(|(saga, status, version)| Happening::Payment { saga, status, version }),
    ]
}

/// Each saga is of one user and asks for one amount, however often and late it asks. User 3 is not registered.
fn claim_of(number: u128) -> Claim {
    let small = i64::try_from(number).unwrap();
    Claim {
        saga_id: saga(number),
        user_id: UserId(1 + small % 3),
        point: points(small * 100),
    }
}

fn happen(books: &mut Books, happening: &Happening) {
    let of = |books: &Books, claim: Claim| {
        (
            books.users.get(&claim.user_id).cloned(),
            books.holds.get(&claim.saga_id).cloned(),
        )
    };
    let change = match *happening {
        Happening::Grant { user, amount } => {
            let user = books.users[&UserId(user)].clone();
            ledger::grant(user, amount, None, NOW).unwrap()
        }
        Happening::Reserve { saga } => {
            let (user, hold) = of(books, claim_of(saga));
            reserve(claim_of(saga), user, hold, NOW).unwrap().1
        }
        Happening::Restore { saga, why } => {
            let (user, hold) = of(books, claim_of(saga));
            restore(claim_of(saga), why, user, hold, NOW).unwrap().1
        }
        Happening::Payment {
            saga,
            status,
            version,
        } => {
            let (user, hold) = of(books, claim_of(saga));
            let user_id = claim_of(saga).user_id;
            settle(
                Settlement {
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
    books.save(change);
}

proptest! {
    #[test]
    fn whatever_happens_in_whatever_order_every_point_is_accounted_for(
        history in proptest::collection::vec(happening(), 0..60),
    ) {
        let mut books = Books::default();
        for id in [UserId(1), UserId(2)] {
            let user = User::new(id, "Kim".to_owned(), Status::Active, NOW);
            books.save(ledger::grant(user, 250, None, NOW).unwrap());
        }
        for happening in &history {
            happen(&mut books, happening);
            for user in books.users.values() {
                let entries: Vec<_> = books.ledger.iter().filter(|entry| entry.user_id == user.user_id).collect();
                let sum: i64 = entries.iter().map(|entry| entry.amount).sum();
                prop_assert_eq!(user.balance.get(), sum);
                prop_assert_eq!(entries.last().unwrap().balance_after, user.balance);
                let granted = entries.iter().filter(|entry| entry.kind == EntryKind::Granted);
                let granted: i64 = granted.map(|entry| entry.amount).sum();
                let away = books.in_state(user.user_id, HoldState::Held) + books.in_state(user.user_id, HoldState::Used);
                prop_assert_eq!(granted, user.balance.get() + away);
            }
            for number in 0..SAGAS {
                let taken = books.entries(saga(number), EntryKind::Reserved);
                let back = books.entries(saga(number), EntryKind::Restored);
                prop_assert!(taken.len() <= 1 && back.len() <= taken.len());
                prop_assert!(books.entries(saga(number), EntryKind::Used).len() <= taken.len());
                prop_assert!(back.iter().zip(&taken).all(|(back, taken)| *back == -taken));
            }
        }
    }

    #[test]
    fn a_history_told_twice_over_ends_as_if_told_once(
        history in proptest::collection::vec(happening(), 0..40), repeats in proptest::collection::vec(0..4_usize, 40),
    ) {
        let is_message = |happening: &&Happening| !matches!(happening, Happening::Grant { .. });
        let history: Vec<_> = history.iter().filter(is_message).collect();
        let (mut once, mut often) = (Books::default(), Books::default());
        for books in [&mut once, &mut often] {
            for id in [UserId(1), UserId(2)] {
                let user = User::new(id, "Kim".to_owned(), Status::Active, NOW);
                books.save(ledger::grant(user, 250, None, NOW).unwrap());
            }
        }
        for (happening, repeat) in history.iter().zip(repeats) {
            happen(&mut once, happening);
            for _ in 0..=repeat {
                happen(&mut often, happening);
            }
        }
        prop_assert_eq!(once.users, often.users);
        prop_assert_eq!(once.holds, often.holds);
        prop_assert_eq!(once.ledger, often.ledger);
    }
}

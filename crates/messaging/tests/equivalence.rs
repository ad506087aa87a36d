//! The same submissions, in the same order, have the same outcomes and leave the same state on every backend, however
//! they are grouped into transactions.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod common;

use common::{Account, Place, deposit, movement, movements, noise, places, read_all, start};
use messaging::{
    Commit, CommitError, Find, Payload, Record, Ref, Store, Submission,
    commit::{Handled, TimerChange},
    lease::LeaseRecord,
    store::Position,
};
use proptest::prelude::*;

/// A change that may or may not fit the stored state.
#[derive(Debug, Clone)]
enum Change {
    Put {
        id: i64,
        version: i64,
        balance: i64,
        is_renamed: bool,
    },
    Delete {
        id: i64,
        version: i64,
    },
    Remove {
        id: i64,
    },
    Append {
        id: i64,
        amount: i64,
    },
    Publish,
    SetTimer {
        id: u8,
        due: i64,
    },
    CancelTimer {
        id: u8,
    },
    Fire {
        id: u8,
        due: i64,
    },
    Handle {
        id: u8,
        key: u8,
    },
    Fence {
        token: i64,
    },
    Lease {
        version: i64,
        token: i64,
    },
    Look {
        id: i64,
    },
}

fn change() -> impl Strategy<Value = Change> {
    let (id, version) = (0_i64..3, 0_i64..4);
    let put = (
        id.clone(),
        version.clone(),
        -1_i64..12,
        prop::bool::weighted(0.05),
    );
    let put = put.prop_map(|(id, version, balance, is_renamed)| Change::Put {
        id,
        version,
        balance,
        is_renamed,
    });
    prop_oneof![
        12 => put,
        2 => (id.clone(), version.clone()).prop_map(|(id, version)| Change::Delete { id, version }),
        1 => id.clone().prop_map(|id| Change::Remove { id }),
        3 => (0_i64..20, 0_i64..8).prop_map(|(id, amount)| Change::Append { id, amount }),
        3 => Just(Change::Publish),
        2 => (0_u8..3, 0_i64..3).prop_map(|(id, due)| Change::SetTimer { id, due }),
        1 => (0_u8..3).prop_map(|id| Change::CancelTimer { id }),
        3 => (0_u8..3, 0_i64..3).prop_map(|(id, due)| Change::Fire { id, due }),
        2 => (0_u8..12, 0_u8..4).prop_map(|(id, key)| Change::Handle { id, key }),
        1 => (0_i64..3).prop_map(|token| Change::Fence { token }),
        1 => (0_i64..3, 0_i64..3).prop_map(|(version, token)| Change::Lease { version, token }),
        1 => id.prop_map(|id| Change::Look { id }),
    ]
}

fn commit(number: usize, changes: &[Change]) -> Commit {
    let mut commit = Commit::new();
    for (place, change) in changes.iter().enumerate() {
        let due_at = |due: i64| start().plus_millis(due);
        match change {
            Change::Put {
                id,
                version,
                balance,
                is_renamed,
            } => {
                let owner = if *is_renamed {
                    "owner 0".to_owned()
                } else {
                    format!("owner {id}")
                };
                let account = Account {
                    owner,
                    version: *version,
                    ..Account::new(*id, *balance)
                };
                commit.put(&account);
            }
            Change::Delete { id, version } => {
                commit.delete(&Account {
                    version: *version,
                    ..Account::new(*id, 0)
                });
            }
            Change::Remove { id } => _ = commit.remove::<Account>(*id),
            Change::Append { id, amount } => {
                commit.append(&movement(&id.to_string(), *id, *amount));
            }
            Change::Publish => {
                commit.publish(deposit(&format!("{number} {place}"), 1, 1));
            }
            Change::SetTimer { id, due } => {
                commit.set_timer(id.to_string(), due_at(*due), noise(*due));
            }
            Change::CancelTimer { id } => _ = commit.cancel_timer(id.to_string()),
            Change::Fire { id, due } => commit.timers.push(TimerChange::Fire {
                id: id.to_string(),
                due_at: due_at(*due),
                message_id: noise(*due).id,
                message: noise(*due),
            }),
            Change::Handle { id, key } => {
                commit.handled = Some(Handled {
                    group: "teller".to_owned(),
                    message_id: id.to_string(),
                    key: key.to_string(),
                    at: start(),
                });
            }
            Change::Fence { token } => _ = commit.fenced_by(lease(0, *token).fence()),
            Change::Lease { version, token } => _ = commit.put(&lease(*version, *token)),
            Change::Look { id } => commit.required_records.push(Ref::to::<Account>(*id)),
        }
    }
    commit
}

fn lease(version: i64, token: i64) -> LeaseRecord {
    LeaseRecord {
        name: "relay".to_owned(),
        holder: "a".to_owned(),
        token,
        expires_at: start(),
        version,
    }
}

/// The outcome of a commit. If there are several reasons to reject it, each backend may name another.
fn in_short(outcome: Result<(), CommitError>) -> String {
    match outcome {
        Ok(()) => "applied".to_owned(),
        Err(CommitError::Store(error)) => error.to_string(),
        Err(_) => "rejected".to_owned(),
    }
}

/// The outcomes of these submissions and the state of the store after them; submitted all at once or one by one.
async fn history(
    place: &Place,
    submissions: &[Vec<Vec<Change>>],
    all_at_once: bool,
    bus: BusOf,
) -> Vec<String> {
    let store = place.open().await;
    let mut told = Vec::new();
    let mut handles = Vec::new();
    for (number, changes) in submissions.iter().enumerate() {
        let of = |(place, changes): (usize, &Vec<Change>)| commit(number * 100 + place, changes);
        let commits: Vec<_> = changes.iter().enumerate().map(of).collect();
        let position = Some(Position {
            group: "teller".to_owned(),
            offset: number as i64 + 1,
        });
        handles.push(store.submit(Submission {
            commits: commits.into(),
            position,
        }));
        if !all_at_once {
            let outcomes = handles.remove(0).outcomes().await;
            told.extend(outcomes.into_iter().map(in_short));
        }
    }
    for handle in handles {
        told.extend(handle.outcomes().await.into_iter().map(in_short));
    }
    told.extend(state(&store, bus).await);
    told
}

/// The bus decides the order of messages and the owner of a group's position.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BusOf {
    /// The store: one order of all messages, and a position stored with the commits.
    Log,
    /// Brokers: an order for each key, and a position that they store.
    #[cfg(feature = "kafka")]
    Keys,
}

async fn state(store: &Store, of: BusOf) -> Vec<String> {
    let accounts: Vec<Account> = store.find(Find::all(Account::TABLE, 100)).await.unwrap();
    let lease: Option<LeaseRecord> = store.load("relay").await.unwrap();
    let due = store
        .due_timers(start().plus_millis(100), 100)
        .await
        .unwrap();
    let mut timers: Vec<_> = due.iter().map(|timer| format!("{timer:?}")).collect();
    timers.sort();
    let ids: Vec<String> = (0..12).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let mut seen: Vec<_> = store
        .seen("teller", &ids)
        .await
        .unwrap()
        .into_iter()
        .collect();
    seen.sort();
    let mut log = read_all(store, "late", &[common::Deposit::TOPIC, "noise"]).await;
    if of != BusOf::Log {
        // The stable sort keeps the order of each key.
        log.sort_by_key(|message| (message.topic.clone(), message.key.clone()));
    }
    let log: Vec<_> = log.iter().map(|message| message.id.clone()).collect();
    let position = (of == BusOf::Log).then(|| {
        let bus = messaging::Bus::Local(store.clone());
        bus.subscribe("teller", &["noise"]).unwrap().position()
    });
    vec![
        format!("{accounts:?}"),
        format!("{lease:?}"),
        format!("{:?}", movements(store).await),
        format!("{timers:?}"),
        format!("{seen:?}"),
        format!("{log:?}"),
        format!("{position:?}"),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn the_same_history_ends_the_same_on_every_backend(
        submissions in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(change(), 0..4), 0..6),
            1..8,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut histories = Vec::new();
            for (place, all_at_once) in places().iter().zip([false, true]) {
                histories.push(history(place, &submissions, all_at_once, BusOf::Log).await);
            }
            prop_assert_eq!(&histories[0], &histories[1]);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_record_is_removed_after_a_commit_that_created_and_deleted_it() {
    let created_and_deleted = vec![
        Change::Put {
            id: 1,
            version: 0,
            balance: 0,
            is_renamed: false,
        },
        Change::Delete { id: 1, version: 1 },
        Change::Lease {
            version: 0,
            token: 0,
        },
    ];
    // The fence is checked behind the lease's change, in a stage of its own.
    let removed = vec![Change::Fence { token: 0 }, Change::Remove { id: 1 }];
    for place in places() {
        let submissions = [vec![created_and_deleted.clone(), removed.clone()]];
        let ended = history(&place, &submissions, true, BusOf::Log).await;
        assert_eq!(ended[..2], ["applied", "applied"], "{ended:?}");
    }
}

#[cfg(feature = "kafka")]
proptest! {
    // Creating the topics of each case takes a second.
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 20, ..ProptestConfig::default() })]
    #[test]
    fn the_same_history_ends_the_same_over_brokers(
        submissions in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(change(), 0..4), 0..6),
            1..8,
        ),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = Place::Folder(tempfile::tempdir().unwrap());
            let brokers = Place::Brokers(Box::new(common::kafka::Brokers::new()));
            let embedded = history(&folder, &submissions, false, BusOf::Keys).await;
            let distributed = history(&brokers, &submissions, true, BusOf::Keys).await;
            prop_assert_eq!(embedded, distributed);
            Ok(())
        })?;
    }
}

//! The contract of every store; each test runs on every backend.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{
    Account, Deposit, Place, account, deposit, movement, movements, noise, places, publish,
    read_all, start, store_all,
};
use messaging::{
    Bus, Commit, CommitError, Fence, Find, Metrics, Payload, Record, Store, StoreError, Submission,
    Table, Timestamp, lease::LeaseRecord, store::Position,
};

fn put(account: &Account) -> Commit {
    let mut commit = Commit::new();
    commit.put(account);
    commit
}

async fn submit(store: &Store, commits: Vec<Commit>) -> Vec<Result<(), CommitError>> {
    let position = None;
    store
        .submit(Submission {
            commits: commits.into(),
            position,
        })
        .outcomes()
        .await
}

fn is_conflict(outcome: &Result<(), CommitError>) -> bool {
    matches!(outcome, Err(CommitError::Conflict { .. }))
}

fn is_constraint(outcome: &Result<(), CommitError>) -> bool {
    matches!(outcome, Err(CommitError::Constraint { .. }))
}

fn topics() -> &'static [&'static str] {
    &[Deposit::TOPIC]
}

async fn ids(store: &Store, find: Find) -> Vec<i64> {
    let found: Vec<Account> = store.find(find).await.unwrap();
    found.into_iter().map(|account| account.id).collect()
}

// ---- records

#[tokio::test]
async fn a_record_is_loaded_as_it_was_put_with_the_next_version() {
    for place in places() {
        let store = place.open().await;
        let new = Account {
            note: Some("née \"O'Hara\" \u{1F3AB}".to_owned()),
            frozen: true,
            ..Account::new(1, i64::MAX)
        };
        store.commit(put(&new)).await.unwrap();
        let first = account(&store, 1).await;
        assert_eq!(first, Account { version: 1, ..new });

        let changed = Account {
            note: None,
            tags: Vec::new(),
            balance: 0,
            ..first
        };
        store.commit(put(&changed)).await.unwrap();
        assert_eq!(
            account(&store, 1).await,
            Account {
                version: 2,
                ..changed
            }
        );
    }
}

#[tokio::test]
async fn loading_skips_keys_without_a_record() {
    for place in places() {
        let store = place.open().await;
        store_all(&store, &[Account::new(1, 1), Account::new(3, 3)]).await;
        let keys = [1.into(), 2.into(), 3.into()];
        assert_eq!(
            store.load_rows(Account::TABLE, &keys).await.unwrap().len(),
            2
        );
        assert_eq!(store.load::<Account>(2).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_stale_version_changes_nothing() {
    for place in places() {
        let store = place.open().await;
        let new = Account::new(1, 5);
        store.commit(put(&new)).await.unwrap();
        let loaded = account(&store, 1).await;
        store.commit(put(&loaded.with_balance(6))).await.unwrap();

        let as_new = store.commit(put(&new.with_balance(100))).await;
        let as_loaded = store.commit(put(&loaded.with_balance(100))).await;
        let mut removal = Commit::new();
        removal.delete(&loaded);
        let removed = store.commit(removal).await;

        let conflict = Err(CommitError::Conflict {
            table: "account".into(),
            key: "1".into(),
        });
        assert_eq!(
            [as_new, as_loaded, removed],
            [conflict.clone(), conflict.clone(), conflict]
        );
        assert_eq!(account(&store, 1).await.balance, 6);
    }
}

#[tokio::test]
async fn a_deleted_record_can_be_created_again() {
    for place in places() {
        let store = place.open().await;
        store_all(&store, &[Account::new(1, 5)]).await;
        let mut removal = Commit::new();
        removal.delete(&account(&store, 1).await);
        store.commit(removal.clone()).await.unwrap();
        assert_eq!(store.load::<Account>(1).await.unwrap(), None);
        assert!(is_conflict(&store.commit(removal).await));
        store_all(&store, &[Account::new(1, 6)]).await;
        assert_eq!(account(&store, 1).await.balance, 6);
    }
}

#[tokio::test]
async fn an_entry_is_appended_once() {
    for place in places() {
        let store = place.open().await;
        let mut commit = Commit::new();
        commit
            .append(&movement("a", 1, 5))
            .append(&movement("b", 1, -5));
        store.commit(commit.clone()).await.unwrap();
        assert!(is_conflict(&store.commit(commit).await));
        assert_eq!(
            movements(&store).await,
            [movement("a", 1, 5), movement("b", 1, -5)]
        );
    }
}

// ---- atomicity

#[tokio::test]
async fn only_the_conflicting_commit_of_a_submission_is_rejected() {
    for place in places() {
        let store = place.open().await;
        store_all(&store, &[Account::new(1, 0)]).await;
        let stale = put(&Account::new(1, 9));
        let commits = vec![
            put(&Account::new(2, 2)),
            stale,
            put(&Account::new(3, 3)),
            put(&Account::new(4, 4)),
        ];
        let outcomes = submit(&store, commits).await;
        assert_eq!(
            outcomes.iter().map(is_conflict).collect::<Vec<_>>(),
            [false, true, false, false]
        );
        assert_eq!(
            ids(&store, Find::all(Account::TABLE, 10)).await,
            [1, 2, 3, 4]
        );
        assert_eq!(account(&store, 1).await.balance, 0);
    }
}

#[tokio::test]
async fn rows_are_found_by_a_half_open_range_of_times() {
    for place in places() {
        let store = place.open().await;
        let at = |millis| Timestamp::from_millis(millis);
        let noted = |id, millis| Account {
            note: Some(at(millis).to_string()),
            ..Account::new(id, 0)
        };
        let none = Account::new(5, 0);
        let rows = [noted(4, 1), noted(3, 2), noted(2, 3), noted(1, 4), none];
        store_all(&store, &rows).await;
        let find = Find::all(Account::TABLE, 10).within("note", at(2), at(4));
        assert_eq!(ids(&store, find.clone()).await, [2, 3]);
        assert_eq!(ids(&store, find.clone().after(Some(2))).await, [3]);
        assert_eq!(ids(&store, find.newest_first()).await, [3, 2]);
    }
}

#[tokio::test]
async fn a_broken_rule_rejects_its_commit_alone() {
    for place in places() {
        let store = place.open().await;
        store_all(&store, &[Account::new(1, 1)]).await;
        let taken_owner = Account {
            owner: "owner 1".into(),
            ..Account::new(2, 0)
        };
        let overdrawn = account(&store, 1).await.with_balance(-1);
        let mut empty_movement = Commit::new();
        empty_movement.append(&movement("zero", 1, 0));
        let commits = vec![
            put(&taken_owner),
            put(&overdrawn),
            empty_movement,
            put(&Account::new(3, 3)),
        ];
        let outcomes = submit(&store, commits).await;
        assert_eq!(
            outcomes.iter().map(is_constraint).collect::<Vec<_>>(),
            [true, true, true, false]
        );
        assert_eq!(ids(&store, Find::all(Account::TABLE, 10)).await, [1, 3]);
        assert_eq!(account(&store, 1).await.balance, 1);
    }
}

#[tokio::test]
async fn a_rule_broken_by_a_change_names_the_rule_and_not_another_writer() {
    for place in places() {
        let store = place.open().await;
        store_all(&store, &[Account::new(1, 1), Account::new(2, 1)]).await;
        let renamed = Account {
            owner: "owner 1".into(),
            ..account(&store, 2).await
        };
        let outcome = store.commit(put(&renamed)).await;
        assert!(
            matches!(&outcome, Err(CommitError::Constraint { detail }) if detail.contains("owner")),
            "{outcome:?}"
        );
    }
}

#[tokio::test]
async fn a_commit_whose_last_part_fails_leaves_nothing_of_its_first_parts() {
    for place in places() {
        let store = place.open().await;
        let lease = LeaseRecord {
            name: "relay".into(),
            holder: "a".into(),
            token: 1,
            expires_at: start(),
            version: 0,
        };
        let mut given = Commit::new();
        given
            .put(&Account::new(1, 1))
            .put(&lease)
            .set_timer("kept", start(), noise(1));
        store.commit(given).await.unwrap();

        let mut commit = Commit::new();
        commit
            .put(&account(&store, 1).await.with_balance(2))
            .append(&movement("a", 1, 1))
            .publish(deposit("m", 1, 1))
            .set_timer("new", start(), noise(2))
            .cancel_timer("kept");
        commit.handled = Some(handled("teller", "m0"));
        commit.delete(&Account {
            version: 9,
            ..Account::new(1, 1)
        });
        let good = put(&Account::new(2, 2));
        let outcomes = submit(&store, vec![commit, good]).await;

        assert!(is_conflict(&outcomes[0]) && outcomes[1].is_ok());
        assert_eq!(account(&store, 1).await.balance, 1);
        assert_eq!(movements(&store).await, []);
        assert_eq!(read_all(&store, "teller", topics()).await, []);
        let timers = store.due_timers(start(), 10).await.unwrap();
        assert_eq!(
            timers.iter().map(|timer| &timer.id).collect::<Vec<_>>(),
            ["kept"]
        );
        assert!(store.seen("teller", &["m0"]).await.unwrap().is_empty());
    }
}

fn handled(group: &str, message_id: &str) -> messaging::commit::Handled {
    messaging::commit::Handled {
        group: group.to_owned(),
        message_id: message_id.to_owned(),
        key: message_id.to_owned(),
        at: start(),
    }
}

#[tokio::test]
async fn a_message_is_marked_as_handled_once() {
    for place in places() {
        let store = place.open().await;
        let mut commit = Commit::new();
        commit.handled = Some(handled("teller", "m"));
        store.commit(commit.clone()).await.unwrap();
        let mut again = commit.clone();
        again.put(&Account::new(1, 1));
        assert!(is_conflict(&store.commit(again).await));
        assert_eq!(store.load::<Account>(1).await.unwrap(), None);
        let mut elsewhere = commit;
        elsewhere.handled = Some(handled("auditor", "m"));
        store.commit(elsewhere).await.unwrap();
        assert_eq!(store.seen("teller", &["m", "n"]).await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn a_dropped_commit_handle_does_not_undo_the_commit() {
    for place in places() {
        let store = place.open().await;
        let mut commit = put(&Account::new(1, 1));
        commit.publish(deposit("m", 1, 1));
        drop(store.submit(Submission {
            commits: [commit].into(),
            position: None,
        }));
        let mut both = Box::pin(store.commit(put(&Account::new(2, 2))));
        assert!(futures::poll!(both.as_mut()).is_pending());
        drop(both);
        // The store applies commits in the order of their submission: this one waits for the other two.
        store.commit(put(&Account::new(3, 3))).await.unwrap();
        assert_eq!(ids(&store, Find::all(Account::TABLE, 10)).await, [1, 2, 3]);
        assert_eq!(read_all(&store, "teller", topics()).await.len(), 1);
    }
}

// ---- fences

#[tokio::test]
async fn a_stale_holder_cannot_write_or_publish() {
    for place in places() {
        let store = place.open().await;
        let lease = LeaseRecord {
            name: "relay".into(),
            holder: "a".into(),
            token: 1,
            expires_at: start(),
            version: 0,
        };
        let mut given = Commit::new();
        given.put(&lease);
        store.commit(given).await.unwrap();
        let stale = lease.fence();
        let mut takeover = Commit::new();
        takeover.put(&LeaseRecord {
            holder: "b".into(),
            token: 2,
            version: 1,
            ..lease
        });
        store.commit(takeover).await.unwrap();

        let fenced = |fence: Fence, id: i64| {
            let mut commit = put(&Account::new(id, 1));
            commit
                .publish(deposit(&format!("m{id}"), id, 1))
                .fenced_by(fence);
            commit
        };
        let unknown = Fence {
            lease: "nobody's".into(),
            token: 1,
        };
        let held = Fence {
            token: 2,
            ..stale.clone()
        };
        let outcomes = submit(
            &store,
            vec![fenced(stale, 1), fenced(unknown, 2), fenced(held, 3)],
        )
        .await;
        assert_eq!(
            outcomes,
            [
                Err(CommitError::Fenced {
                    lease: "relay".into()
                }),
                Err(CommitError::Fenced {
                    lease: "nobody's".into()
                }),
                Ok(())
            ]
        );
        assert_eq!(ids(&store, Find::all(Account::TABLE, 10)).await, [3]);
        assert_eq!(read_all(&store, "teller", topics()).await.len(), 1);
    }
}

// ---- queries

#[tokio::test]
async fn pages_continue_after_the_last_key_in_either_direction() {
    for place in places() {
        let store = place.open().await;
        let accounts: Vec<_> = (1..=5).map(|id| Account::new(id, id % 2)).collect();
        store_all(&store, &accounts).await;
        let all = || Find::all(Account::TABLE, 2);
        assert_eq!(ids(&store, all()).await, [1, 2]);
        assert_eq!(ids(&store, all().after(Some(2))).await, [3, 4]);
        assert_eq!(ids(&store, all().after(Some(5))).await, [0; 0]);
        assert_eq!(ids(&store, all().newest_first()).await, [5, 4]);
        assert_eq!(
            ids(&store, all().newest_first().after(Some(4))).await,
            [3, 2]
        );
    }
}

#[tokio::test]
async fn filters_narrow_a_page() {
    for place in places() {
        let store = place.open().await;
        let mut accounts: Vec<_> = (1..=6).map(|id| Account::new(id, id % 2)).collect();
        accounts[4].frozen = true;
        accounts[5].note = Some("x".into());
        store_all(&store, &accounts).await;
        let all = || Find::all(Account::TABLE, 10);
        assert_eq!(ids(&store, all().equals("balance", 1)).await, [1, 3, 5]);
        assert_eq!(ids(&store, all().equals("frozen", true)).await, [5]);
        assert_eq!(ids(&store, all().equals("owner", "owner 2")).await, [2]);
        assert_eq!(ids(&store, all().only("note IS NOT NULL")).await, [6]);
        let null = serde_json::Value::Null;
        assert_eq!(
            ids(&store, all().equals("note", null)).await,
            [1, 2, 3, 4, 5]
        );
        let narrowed = all().equals("balance", 1).only("NOT frozen").after(Some(1));
        assert_eq!(ids(&store, narrowed).await, [3]);
    }
}

#[tokio::test]
async fn rows_are_counted_by_the_value_of_a_column() {
    for place in places() {
        let store = place.open().await;
        let accounts: Vec<_> = (1..=5).map(|id| Account::new(id, id % 2)).collect();
        store_all(&store, &accounts).await;
        let counted = |column, only| {
            let store = store.clone();
            async move {
                let mut counts = store.count_by(Account::TABLE, column, only).await.unwrap();
                counts.sort();
                counts
            }
        };
        assert_eq!(
            counted("balance", None).await,
            [("0".into(), 2), ("1".into(), 3)]
        );
        assert_eq!(
            counted("balance", Some("id > 3")).await,
            [("0".into(), 1), ("1".into(), 1)]
        );
        assert_eq!(counted("note", None).await, [(String::new(), 5)]);
    }
}

#[tokio::test]
async fn next_ids_never_meet_a_stored_key() {
    for place in places() {
        let store = place.open().await;
        let first = store.next_id(Account::TABLE).await.unwrap();
        let second = store.next_id(Account::TABLE).await.unwrap();
        assert!(second > first);
        store_all(&store, &[Account::new(second, 0)]).await;
        // A row under a key that its caller chose.
        store_all(&store, &[Account::new(second + 1, 0)]).await;
        assert!(store.next_id(Account::TABLE).await.unwrap() > second + 1);
        drop(store);
        let store = place.open().await;
        assert!(store.next_id(Account::TABLE).await.unwrap() > second + 1);
    }
}

// ---- messages

#[tokio::test]
async fn messages_are_read_in_the_order_of_their_commits() {
    for place in places() {
        let store = place.open().await;
        let commits = (0..50).map(|number| {
            let mut commit = Commit::new();
            commit
                .publish(deposit(&format!("{number} a"), number, 1))
                .publish(deposit(&format!("{number} b"), number, 1));
            commit
        });
        let handles: Vec<_> = commits
            .map(|commit| {
                store.submit(Submission {
                    commits: [commit].into(),
                    position: None,
                })
            })
            .collect();
        for handle in handles {
            assert_eq!(handle.outcomes().await, [Ok(())]);
        }
        let expected: Vec<_> = (0..50)
            .flat_map(|number| [format!("{number} a"), format!("{number} b")])
            .collect();
        let read = async |store: &Store| -> Vec<String> {
            let read = read_all(store, "teller", topics()).await;
            read.iter().map(|message| message.id.clone()).collect()
        };
        assert_eq!(read(&store).await, expected);
        drop(store);
        assert_eq!(read(&place.open().await).await, expected);
    }
}

#[tokio::test]
async fn a_message_of_a_rejected_commit_leaves_no_gap_in_the_log() {
    for place in places() {
        let store = place.open().await;
        store_all(&store, &[Account::new(1, 0)]).await;
        let with_message = |id: i64| {
            let mut commit = put(&Account::new(id, 0));
            commit.publish(deposit(&format!("for {id}"), id, 1));
            commit
        };
        let outcomes = submit(
            &store,
            vec![with_message(2), with_message(1), with_message(3)],
        )
        .await;
        assert!(is_conflict(&outcomes[1]));
        let read = read_all(&store, "teller", topics()).await;
        let read: Vec<_> = read.iter().map(|message| message.id.as_str()).collect();
        assert_eq!(read, ["for 2", "for 3"]);
        drop(store);
        assert_eq!(
            read_all(&place.open().await, "teller", topics())
                .await
                .len(),
            2
        );
    }
}

#[tokio::test]
async fn messages_are_on_the_log_when_their_commit_returns() {
    for place in places() {
        let store = place.open().await;
        let mut subscription = Bus::Local(store.clone())
            .subscribe("teller", topics())
            .unwrap();
        for number in 0..200 {
            publish(&store, [deposit(&number.to_string(), 1, 1)]).await;
            let batch = subscription
                .try_next(10)
                .await
                .unwrap()
                .expect("the message is there");
            assert_eq!(batch.messages[0].id, number.to_string());
        }
    }
}

#[tokio::test]
async fn messages_beyond_the_log_cache_are_read_with_the_same_result() {
    const MESSAGES: usize = 40_000;
    for place in places() {
        let store = place.open().await;
        let late = Bus::Local(store.clone())
            .subscribe("late", topics())
            .unwrap();
        for piece in 0..MESSAGES / 1000 {
            let messages = (0..1000).map(|number| match number % 10 {
                0 => deposit(&format!("{}", piece * 1000 + number), 1, 1),
                _ => noise(1),
            });
            publish(&store, messages).await;
        }
        let mut late = late;
        let mut read = Vec::new();
        while let Some(batch) = late.try_next(128).await.unwrap() {
            read.extend(
                batch
                    .messages
                    .iter()
                    .map(|message| message.id.parse::<usize>().unwrap()),
            );
        }
        assert_eq!(read, (0..MESSAGES).step_by(10).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn a_position_is_stored_only_if_all_commits_of_its_submission_are_applied() {
    for place in places() {
        let store = place.open().await;
        store_all(&store, &[Account::new(1, 0)]).await;
        publish(&store, (0..3).map(|n| deposit(&n.to_string(), n, 1))).await;
        let position = |store: &Store| {
            Bus::Local(store.clone())
                .subscribe("teller", topics())
                .unwrap()
                .position()
                .unwrap()
                .offset
        };
        let to = |offset| {
            Some(Position {
                group: "teller".into(),
                offset,
            })
        };
        let commits = vec![put(&Account::new(2, 0)), put(&Account::new(1, 9))];
        let outcomes = store
            .submit(Submission {
                commits: commits.into(),
                position: to(2),
            })
            .outcomes()
            .await;
        assert!(outcomes[0].is_ok() && is_conflict(&outcomes[1]));
        assert_eq!(position(&store), 0);

        let commits = vec![put(&Account::new(3, 0))];
        store
            .submit(Submission {
                commits: commits.into(),
                position: to(2),
            })
            .outcomes()
            .await;
        assert_eq!(position(&store), 2);
        // A position never goes back.
        store
            .submit(Submission {
                commits: [].into(),
                position: to(1),
            })
            .outcomes()
            .await;
        drop(store);
        assert_eq!(position(&place.open().await), 2);
    }
}

// ---- opening and closing

#[tokio::test]
async fn acknowledged_commits_survive_a_restart() {
    for place in places() {
        let store = place.open().await;
        for id in 1..=20 {
            let mut commit = put(&Account::new(id, id));
            commit
                .append(&movement(&id.to_string(), id, id))
                .publish(deposit(&id.to_string(), id, 1))
                .set_timer(id.to_string(), start(), noise(id));
            commit.handled = Some(handled("teller", &id.to_string()));
            store.commit(commit).await.unwrap();
        }
        drop(store);
        let store = place.open().await;
        assert_eq!(
            ids(&store, Find::all(Account::TABLE, 100)).await,
            (1..=20).collect::<Vec<_>>()
        );
        assert_eq!(movements(&store).await.len(), 20);
        assert_eq!(read_all(&store, "teller", topics()).await.len(), 20);
        assert_eq!(store.due_timers(start(), 100).await.unwrap().len(), 20);
        assert_eq!(store.seen("teller", &["1", "20"]).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn after_a_clean_stop_the_file_alone_holds_everything() {
    let Some(place @ Place::Folder(folder)) = &places().into_iter().next() else {
        unreachable!("the embedded store is the first place")
    };
    let store = place.open().await;
    store.commit(put(&Account::new(1, 1))).await.unwrap();
    drop(store);
    let beside: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let log = beside
        .iter()
        .find(|path| path.to_string_lossy().ends_with("-wal"));
    assert!(
        log.is_none_or(|log| log.metadata().unwrap().len() == 0),
        "{beside:?}"
    );
}

#[tokio::test]
async fn an_open_folder_cannot_be_opened_again_until_it_is_closed() {
    let Some(place @ Place::Folder(_)) = places().into_iter().next() else {
        unreachable!("the embedded place comes first");
    };
    let first = place.open().await;
    let second = place.try_open(Metrics::unregistered()).await.err();
    assert!(
        matches!(&second, Some(StoreError::Unavailable(reason)) if reason.contains("another process")),
        "{second:?}"
    );
    drop(first);
    assert!(place.try_open(Metrics::unregistered()).await.is_ok());
}

#[tokio::test]
async fn a_file_of_a_newer_format_is_rejected_and_not_changed() {
    let Some(place @ Place::Folder(_)) = places().into_iter().next() else {
        unreachable!("the embedded place comes first");
    };
    let Place::Folder(folder) = &place else {
        unreachable!("the embedded place comes first");
    };
    drop(place.open().await);
    let file = folder.path().join("boxoffice.db");
    let raw = rusqlite::Connection::open(&file).unwrap();
    raw.pragma_update(None, "user_version", 99).unwrap();
    drop(raw);
    let refused = place.try_open(Metrics::unregistered()).await.err();
    assert!(
        matches!(&refused, Some(StoreError::Unavailable(reason)) if reason.contains("newer program")),
        "{refused:?}"
    );
    let raw = rusqlite::Connection::open(&file).unwrap();
    let format: i64 = raw
        .query_row("PRAGMA user_version", (), |row| row.get(0))
        .unwrap();
    assert_eq!(format, 99);
}

#[tokio::test]
async fn a_commit_that_the_database_rejects_does_not_stop_the_store() {
    let Some(place @ Place::Folder(_)) = places().into_iter().next() else {
        unreachable!("the embedded place comes first");
    };
    let store = place.open().await;
    // A key of the wrong type breaks a rule of the database, not of the table.
    let mut odd = put(&Account::new(1, 1));
    odd.puts[0].row.set("id", "not a number".into());
    let mut fraction = put(&Account::new(2, 1));
    fraction.puts[0].row.set("balance", 1.5.into());
    let outcomes = submit(&store, vec![odd, fraction, put(&Account::new(3, 3))]).await;
    assert_eq!(
        outcomes.iter().map(is_constraint).collect::<Vec<_>>(),
        [true, true, false]
    );
    assert_eq!(store.check(), Ok(()));
    assert_eq!(ids(&store, Find::all(Account::TABLE, 10)).await, [3]);
}

#[tokio::test]
async fn after_a_panic_of_the_writer_every_commit_is_rejected() {
    const UNKNOWN: &Table = &Table {
        name: "unknown",
        columns: &[],
        key: "id",
        constraints: &[],
        indexes: &[],
    };
    for place in places() {
        let store = place.open().await;
        let mut commit = put(&Account::new(1, 1));
        commit.puts[0].table = UNKNOWN;
        let outcome = store.commit(commit).await;
        assert!(
            matches!(outcome, Err(CommitError::Store(StoreError::Poisoned(_)))),
            "{outcome:?}"
        );
        assert!(!store.failed().await.is_empty());
        assert!(matches!(store.check(), Err(StoreError::Poisoned(_))));
        let next = store.commit(put(&Account::new(2, 2))).await;
        assert!(matches!(
            next,
            Err(CommitError::Store(StoreError::Poisoned(_)))
        ));
    }
}

// ---- failures that stop the store

/// A place whose commits do not wait for an unreachable server.
fn impatient(place: Place) -> Place {
    match place {
        Place::Schema(mut schema) => {
            schema.settings.wait_secs_max = 0;
            Place::Schema(schema)
        }
        other => other,
    }
}

async fn assert_stopped(store: &Store, refused: Result<(), CommitError>) {
    let is_poisoned =
        |error: &CommitError| matches!(error, CommitError::Store(StoreError::Poisoned(_)));
    assert!(refused.as_ref().is_err_and(is_poisoned), "{refused:?}");
    assert!(matches!(store.check(), Err(StoreError::Poisoned(_))));
    // The process that runs the store ends now.
    let reason = common::within("the store reports its failure", store.failed()).await;
    assert!(!reason.is_empty());
    // Later commits are rejected at once.
    let later = store.commit(put(&Account::new(9, 0))).await;
    assert!(later.is_err_and(|error| is_poisoned(&error)));
}

#[tokio::test]
async fn messages_of_another_program_stop_the_store_and_the_next_start_continues_after_them() {
    for place in places() {
        let store = place.open().await;
        publish(&store, [noise(1)]).await;
        place.run_sql(
            "INSERT INTO {}message (\"offset\", id, topic, key, time, payload)
             VALUES (2, 'foreign 2', 'noise', 'k', 0, '{\"number\":2}'), (3, 'foreign 3', 'noise', 'k', 0, '{\"number\":3}')",
        );
        let mut commit = put(&Account::new(1, 1));
        commit.publish(noise(4));
        let refused = store.commit(commit).await;
        assert_stopped(&store, refused).await;
        drop(store);

        let store = place.open().await;
        publish(&store, [noise(5)]).await;
        let log = read_all(&store, "x", &["noise"]).await;
        let log: Vec<_> = log.iter().map(|message| message.id.as_str()).collect();
        assert_eq!(log, ["noise 1", "foreign 2", "foreign 3", "noise 5"]);
    }
}

#[tokio::test]
async fn a_missing_table_stops_the_store() {
    for place in places().into_iter().map(impatient) {
        let store = place.open().await;
        store_all(&store, &[Account::new(1, 1)]).await;
        place.run_sql("DROP TABLE {}movement");
        let mut commit = put(&Account::new(2, 1));
        commit.append(&movement("m", 2, 1));
        let refused = store.commit(commit).await;
        assert_stopped(&store, refused).await;
    }
}

//! What every store promises of records, submissions, fences and queries. Other crates run it on stores of their own.

use messaging::{
    Commit, CommitError, Fence, Find, Payload, Record, Store, Submission, Timestamp,
    lease::LeaseRecord,
};

use crate::common::{
    Account, Deposit, account, deposit, movement, movements, noise, places, read_all, start,
    store_all,
};

pub fn put(account: &Account) -> Commit {
    let mut commit = Commit::new();
    commit.put(account);
    commit
}

pub async fn submit(store: &Store, commits: Vec<Commit>) -> Vec<Result<(), CommitError>> {
    let position = None;
    store
        .submit(Submission {
            commits: commits.into(),
            position,
        })
        .outcomes()
        .await
}

pub fn is_conflict(outcome: &Result<(), CommitError>) -> bool {
    matches!(outcome, Err(CommitError::Conflict { .. }))
}

pub fn is_constraint(outcome: &Result<(), CommitError>) -> bool {
    matches!(outcome, Err(CommitError::Constraint { .. }))
}

pub fn topics() -> &'static [&'static str] {
    &[Deposit::TOPIC]
}

pub async fn ids(store: &Store, find: Find) -> Vec<i64> {
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

pub fn handled(group: &str, message_id: &str) -> messaging::commit::Handled {
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

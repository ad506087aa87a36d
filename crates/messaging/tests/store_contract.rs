//! The contract of every store; each test runs on every backend.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;
#[path = "store_contract/records.rs"]
mod records;

use common::{
    Account, Place, deposit, movement, movements, noise, places, publish, read_all, start,
    store_all,
};
use messaging::{
    Bus, Commit, CommitError, Find, Metrics, Record, Store, StoreError, Submission, Table,
    store::Position,
};
use records::{handled, ids, is_conflict, is_constraint, put, submit, topics};

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
    let file = folder.path().join("messaging.db");
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
    assert!(refused.is_err_and(|error| error.may_be_applied()));
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

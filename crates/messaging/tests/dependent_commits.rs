//! Decisions of one batch build on one another: if one is rejected, so are those that depend on it.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

mod common;

use common::{Place, bus_places};
use messaging::{
    Commit, CommitError, DeadLetterId, Ref, Store, Submission, Timestamp, commit::Handled,
    dead_letters::DeadLetter, dead_letters::DeadLetterRecord, dead_letters::DeadLetterState,
};

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// Any record will do; the writers below count in `reissues`.
fn record(version: i64, reissues: u32) -> DeadLetterRecord {
    let id = DeadLetterId(uuid::Uuid::from_u128(1));
    let letter = DeadLetter {
        event_id: id,
        retry_count: 0,
        max_retry_count: 3,
        retry_interval_millis: 10_000,
        time_stamp: NOW,
        reason: String::new(),
        reissued_topic: String::new(),
        reissued_key: String::new(),
        reissued_payload: String::new(),
        group: String::new(),
        message_id: String::new(),
        traceparent: None,
    };
    DeadLetterRecord {
        id,
        state: DeadLetterState::Waiting,
        letter,
        reissues,
        created_at: NOW,
        updated_at: NOW,
        version,
    }
}

fn put(record: &DeadLetterRecord) -> Commit {
    let mut commit = Commit::new();
    commit.put(record);
    commit
}

/// A store whose record another writer has counted to 1, so that it has version 2.
async fn changed_by_another(place: &Place) -> Store {
    let store = place.open().await;
    store.commit(put(&record(0, 0))).await.unwrap();
    store.commit(put(&record(1, 1))).await.unwrap();
    store
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

#[tokio::test]
async fn a_change_based_on_a_rejected_one_is_rejected_even_if_its_version_matches() {
    for place in bus_places() {
        let store = changed_by_another(&place).await;

        // Decided before the other writer's change: 0 becomes 10, and that becomes 20.
        let outcomes = submit(&store, vec![put(&record(1, 10)), put(&record(2, 20))]).await;

        for outcome in outcomes {
            assert!(
                matches!(outcome, Err(CommitError::Conflict { .. })),
                "{outcome:?}"
            );
        }
        let kept: DeadLetterRecord = store.load(record(0, 0).id).await.unwrap().unwrap();
        assert_eq!(
            (kept.reissues, kept.version),
            (1, 2),
            "the other writer's change was lost"
        );
    }
}

#[tokio::test]
async fn a_commit_that_read_a_rejected_change_is_rejected_and_an_independent_one_is_applied() {
    for place in bus_places() {
        let store = changed_by_another(&place).await;
        let mut dependent = Commit::new();
        dependent
            .required_records
            .push(Ref::to::<DeadLetterRecord>(record(0, 0).id));
        let independent = Commit::new();

        let outcomes = submit(&store, vec![put(&record(1, 10)), dependent, independent]).await;

        let applied: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
        assert_eq!(applied, [false, false, true]);
    }
}

/// The commit of a message, changing nothing else.
fn of_message(message_id: &str, key: &str) -> Commit {
    let mut commit = Commit::new();
    commit.handled = Some(Handled {
        group: "teller".to_owned(),
        message_id: message_id.to_owned(),
        key: key.to_owned(),
        at: NOW,
    });
    commit
}

#[tokio::test]
async fn no_message_overtakes_a_rejected_one_of_its_key() {
    for place in bus_places() {
        let store = changed_by_another(&place).await;
        let mut rejected = of_message("first of a", "a");
        rejected.put(&record(1, 10));
        let later = [
            of_message("second of a", "a"),
            of_message("first of b", "b"),
        ];

        let outcomes = submit(&store, [vec![rejected], later.into()].concat()).await;

        let applied: Vec<_> = outcomes.iter().map(Result::is_ok).collect();
        assert_eq!(applied, [false, false, true]);
    }
}

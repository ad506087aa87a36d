//! What a person does with dead letters: list, show, replay, discard. State: none but the store's.

use super::{DeadLetterRecord, DeadLetterState, OUTBOX, timer_id};
use crate::{
    Commit, CommitError, DeadLetterId, Find, Message, Record, Store, StoreError, Timestamp,
};

/// Why an operation on a dead letter failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no dead letter {0}")]
    NotFound(DeadLetterId),
    #[error("the dead letter {id} is {state:?}")]
    WrongState {
        id: DeadLetterId,
        state: DeadLetterState,
    },
    #[error("the dead letter {0} was changed at the same moment")]
    Changed(DeadLetterId),
    #[error("the message of the dead letter {id} cannot be published: {reason}")]
    Unpublishable { id: DeadLetterId, reason: String },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Dead letters in the order of their creation; `state` narrows.
///
/// # Errors
/// [`StoreError`] if the store cannot answer.
pub async fn list(
    store: &Store,
    state: Option<DeadLetterState>,
    after: Option<DeadLetterId>,
    limit: u32,
) -> Result<Vec<DeadLetterRecord>, StoreError> {
    let mut find = Find::all(DeadLetterRecord::TABLE, limit).after(after);
    if let Some(state) = state {
        find = find.equals(
            "state",
            serde_json::to_value(state).expect("a state is a string"),
        );
    }
    store.find(find).await
}

/// One dead letter.
///
/// # Errors
/// [`Error::NotFound`]; [`Error::Store`].
pub async fn show(store: &Store, id: DeadLetterId) -> Result<DeadLetterRecord, Error> {
    store.load(id).await?.ok_or(Error::NotFound(id))
}

/// Reissues a dead letter's message to its group at once. One that names no group goes to every group that reads its
/// topic, as a message of its own, and is closed: a new rejection makes a new dead letter. One that the brokers refused is
/// sent to them again by the relay.
///
/// # Errors
/// [`Error::WrongState`] if it is resolved or discarded; [`Error::Unpublishable`]; [`Error::NotFound`];
/// [`Error::Store`].
pub async fn replay(
    store: &Store,
    id: DeadLetterId,
    now: Timestamp,
) -> Result<DeadLetterRecord, Error> {
    let mut record = open(store, id).await?;
    record.reissues += 1;
    record.updated_at = now;
    let message = Message::reissued(&record.letter, record.reissues, now);
    // A message for every group does not come back to this dead letter.
    record.state = match message.reissue {
        Some(_) => DeadLetterState::Replayed,
        None => DeadLetterState::Resolved,
    };
    let mut commit = Commit::new();
    commit.cancel_timer(timer_id(id)).put(&record);
    // That of `OUTBOX` is still in the outbox.
    if record.letter.group != OUTBOX {
        commit.publish(message);
    }
    save(store, id, commit).await?;
    Ok(record)
}

/// Closes a dead letter without handling its message.
///
/// # Errors
/// [`Error::WrongState`] if it is resolved or discarded; [`Error::NotFound`]; [`Error::Store`].
pub async fn discard(
    store: &Store,
    id: DeadLetterId,
    now: Timestamp,
) -> Result<DeadLetterRecord, Error> {
    let mut record = open(store, id).await?;
    record.state = DeadLetterState::Discarded;
    record.updated_at = now;
    let mut commit = Commit::new();
    commit.cancel_timer(timer_id(id)).put(&record);
    save(store, id, commit).await?;
    Ok(record)
}

async fn open(store: &Store, id: DeadLetterId) -> Result<DeadLetterRecord, Error> {
    let record = show(store, id).await?;
    match record.state {
        DeadLetterState::Waiting | DeadLetterState::Parked | DeadLetterState::Replayed => {
            Ok(record)
        }
        DeadLetterState::Resolved | DeadLetterState::Discarded => Err(Error::WrongState {
            id,
            state: record.state,
        }),
    }
}

async fn save(store: &Store, id: DeadLetterId, commit: Commit) -> Result<(), Error> {
    store.commit(commit).await.map_err(|error| match error {
        CommitError::Conflict { .. } | CommitError::Fenced { .. } => Error::Changed(id),
        CommitError::Constraint { detail: reason } => Error::Unpublishable { id, reason },
        CommitError::Store(error) => Error::Store(error),
    })
}

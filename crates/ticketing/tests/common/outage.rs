//! A deployment whose connection to PostgreSQL can be cut, for the tests of both backends.

use contract::{EventId, TicketId, UserId};
use messaging::{
    Commit, CommitError, Message, Postgres, PostgresSettings, Random, Store, StoreError, Table,
};
use tempfile::TempDir;
use ticketing::reservations::Error;

use crate::{
    backend::Backend,
    cuttable_schema::{self, PATIENCE},
    suite::{Deployment, TTL_MILLIS, at},
};

fn tables() -> Vec<&'static Table> {
    [messaging::TABLES, ticketing::TABLES].concat()
}

pub async fn open(settings: &PostgresSettings) -> Store {
    cuttable_schema::open(settings, &tables()).await
}

pub async fn deploy(settings: &PostgresSettings, quantity: i64) -> Deployment {
    Postgres::migrate(settings, &tables()).await.unwrap();
    let (folder, store) = (TempDir::new().unwrap(), open(settings).await);
    Deployment::over(folder, store, Backend::new(TTL_MILLIS), quantity).await
}

pub fn is_unknown(error: &Error) -> bool {
    matches!(
        error,
        Error::Commit(CommitError::Store(StoreError::Unknown(_)))
    )
}

/// A Commit that is stored with a decision, as the answer to a keyed request is.
pub fn also() -> Commit {
    let expire = contract::ticketing::Expire {
        ticket_id: TicketId(Random::seeded(3).uuid(at(0))),
        event_id: EventId(1),
        user_id: UserId(1),
    };
    let mut commit = Commit::new();
    commit.publish(Message::new("also", &expire, at(0)));
    commit
}

/// Returns when the store commits again: then the outcome of every earlier commit is known.
pub async fn until_known(deployment: &Deployment) {
    let known = async {
        while deployment
            .reservations()
            .store()
            .commit(also())
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, known).await.unwrap();
}

//! PostgreSQL becomes unavailable during a grant's commit, for longer than any caller waits.

use std::time::Duration;

use messaging::{
    Commit, CommitError, Metrics, Postgres, PostgresSettings, Store, StoreError, Table,
};
use tempfile::TempDir;
use ticketing::{
    model::ReservationRecord,
    reservations::{Error, Granted},
};

use crate::{
    backend::Backend,
    line::{Cut, Line},
    postgres,
    suite::{Deployment, TTL_MILLIS, at},
};

/// What must come does so within this.
const PATIENCE: Duration = Duration::from_secs(20);

fn tables() -> Vec<&'static Table> {
    [messaging::TABLES, ticketing::TABLES].concat()
}

async fn open(settings: &PostgresSettings) -> Store {
    let opened = Store::open_postgres(settings, &tables(), Metrics::unregistered()).await;
    opened.unwrap()
}

fn is_unknown(error: &Error) -> bool {
    matches!(
        error,
        Error::Commit(CommitError::Store(StoreError::Unknown(_)))
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_with_an_unknown_outcome_stands_until_it_is_known() {
    for (cut, is_there) in [(Cut::BehindCommit, true), (Cut::BeforeCommit, false)] {
        let schema = postgres::Schema::new();
        let line = Line::lay(postgres::url()).await;
        let settings = PostgresSettings {
            url: line.url.clone(),
            wait_secs_max: 0,
            ..schema.settings.clone()
        };
        Postgres::migrate(&settings, &tables()).await.unwrap();
        let (folder, store) = (TempDir::new().unwrap(), open(&settings).await);
        let deployment = Deployment::over(folder, store, Backend::new(TTL_MILLIS), 1).await;

        line.cut_for_long(cut);
        let asked = deployment
            .reserve_keyed_with(1, at(0), *b"thekey", Commit::new())
            .await;
        assert!(is_unknown(asked.as_ref().unwrap_err()), "{asked:?}");

        // No other buyer gets the ticket, and the repeated request gets no answer that may turn out wrong.
        assert_eq!(deployment.stats().await.waiting, 1, "{cut:?}");
        let held = deployment.find(1).await.unwrap().ticket_id;
        let again = deployment
            .reserve_keyed_with(1, at(0), *b"thekey", Commit::new())
            .await;
        assert!(again.is_err(), "{again:?}");

        line.mend();
        // The repeated request is granted its first ticket if that was stored, otherwise a new one.
        let granted = async {
            loop {
                let asked = deployment
                    .reserve_keyed_with(1, at(0), *b"thekey", Commit::new())
                    .await;
                match asked {
                    Ok((named, Granted::Now)) => return named,
                    Ok((_, Granted::Before { ticket_id, .. })) => return ticket_id,
                    Err(_) => tokio::task::yield_now().await,
                }
            }
        };
        let granted = tokio::time::timeout(PATIENCE, granted).await.unwrap();
        assert_eq!(granted == held, is_there, "{cut:?}");
        assert_eq!(deployment.stats().await.waiting, 1);

        // After a restart there is one row.
        drop(deployment);
        let store = open(&settings).await;
        let find = messaging::Find::all(<ReservationRecord as messaging::Record>::TABLE, 10);
        let rows: Vec<ReservationRecord> = store.find(find).await.unwrap();
        let tickets: Vec<_> = rows.iter().map(|row| row.ticket_id).collect();
        assert_eq!(tickets, [granted]);
    }
}

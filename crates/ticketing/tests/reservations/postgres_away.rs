//! PostgreSQL becomes unavailable during a commit, for longer than any caller waits.

use contract::TicketId;
use messaging::{Commit, Find, PostgresSettings, Record, StoreError};
use test_support::eventually;
use ticketing::{model::ReservationRecord, reservations::Granted};

use crate::{
    cuttable_schema::CuttableSchema,
    line::Cut,
    outage::{deploy, is_unknown, open, until_known},
    suite::{POLLING, TTL_MILLIS, at, claim_id, until},
};

/// The tickets of the stored claims, as a restart finds them.
async fn stored(settings: &PostgresSettings) -> Vec<TicketId> {
    let find = Find::all(ReservationRecord::TABLE, 10);
    let rows: Vec<ReservationRecord> = open(settings).await.find(find).await.unwrap();
    rows.iter().map(|row| row.ticket_id).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_with_an_unknown_outcome_stands_until_it_is_known() {
    for (cut, is_there) in [(Cut::BehindCommit, true), (Cut::BeforeCommit, false)] {
        let CuttableSchema { line, settings, .. } = &CuttableSchema::new().await;
        let deployment = deploy(settings, 1).await;

        line.cut_for_long(cut);
        let asked = deployment
            .reserve_keyed_with(1, at(0), *b"thekey", Commit::new())
            .await;
        assert!(is_unknown(asked.as_ref().unwrap_err()), "{asked:?}");

        // No other buyer gets the ticket, and the repeated request gets no answer that may turn out wrong.
        assert_eq!(deployment.stats().await.waiting, 1, "{cut:?}");
        assert_eq!(deployment.find(1).await, None, "no purchase begins with it");
        let again = deployment
            .reserve_keyed_with(1, at(0), *b"thekey", Commit::new())
            .await;
        assert!(again.is_err(), "{again:?}");

        line.mend();
        // The repeated request is granted its first ticket if that was stored, otherwise a new one.
        let (granted, is_first) = eventually(POLLING, "the request is granted", async || {
            let request = deployment.reserve_keyed_with(1, at(0), *b"thekey", Commit::new());
            request.await.map(|(named, granted)| match granted {
                Granted::Now => (named, false),
                Granted::Before(first) => (first.ticket_id, true),
            })
        })
        .await;
        assert_eq!(is_first, is_there, "{cut:?}");
        assert_eq!(deployment.find(1).await.unwrap().ticket_id, granted);
        assert_eq!(deployment.stats().await.waiting, 1);

        // After a restart there is one row.
        drop(deployment);
        assert_eq!(stored(settings).await, [granted]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_with_an_unknown_outcome_stands_until_it_is_known() {
    for (cut, is_stored) in [(Cut::BehindCommit, true), (Cut::BeforeCommit, false)] {
        let CuttableSchema { line, settings, .. } = &CuttableSchema::new().await;
        let deployment = deploy(settings, 1).await;
        let ticket = deployment.reserve(1, at(0)).await.unwrap();

        line.cut_for_long(cut);
        let released = deployment
            .reservations()
            .release_by_buyer(claim_id(1, ticket), |_| Commit::new())
            .await;
        assert!(is_unknown(released.as_ref().unwrap_err()), "{released:?}");
        assert_eq!(deployment.find(1).await, None, "{cut:?}");

        line.mend();
        until_known(&deployment).await;
        // A release that was not stored is undone a little later.
        until("it is settled", async || {
            deployment.find(1).await.is_some() != is_stored
        })
        .await;
        drop(deployment);
        let left = if is_stored { vec![] } else { vec![ticket] };
        assert_eq!(stored(settings).await, left);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_with_an_unknown_outcome_stands_until_it_is_known() {
    for (cut, is_stored) in [(Cut::BehindCommit, true), (Cut::BeforeCommit, false)] {
        let CuttableSchema { line, settings, .. } = &CuttableSchema::new().await;
        let deployment = deploy(settings, 1).await;
        let claim = claim_id(1, deployment.reserve(1, at(0)).await.unwrap());

        line.cut_for_long(cut);
        let expired = deployment
            .reservations()
            .expire(at(TTL_MILLIS), 10, |_| Commit::new())
            .await;
        assert!(
            matches!(expired, Err(StoreError::Unknown(_))),
            "{expired:?}"
        );
        assert_eq!(deployment.find(1).await, None, "{cut:?}");

        line.mend();
        until_known(&deployment).await;
        // An expiry that was not stored is undone a little later, and the claim expires again.
        until("it is settled", async || {
            deployment.find(1).await.is_some() != is_stored
        })
        .await;
        let expected = if is_stored { vec![] } else { vec![claim] };
        assert_eq!(deployment.expire(at(TTL_MILLIS)).await, expected);
        drop(deployment);
        assert_eq!(stored(settings).await, []);
    }
}

//! PostgreSQL is unavailable, or does not answer, under reservations that Redis decides.

use std::sync::Arc;

use contract::{EventId, TicketId};
use messaging::{Commit, Random, StoreError};
use ticketing::{
    Reservations,
    reservations::{ClaimId, Completion, Deadlines, Error, Granted, Refusal, ReserveRequest},
};

use crate::{
    cuttable_schema::CuttableSchema,
    late_commits::RETRY_MILLIS,
    line::Cut,
    outage::{also, deploy, is_unknown, until_known},
    postgres,
    suite::{POLLING, TTL_MILLIS, at, claim_id, until},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_whose_commit_has_an_unknown_outcome_stands_until_it_is_known() {
    for (cut, is_there) in [(Cut::BehindCommit, true), (Cut::BeforeCommit, false)] {
        let CuttableSchema { line, settings, .. } = &CuttableSchema::new().await;
        let deployment = deploy(settings, 2).await;
        line.cut_for_long(cut);
        let asked = deployment.reserve_with(1, at(0), also()).await;
        assert!(is_unknown(asked.as_ref().unwrap_err()), "{asked:?}");
        assert!(deployment.find(1).await.is_some(), "{cut:?}");

        line.mend();
        until_known(&deployment).await;
        // A grant that was not stored is undone a little later.
        until("the outcome is known", async || {
            deployment.backend.clock.advance_millis(100);
            is_there || deployment.find(1).await.is_none()
        })
        .await;
        if is_there {
            deployment.backend.clock.advance_millis(60_000);
            assert!(deployment.reserve(2, at(0)).await.is_ok());
        }
        assert_eq!(deployment.find(1).await.is_some(), is_there);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_with_an_unknown_outcome_stands_and_ends_once() {
    for cut in [Cut::BehindCommit, Cut::BeforeCommit] {
        let CuttableSchema { line, settings, .. } = &CuttableSchema::new().await;
        let deployment = deploy(settings, 1).await;
        let claim = claim_id(1, deployment.reserve(1, at(0)).await.unwrap());

        line.cut_for_long(cut);
        let released = deployment
            .reservations()
            .release_by_buyer(claim, |_| also())
            .await;
        assert!(is_unknown(released.as_ref().unwrap_err()), "{released:?}");
        assert_eq!(deployment.find(1).await, None, "{cut:?}");

        line.mend();
        until_known(&deployment).await;
        assert_eq!(deployment.expire(at(RETRY_MILLIS - 1)).await, []);
        assert_eq!(deployment.expire(at(RETRY_MILLIS)).await, [claim]);
        assert_eq!(deployment.stats().await.available, 1);
    }
}

/// The Commit of its ticket would be stored beside that of the release.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_its_buyer_is_giving_back_is_not_completed() {
    let CuttableSchema { line, settings, .. } = &CuttableSchema::new().await;
    let deployment = deploy(settings, 1).await;
    let claim = claim_id(1, deployment.reserve(1, at(0)).await.unwrap());
    line.cut_for_long(Cut::BehindCommit);
    let reservations = deployment.reservations();
    let released = reservations.release_by_buyer(claim, |_| also()).await;
    assert!(is_unknown(released.as_ref().unwrap_err()), "{released:?}");
    line.mend();
    until_known(&deployment).await;

    let completed = reservations.complete(&[claim]).await.unwrap();

    assert!(matches!(completed[..], [Completion::Gone]), "{completed:?}");
    assert_eq!(deployment.expire(at(RETRY_MILLIS)).await, [claim]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_with_an_unknown_outcome_stands_and_ends_once() {
    for cut in [Cut::BehindCommit, Cut::BeforeCommit] {
        let CuttableSchema { line, settings, .. } = &CuttableSchema::new().await;
        let deployment = deploy(settings, 1).await;
        let claim = claim_id(1, deployment.reserve(1, at(0)).await.unwrap());

        line.cut_for_long(cut);
        let expired = deployment
            .reservations()
            .expire(at(TTL_MILLIS), 10, |_| also())
            .await;
        assert!(
            matches!(expired, Err(StoreError::Unknown(_))),
            "{expired:?}"
        );
        assert_eq!(deployment.find(1).await, None, "{cut:?}");

        line.mend();
        until_known(&deployment).await;
        let retry_millis = TTL_MILLIS + RETRY_MILLIS;
        assert_eq!(deployment.expire(at(retry_millis - 1)).await, []);
        assert_eq!(deployment.expire(at(retry_millis)).await, [claim]);
        assert_eq!(deployment.stats().await.available, 1);
    }
}

async fn reserve(reservations: &Reservations, event_id: i64, user: i64) -> Result<Granted, Error> {
    let random = Random::seeded(user.unsigned_abs());
    let request = ReserveRequest {
        claim: ClaimId {
            event_id: EventId(event_id),
            ..claim_id(user, TicketId(random.uuid(at(0))))
        },
        deadlines: Deadlines {
            expires_at: at(TTL_MILLIS),
            lapses_at: at(TTL_MILLIS),
        },
        also: Commit::new(),
    };
    reservations.reserve(request, at(0)).await
}

/// Locks the table from another session, so that no query is answered, until this is dropped.
async fn lock_allocation(schema: &postgres::Schema) -> tokio_postgres::Client {
    let connected = tokio_postgres::connect(postgres::url(), tokio_postgres::NoTls).await;
    let (client, connection) = connected.unwrap();
    tokio::spawn(connection);
    let name = &schema.settings.schema;
    let statement = format!("BEGIN; LOCK TABLE {name}.allocation IN ACCESS EXCLUSIVE MODE");
    client.batch_execute(&statement).await.unwrap();
    client
}

/// Returns when a query waits for the lock.
async fn query_waits(lock: &tokio_postgres::Client, schema: &postgres::Schema) {
    let name = &schema.settings.schema;
    let text = format!(
        "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = '{name}.allocation'::regclass"
    );
    until("a query waits", async || {
        let waiting: i64 = lock.query_one(&text, &[]).await.unwrap().get(0);
        waiting > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_waits_for_the_store_lookup_of_an_event_that_redis_does_not_know() {
    const UNKNOWN: i64 = 99;
    let schema = postgres::Schema::new();
    let deployment = Arc::new(deploy(&schema.settings, 2).await);
    let lock = lock_allocation(&schema).await;
    let asked = |user| {
        let deployment = Arc::clone(&deployment);
        tokio::spawn(async move { reserve(deployment.reservations(), UNKNOWN, user).await })
    };

    // Given requests for an event that the store must look up, while it does not answer,
    let (first, second) = (asked(11), asked(12));
    query_waits(&lock, &schema).await;
    // then every other request is answered meanwhile, in any batch;
    for user in 1..=2 {
        let granted = reserve(deployment.reservations(), 1, user);
        let granted = tokio::time::timeout(POLLING.timeout / 4, granted)
            .await
            .unwrap();
        assert_eq!(granted, Ok(Granted::Now));
    }
    assert!(!first.is_finished() && !second.is_finished());

    // when the store answers, so are both;
    drop(lock);
    let unknown = Err(Error::Refused(Refusal::EventNotFound));
    assert_eq!(first.await.unwrap(), unknown);
    assert_eq!(second.await.unwrap(), unknown);

    // and for a second the store is not asked again.
    let lock = lock_allocation(&schema).await;
    assert_eq!(asked(13).await.unwrap(), unknown);
    deployment.backend.clock.advance_millis(1_000);
    let later = asked(14);
    query_waits(&lock, &schema).await;
    let granted = reserve(deployment.reservations(), 1, 15).await;
    assert_eq!(granted, Err(Refusal::SoldOut.into()));
    assert!(!later.is_finished());
    drop(lock);
    assert_eq!(later.await.unwrap(), unknown);
}

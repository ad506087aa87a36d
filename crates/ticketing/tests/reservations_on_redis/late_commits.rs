//! Commits that come late or never: of a release by the buyer, whose process was paused or whose store was away, and of a
//! grant. Either the ticket is released or it is issued, and no purchase is left without its claim.

use std::sync::Arc;

use contract::TicketId;
use messaging::{Commit, CommitError, Random};
use ticketing::{
    model::Purchase,
    reservations::{ClaimId, Completion, Error},
};
use tokio::sync::oneshot;

use crate::suite::{
    Deployment, SEED, at, claim_id, conflicting, released, start_purchase, while_releasing,
};

/// When an expiry or a release that has begun and was not ended is due again.
pub const RETRY_MILLIS: i64 = 30_000;

async fn with_purchase() -> (Arc<Deployment>, ClaimId) {
    let deployment = Deployment::with_quantity(1).await;
    let claim = claim_id(1, deployment.reserve(1, at(0)).await.unwrap());
    start_purchase(&deployment, claim.ticket_id, 1).await;
    (Arc::new(deployment), claim)
}

async fn is_completed(deployment: &Deployment, claim: ClaimId) -> bool {
    let completed = deployment.reservations().complete(&[claim]).await.unwrap();
    matches!(completed[..], [Completion::Completed(_)])
}

fn is_conflict(outcome: &Result<bool, Error>) -> bool {
    matches!(outcome, Err(Error::Commit(CommitError::Conflict { .. })))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expiry_that_is_not_stored_does_not_end_a_release_in_progress() {
    let (deployment, claim) = with_purchase().await;
    let inside = Arc::clone(&deployment);
    let also = move |purchase: Option<Purchase>| {
        while_releasing(async {
            let expired = inside
                .reservations()
                .expire(at(RETRY_MILLIS), 10, |_| conflicting());
            assert!(expired.await.is_err());
            assert!(!is_completed(&inside, claim).await);
        });
        released(purchase.unwrap())
    };

    let outcome = deployment
        .reservations()
        .release_by_buyer(claim, also)
        .await;

    assert_eq!(outcome, Ok(true));
    assert_eq!(deployment.stats().await.available, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_whose_claim_expired_meanwhile_and_was_paid_is_refused() {
    let (deployment, claim) = with_purchase().await;
    let inside = Arc::clone(&deployment);
    let also = move |purchase: Option<Purchase>| {
        while_releasing(async {
            let expired = inside
                .reservations()
                .expire(at(RETRY_MILLIS), 10, |_| Commit::new());
            assert_eq!(expired.await.unwrap().closing, [claim]);
            assert!(is_completed(&inside, claim).await);
        });
        released(purchase.unwrap())
    };

    let outcome = deployment
        .reservations()
        .release_by_buyer(claim, also)
        .await;

    assert!(is_conflict(&outcome), "{outcome:?}");
    assert_eq!(deployment.stats().await.completed, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_whose_claim_expired_meanwhile_with_a_purchase_that_it_does_not_know_is_refused()
{
    let deployment = Arc::new(Deployment::with_quantity(1).await);
    let claim = claim_id(1, deployment.reserve(1, at(0)).await.unwrap());
    let inside = Arc::clone(&deployment);
    let also = move |purchase: Option<Purchase>| {
        assert_eq!(purchase, None);
        while_releasing(async {
            // It had found the claim before it was marked.
            start_purchase(&inside, claim.ticket_id, 1).await;
            let expired = inside
                .reservations()
                .expire(at(RETRY_MILLIS), 10, |_| Commit::new());
            assert_eq!(expired.await.unwrap().closing, [claim]);
        });
        Commit::new()
    };

    let outcome = deployment
        .reservations()
        .release_by_buyer(claim, also)
        .await;

    assert!(outcome.is_err(), "{outcome:?}");
    assert_eq!(deployment.find(1).await.unwrap().ticket_id, claim.ticket_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_release_that_is_refused_does_not_end_the_next_one() {
    let (deployment, claim) = with_purchase().await;
    let (begun, has_begun) = oneshot::channel();
    let (ended, has_ended) = oneshot::channel();
    let (first, second) = (Arc::clone(&deployment), Arc::clone(&deployment));
    let next = async move {
        let inside = Arc::clone(&second);
        let also = move |purchase: Option<Purchase>| {
            begun.send(()).unwrap();
            while_releasing(async {
                has_ended.await.unwrap();
                assert!(!is_completed(&inside, claim).await);
            });
            released(purchase.unwrap())
        };
        second.backend.clock.advance_millis(1);
        second.reservations().release_by_buyer(claim, also).await
    };
    let mut next = Some(next);
    let running = Arc::new(std::sync::Mutex::new(None));
    let spawned = Arc::clone(&running);
    let also = move |purchase: Option<Purchase>| {
        while_releasing(async {
            let expired = first
                .reservations()
                .expire(at(RETRY_MILLIS), 10, |_| Commit::new());
            assert_eq!(expired.await.unwrap().closing, [claim]);
            let next = tokio::spawn(next.take().unwrap());
            *spawned.lock().unwrap() = Some(next);
            has_begun.await.unwrap();
        });
        released(purchase.unwrap())
    };

    let outcome = deployment
        .reservations()
        .release_by_buyer(claim, also)
        .await;
    assert!(is_conflict(&outcome), "{outcome:?}");
    ended.send(()).unwrap();
    let next = running.lock().unwrap().take().unwrap();

    assert_eq!(next.await.unwrap(), Ok(true));
    assert_eq!(deployment.stats().await.available, 1);
}

/// The user's next request found the claim, and began a purchase with it.
#[tokio::test]
async fn a_grant_that_was_not_stored_stands_if_a_purchase_has_begun_with_it() {
    let deployment = Deployment::with_quantity(2).await;
    let ticket_id = TicketId(Random::seeded(SEED).uuid(at(0)));
    start_purchase(&deployment, ticket_id, 1).await;

    for user in [1, 2] {
        let asked = deployment.reserve_with(user, at(0), conflicting()).await;
        assert!(asked.is_err(), "{asked:?}");
    }

    assert_eq!(deployment.find(1).await.unwrap().ticket_id, ticket_id);
    assert_eq!(deployment.find(2).await, None);
    assert_eq!(deployment.stats().await.waiting, 1);
}

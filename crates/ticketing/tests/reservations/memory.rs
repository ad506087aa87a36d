//! What only the backend in memory promises: the memory is rebuilt from the rows, and undone if a commit is not stored.

use futures::{FutureExt, poll};
use messaging::{Commit, StoreError};
use test_support::eventually;
use ticketing::{
    model::{ReservationRecord, ReservationState},
    reservations::Completion,
};

use crate::suite::{Deployment, EVENT, POLLING, TTL_MILLIS, at, claim_id, conflicting, until};

#[tokio::test]
async fn a_retaken_claim_that_is_not_stored_is_free_after_a_crash() {
    let mut deployment = Deployment::with_quantity(1).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();
    deployment.expire(at(TTL_MILLIS)).await;
    let retaken = deployment.retake(1, ticket, at(TTL_MILLIS)).await;
    assert!(matches!(retaken, Completion::Completed(_)));

    deployment.restart().await;

    assert_eq!(deployment.stats().await.available, 1);
    let again = deployment.retake(1, ticket, at(TTL_MILLIS)).await;
    assert!(matches!(again, Completion::Completed(_)));
}

#[tokio::test]
async fn a_release_that_is_not_stored_is_undone_even_if_its_caller_is_dropped() {
    let deployment = Deployment::with_quantity(1).await;
    let ticket_id = deployment.reserve(1, at(0)).await.unwrap();
    let claim = claim_id(1, ticket_id);

    // The caller is dropped after one poll; the store's writer thread may have answered by then.
    let released = deployment
        .reservations()
        .release_by_buyer(claim, |_| conflicting());
    drop(released.now_or_never());

    until("the claim is back", async || {
        deployment.find(1).await.is_some()
    })
    .await;
    assert_eq!(deployment.find(1).await.unwrap().ticket_id, ticket_id);
}

#[tokio::test]
async fn a_released_claim_that_is_not_stored_and_went_to_another_buyer_expires_at_once() {
    let mut deployment = Deployment::with_quantity(1).await;
    let ticket_id = deployment.reserve(1, at(0)).await.unwrap();
    let claim = claim_id(1, ticket_id);

    let released = deployment
        .reservations()
        .release_by_buyer(claim, |_| conflicting());
    let mut released = Box::pin(released);
    let other = loop {
        let is_over = poll!(&mut released).is_ready();
        match deployment.reserve(2, at(1)).await {
            Ok(other) => break other,
            Err(_) if is_over => {
                // The writer was faster: the claim is restored, and no other buyer has the ticket.
                assert_eq!(deployment.find(1).await.unwrap().ticket_id, ticket_id);
                return;
            }
            Err(_) => tokio::task::yield_now().await,
        }
    };
    drop(released);

    assert_eq!(
        deployment.stats().await.waiting,
        1,
        "no more is claimed than there is"
    );
    let mut expired = Vec::new();
    until("a claim expires", async || {
        expired = deployment.expire(at(2)).await;
        !expired.is_empty()
    })
    .await;
    assert_eq!(expired, [claim]);
    deployment.restart().await;
    let held = deployment.find(2).await;
    assert_eq!(held.unwrap().ticket_id, other);
    assert_eq!(deployment.stats().await.waiting, 1);
}

#[tokio::test]
async fn a_grant_that_is_not_stored_is_undone_even_if_its_caller_is_dropped() {
    let deployment = Deployment::with_quantity(100).await;
    // Each caller is dropped after one poll; the store's writer thread may have answered some of them by then.
    for user in 1..=100 {
        let reserved = deployment.reserve_with(user, at(0), conflicting());
        drop(reserved.now_or_never());
    }

    until("the grants are undone", async || {
        deployment.stats().await.waiting == 0
    })
    .await;
    assert!(deployment.reserve(2, at(0)).await.is_ok());
}

#[tokio::test]
async fn an_expiry_that_is_not_stored_is_undone_even_if_its_caller_is_dropped() {
    let deployment = Deployment::with_quantity(1).await;
    let ticket_id = deployment.reserve(1, at(0)).await.unwrap();

    // The caller is dropped once the claim is freed; the store's writer thread may have answered by then.
    let reservations = deployment.reservations();
    let expired = reservations.expire(at(TTL_MILLIS), 10, |_| conflicting());
    let mut expired = Box::pin(expired);
    while poll!(&mut expired).is_pending() && deployment.find(1).await.is_some() {
        tokio::task::yield_now().await;
    }
    drop(expired);

    until("the claim is back", async || {
        deployment.find(1).await.is_some()
    })
    .await;
    let claim = claim_id(1, ticket_id);
    assert_eq!(deployment.expire(at(TTL_MILLIS)).await, [claim]);
}

#[tokio::test]
async fn a_repeated_keyed_request_is_not_answered_with_a_grant_that_is_not_stored() {
    let mut deployment = Deployment::with_quantity(1).await;
    let first = deployment.reserve_keyed_with(1, at(0), *b"thekey", conflicting());
    drop(first.now_or_never());

    // The first grant may still be in memory, and will not be stored: nothing is granted until it is undone.
    let (ticket_id, _) = eventually(POLLING, "the request is granted", async || {
        let again = deployment.reserve_keyed_with(1, at(0), *b"thekey", Commit::new());
        let again = again.await.map_err(StoreError::from);
        again.inspect_err(|error| assert!(matches!(error, StoreError::Unavailable(_)), "{error}"))
    })
    .await;

    deployment.restart().await;
    let held = deployment.find(1).await.expect("a granted claim is stored");
    assert_eq!(held.ticket_id, ticket_id);
}

/// A process granted a ticket, believed that the grant was lost, and granted another.
#[tokio::test]
async fn of_two_stored_claims_of_one_user_the_later_stands_and_a_completed_one_over_both() {
    let mut deployment = Deployment::with_quantity(3).await;
    let earlier = deployment.reserve(1, at(0)).await.unwrap();
    let bought = deployment.reserve(2, at(0)).await.unwrap();
    let row = |user, millis: i64, state| {
        let ticket_id = contract::TicketId(messaging::Random::seeded(9).uuid(at(millis)));
        ReservationRecord {
            ticket_id,
            event_id: EVENT,
            user_id: contract::UserId(user),
            state,
            expires_at: at(TTL_MILLIS),
            lapses_at: at(TTL_MILLIS),
            agreed_price: None,
            version: 0,
        }
    };
    let completed = deployment
        .reservations()
        .complete(&[claim_id(2, bought)])
        .await
        .unwrap();
    let Completion::Completed(proof) = &completed[0] else {
        panic!("it waited");
    };
    deployment.save(bought, proof.clone()).await;
    let (later, second) = (
        row(1, 5, ReservationState::Waiting),
        row(2, 6, ReservationState::Waiting),
    );
    let mut commit = Commit::new();
    commit.put(&later).put(&second);
    deployment
        .reservations()
        .store()
        .commit(commit)
        .await
        .unwrap();

    deployment.restart().await;

    assert_eq!(deployment.find(1).await.unwrap().ticket_id, later.ticket_id);
    assert_eq!(deployment.find(2).await.unwrap().ticket_id, bought);
    let stats = deployment.stats().await;
    assert_eq!((stats.waiting, stats.completed, stats.available), (1, 1, 1));
    let mut expired = deployment.expire(at(7)).await;
    expired.sort_unstable();
    let mut superseded = [claim_id(1, earlier), claim_id(2, second.ticket_id)];
    superseded.sort_unstable();
    assert_eq!(expired, superseded);
}

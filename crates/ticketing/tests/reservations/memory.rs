//! What is in memory is rebuilt from the rows: what has none is gone.

use std::time::Duration;

use futures::FutureExt;
use messaging::{Commit, StoreError};
use ticketing::{
    model::{Reservation, ReservationState},
    reservations::Completion,
};

use crate::suite::{Deployment, EVENT, TTL_MILLIS, at, claimed, refused};

/// What must come does so within this.
const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_was_taken_again_and_not_stored_is_free_after_a_crash() {
    let mut deployment = Deployment::with_quantity(1).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();
    deployment.expire(at(TTL_MILLIS)).await;
    let taken = deployment.retake(1, ticket, at(TTL_MILLIS)).await;
    assert!(matches!(taken, Completion::Completed(_)));

    deployment.restart().await;

    assert_eq!(deployment.stats().await.available, 1);
    let again = deployment.retake(1, ticket, at(TTL_MILLIS)).await;
    assert!(matches!(again, Completion::Completed(_)));
}

#[tokio::test]
async fn what_could_not_be_given_up_is_put_back_though_its_caller_went_away() {
    let deployment = Deployment::with_quantity(1).await;
    let ticket_id = deployment.reserve(1, at(0)).await.unwrap();
    let claim = claimed(1, ticket_id);

    // The caller asks, and goes away; the store's writer is a thread of its own and may have answered by then.
    let asked = deployment.reservations().give_up(claim, refused());
    drop(asked.now_or_never());

    let put_back = async {
        while deployment.find(1).await.is_none() {
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_secs(20);
    tokio::time::timeout(patience, put_back).await.unwrap();
    assert_eq!(deployment.find(1).await.unwrap().ticket_id, ticket_id);
}

#[tokio::test]
async fn what_could_not_be_given_up_and_went_to_another_buyer_lapses_at_once() {
    let mut deployment = Deployment::with_quantity(1).await;
    let ticket_id = deployment.reserve(1, at(0)).await.unwrap();
    let claim = claimed(1, ticket_id);

    let asked = deployment.reservations().give_up(claim, refused());
    drop(asked.now_or_never());
    let Ok(other) = deployment.reserve(2, at(1)).await else {
        // The writer was faster: the claim is back, and nobody else has the ticket.
        assert_eq!(deployment.find(1).await.unwrap().ticket_id, ticket_id);
        return;
    };

    assert_eq!(
        deployment.stats().await.waiting,
        1,
        "nobody has claimed too much"
    );
    let expired = async {
        loop {
            let expired = deployment.expire(at(2)).await;
            if !expired.is_empty() {
                return expired;
            }
            tokio::task::yield_now().await;
        }
    };
    let patience = std::time::Duration::from_secs(20);
    let expired = tokio::time::timeout(patience, expired).await.unwrap();
    assert_eq!(expired, [claim]);
    deployment.restart().await;
    let held = deployment.find(2).await;
    assert_eq!(held.unwrap().ticket_id, other);
    assert_eq!(deployment.stats().await.waiting, 1);
}

#[tokio::test]
async fn a_grant_that_could_not_be_stored_is_forgotten_though_its_caller_went_away() {
    let deployment = Deployment::with_quantity(1).await;
    // The caller asks, and goes away; the store's writer is a thread of its own and may have answered by then.
    let asked = deployment.reserve_with(1, at(0), refused());
    drop(asked.now_or_never());

    let forgotten = async {
        while deployment.stats().await.waiting > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, forgotten).await.unwrap();
    assert!(deployment.reserve(2, at(0)).await.is_ok());
}

#[tokio::test]
async fn a_request_that_is_asked_again_is_not_told_of_a_grant_that_is_not_stored() {
    let mut deployment = Deployment::with_quantity(1).await;
    let first = deployment.ask_with(1, at(0), *b"thekey", refused());
    drop(first.now_or_never());

    // The first grant may be in memory still, and will not be stored: until it is forgotten, nothing is granted.
    let granted = async {
        loop {
            let again = deployment
                .ask_with(1, at(0), *b"thekey", Commit::new())
                .await;
            match again {
                Ok((ticket_id, _)) => return ticket_id,
                Err(error) => {
                    let error = StoreError::from(error);
                    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
                }
            }
            tokio::task::yield_now().await;
        }
    };
    let ticket_id = tokio::time::timeout(PATIENCE, granted).await.unwrap();

    deployment.restart().await;
    let held = deployment.find(1).await.expect("what was told is stored");
    assert_eq!(held.ticket_id, ticket_id);
}

/// What a process left that granted a ticket, thought it lost, and granted the next.
#[tokio::test]
async fn of_two_stored_claims_of_one_user_the_later_stands_and_one_that_is_bought_over_both() {
    let mut deployment = Deployment::with_quantity(3).await;
    let earlier = deployment.reserve(1, at(0)).await.unwrap();
    let bought = deployment.reserve(2, at(0)).await.unwrap();
    let row = |user, millis: i64, state| {
        let ticket_id = contract::TicketId(messaging::Random::seeded(9).uuid(at(millis)));
        Reservation {
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
        .complete(&[claimed(2, bought)])
        .await
        .unwrap();
    let Completion::Completed(keeping) = &completed[0] else {
        panic!("it waited");
    };
    deployment.save(bought, keeping.clone()).await;
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
    let mut lapsed = deployment.expire(at(7)).await;
    lapsed.sort_unstable();
    let mut superseded = [claimed(1, earlier), claimed(2, second.ticket_id)];
    superseded.sort_unstable();
    assert_eq!(lapsed, superseded);
}

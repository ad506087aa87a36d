//! What is in memory is rebuilt from the rows: what has none is gone.

use futures::FutureExt;
use ticketing::reservations::Completion;

use crate::suite::{Deployment, TTL_MILLIS, at, claimed, refused};

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

    // The caller asks, and goes away before there is an answer; on this thread nothing else has run by then.
    let asked = deployment.reservations().give_up(claim, refused());
    assert_eq!(asked.now_or_never(), None);
    assert_eq!(deployment.stats().await.waiting, 0);

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
    assert_eq!(asked.now_or_never(), None);
    let other = deployment.reserve(2, at(1)).await.unwrap();

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

//! What is in memory is rebuilt from the rows: what has none is gone.

use ticketing::reservations::Completion;

use crate::suite::{Deployment, TTL_MILLIS, at};

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

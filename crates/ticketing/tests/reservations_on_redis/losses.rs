//! Redis loses its data, and processes that know the old state keep running.

use contract::UserId;
use messaging::{Commit, CommitError, StoreError};
use test_support::eventually;
use ticketing::{
    model::Allocation,
    reservations::{ClaimProof, Completion, Error, Refusal},
};

use crate::{
    redis_place, snapshot,
    suite::{Deployment, EVENT, POLLING, TTL_MILLIS, at, claim_id, sale, store, until},
};

impl Deployment {
    async fn lose(&self) {
        redis_place::empty(&self.backend.settings).await;
    }

    async fn wait_until_rebuilt(&self) {
        eventually(POLLING, "the event is rebuilt", async || {
            let stats = self.reservations().stats(EVENT).await;
            stats.inspect_err(|error| assert_eq!(*error, Error::Refused(Refusal::Rebuilding)))
        })
        .await;
    }

    async fn wait_until_waiting(&self, waiting: i64) {
        until("as many claims wait", async || {
            match self.reservations().stats(EVENT).await {
                Ok(stats) => stats.is_some_and(|stats| stats.waiting == waiting),
                Err(error) => {
                    assert_eq!(error, Error::Refused(Refusal::Rebuilding));
                    false
                }
            }
        })
        .await;
    }
}

#[tokio::test]
async fn a_decision_on_the_state_before_a_loss_cannot_be_committed_after_it() {
    let deployment = Deployment::with_quantity(2).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();
    let claims = [claim_id(1, ticket)];
    let mut done = deployment.reservations().complete(&claims).await.unwrap();
    let Some(Completion::Completed(ClaimProof::Fence(fence))) = done.pop() else {
        panic!("it waits for payment")
    };
    let released = deployment.reservations().release(&claims).await.unwrap();

    deployment.lose().await;
    deployment.wait_until_rebuilt().await;

    let mut issued = Commit::new();
    issued.fenced_by(fence);
    for stale in [issued, released[0].clone()] {
        let refused = store(&deployment).commit(stale).await.unwrap_err();
        assert!(matches!(refused, CommitError::Fenced { .. }), "{refused}");
    }
    // A new call returns the current state.
    let mut done = deployment.reservations().complete(&claims).await.unwrap();
    assert!(matches!(done.pop(), Some(Completion::Gone)));
}

#[tokio::test]
async fn consumers_wait_while_an_event_is_rebuilt() {
    let deployment = Deployment::with_quantity(1).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();
    deployment.lose().await;
    let asked = deployment
        .reservations()
        .complete(&[claim_id(1, ticket)])
        .await;
    assert!(matches!(asked, Err(StoreError::Unavailable(_))));
    deployment.wait_until_rebuilt().await;
    deployment.lose().await;
    let asked = deployment.reservations().set_sale(&sale(5, 2)).await;
    assert!(matches!(asked, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn replies_of_an_older_epoch_are_rejected() {
    let deployment = Deployment::with_quantity(3).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();
    // Redis comes back with its data from before the last rebuild.
    let saved = snapshot::save(&deployment.backend.settings).await;
    deployment.lose().await;
    deployment.wait_until_rebuilt().await;
    snapshot::restore(&deployment.backend.settings, saved).await;

    let asked = deployment
        .reservations()
        .complete(&[claim_id(1, ticket)])
        .await;

    assert!(matches!(asked, Err(StoreError::Unavailable(_))));
    deployment.wait_until_waiting(0).await;
}

#[tokio::test]
async fn an_expiry_whose_commit_fails_is_repeated() {
    let deployment = Deployment::with_quantity(1).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();
    // The commit fails.
    let fenced = |_| {
        let mut commit = Commit::new();
        commit.fenced_by(messaging::Fence {
            lease: "nobody's".to_owned(),
            token: 1,
        });
        commit
    };
    let failed = deployment
        .reservations()
        .expire(at(TTL_MILLIS), 10, fenced)
        .await;
    assert!(failed.is_err());
    assert_eq!(deployment.stats().await.waiting, 1, "it is not free yet");
    assert_eq!(
        deployment.expire(at(TTL_MILLIS)).await,
        [claim_id(1, ticket)]
    );
}

#[tokio::test]
async fn an_expiry_whose_process_dies_between_its_halves_is_taken_over() {
    let deployment = Deployment::with_quantity(1).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();
    let dies = |_| -> Commit { panic!("the process dies here") };
    let reservations = deployment.reservations().clone();
    let died = tokio::spawn(async move { reservations.expire(at(TTL_MILLIS), 10, dies).await });
    assert!(died.await.is_err());

    let others = deployment.expire(at(TTL_MILLIS + 29_999)).await;
    assert_eq!(others, [], "the first process may still be running");
    assert_eq!(deployment.find(1).await, None, "no buyer can pay it");
    let others = deployment.expire(at(TTL_MILLIS + 30_000)).await;
    assert_eq!(others, [claim_id(1, ticket)]);
    assert_eq!(deployment.stats().await.available, 1);
}

#[tokio::test]
async fn a_payment_between_the_halves_of_an_expiry_keeps_its_ticket() {
    let deployment = Deployment::with_quantity(1).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();
    let dies = |_| -> Commit { panic!("the process dies here") };
    let reservations = deployment.reservations().clone();
    let died = tokio::spawn(async move { reservations.expire(at(TTL_MILLIS), 10, dies).await });
    assert!(died.await.is_err());

    let claims = [claim_id(1, ticket)];
    let done = deployment.reservations().complete(&claims).await.unwrap();
    assert!(matches!(done[..], [Completion::Completed(_)]));
    assert_eq!(deployment.expire(at(TTL_MILLIS + 60_000)).await, []);
    assert_eq!(deployment.stats().await.completed, 1);
}

#[tokio::test]
async fn a_grant_whose_commit_conflicts_is_undone() {
    let deployment = Deployment::with_quantity(1).await;
    // A row with this key exists.
    let mut also = Commit::new();
    also.put(&Allocation {
        event_id: EVENT,
        ..sale(9, 9)
    });
    let refused = deployment.reserve_with(1, at(0), also).await.unwrap_err();
    assert!(matches!(
        refused,
        Error::Commit(CommitError::Conflict { .. })
    ));
    assert_eq!(deployment.stats().await.available, 1);
}

#[tokio::test]
async fn a_reservation_is_found_by_its_ticket_alone_and_released_by_its_buyer_once() {
    let deployment = Deployment::with_quantity(1).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();
    let found = deployment
        .reservations()
        .find_by_ticket(ticket)
        .await
        .unwrap();
    assert_eq!(found, Some(claim_id(1, ticket)));
    let release = || {
        deployment
            .reservations()
            .release_by_buyer(claim_id(1, ticket), |_| Commit::new())
    };
    assert_eq!(release().await, Ok(true));
    assert_eq!(release().await, Ok(false));
    assert_eq!(deployment.find(1).await, None);
    assert_eq!(
        deployment.reservations().find(EVENT, UserId(2)).await,
        Ok(None)
    );
}

#[tokio::test]
async fn two_processes_that_share_redis_never_grant_the_same_ticket() {
    let deployment = Deployment::with_quantity(10).await;
    let other = deployment.backend.open(store(&deployment).clone()).await;
    let ours = (0..100).map(|user| deployment.reserve(user, at(0)));
    let theirs = (100..200).map(|user| deployment.reserve_on(&other, user, at(0), Commit::new()));
    let (ours, theirs) = tokio::join!(
        futures::future::join_all(ours),
        futures::future::join_all(theirs)
    );
    let granted = ours.iter().chain(&theirs).filter(|it| it.is_ok()).count();
    assert_eq!(granted, 10);
    assert_eq!(deployment.stats().await.available, 0);
}

#[tokio::test]
async fn a_claim_from_before_the_clock_was_set_back_expires_after_its_hold() {
    const SET_BACK_MILLIS: i64 = 1_200_000;
    let mut deployment = Deployment::with_quantity(1).await;
    let claim = claim_id(1, deployment.reserve(1, at(SET_BACK_MILLIS)).await.unwrap());
    assert_eq!(deployment.expire(at(SET_BACK_MILLIS)).await, []);

    // All processes restart, and the clock was set back by twenty minutes.
    deployment.restart().await;
    assert_eq!(deployment.expire(at(0)).await, []);
    assert_eq!(deployment.expire(at(TTL_MILLIS - 1)).await, []);
    assert_eq!(deployment.expire(at(TTL_MILLIS)).await, [claim]);

    assert_eq!(deployment.stats().await.available, 1);
}

//! Redis crashes and comes back empty, while the processes keep running.

use messaging::StoreError;
use test_support::{engines::Engine, eventually};
use ticketing::{
    RedisSettings,
    reservations::{Completion, Error, Refusal},
};

use crate::{
    backend::Backend,
    redis_place,
    suite::{Deployment, POLLING, TTL_MILLIS, at, claim_id},
};

fn is_unavailable(error: &Error) -> bool {
    matches!(StoreError::from(error.clone()), StoreError::Unavailable(_))
        && *error != Error::Refused(Refusal::Rebuilding)
}

#[tokio::test]
async fn while_redis_is_unavailable_requests_are_refused_and_consumers_wait_until_it_is_back() {
    let server = Engine::start("redis", "");
    let settings = RedisSettings {
        url: server.address.clone(),
        ..redis_place::settings()
    };
    let deployment = Deployment::on(Backend::at(settings, TTL_MILLIS), 2).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();

    server.crash().await;

    let refused = deployment.reserve(2, at(0)).await.unwrap_err();
    assert!(is_unavailable(&refused), "{refused}");
    let claims = [claim_id(1, ticket)];
    let waits = deployment.reservations().complete(&claims).await;
    assert!(matches!(waits, Err(StoreError::Unavailable(_))));

    server.restart().await;

    // The same process recovers by itself, on the same connection.
    eventually(POLLING, "the process reserves again", async || {
        let reserved = deployment.reserve(3, at(0)).await;
        reserved.inspect_err(|error| {
            let is_passing = is_unavailable(error) || *error == Error::Refused(Refusal::Rebuilding);
            assert!(is_passing, "{error}");
        })
    })
    .await;
    let clock = deployment.backend.clock.clone();
    clock.advance_millis(10_000);
    let done = deployment.reservations().complete(&claims).await.unwrap();
    assert!(
        matches!(done[..], [Completion::Gone]),
        "its buyer had started no purchase"
    );
    assert_eq!(deployment.stats().await.waiting, 1);
}

//! Redis crashes and comes back empty, while the processes keep running.

use std::process::Command;

use messaging::StoreError;
use tempfile::TempDir;
use ticketing::{
    RedisSettings,
    reservations::{Completion, Error, Refusal},
};

use crate::{
    backend::Backend,
    redis_place,
    suite::{Deployment, TTL_MILLIS, at, claim_id},
};

/// A Redis server that this test may kill.
struct OwnServer(TempDir);

impl OwnServer {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// Starts it, always on the same port, and returns its URL.
    fn start(&self) -> String {
        self.run("start").trim().to_owned()
    }

    fn crash(&self) {
        self.run("crash");
    }

    fn run(&self, verb: &str) -> String {
        let mut script = Command::new(redis_place::script());
        let output = script.arg(verb).arg(self.0.path()).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "scripts/redis {verb}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        self.run("stop");
    }
}

fn is_unavailable(error: &Error) -> bool {
    matches!(StoreError::from(error.clone()), StoreError::Unavailable(_))
        && *error != Error::Refused(Refusal::Rebuilding)
}

#[tokio::test]
async fn while_redis_is_unavailable_requests_are_refused_and_consumers_wait_until_it_is_back() {
    let server = OwnServer::new();
    let settings = RedisSettings {
        url: server.start(),
        ..redis_place::settings()
    };
    let deployment = Deployment::on(Backend::at(settings, TTL_MILLIS), 2).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();

    server.crash();

    let refused = deployment.reserve(2, at(0)).await.unwrap_err();
    assert!(is_unavailable(&refused), "{refused}");
    let claims = [claim_id(1, ticket)];
    let waits = deployment.reservations().complete(&claims).await;
    assert!(matches!(waits, Err(StoreError::Unavailable(_))));

    server.start();

    // The same process recovers by itself, on the same connection.
    while let Err(error) = deployment.reserve(3, at(0)).await {
        let is_passing = is_unavailable(&error) || error == Error::Refused(Refusal::Rebuilding);
        assert!(is_passing, "{error}");
        tokio::task::yield_now().await;
    }
    let clock = deployment.backend.clock.clone();
    clock.advance_millis(10_000);
    let done = deployment.reservations().complete(&claims).await.unwrap();
    assert!(
        matches!(done[..], [Completion::Gone]),
        "its buyer had started no purchase"
    );
    assert_eq!(deployment.stats().await.waiting, 1);
}

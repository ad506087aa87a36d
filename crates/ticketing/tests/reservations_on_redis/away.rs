//! Redis goes away and comes back empty, under processes that go on.

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
    suite::{Deployment, TTL_MILLIS, at, claimed},
};

/// A server that this test may kill.
struct OwnServer(TempDir);

impl OwnServer {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// Starts it, again on the same port; its URL.
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

fn is_away(error: &Error) -> bool {
    matches!(StoreError::from(error.clone()), StoreError::Unavailable(_))
        && *error != Error::Refused(Refusal::Rebuilding)
}

#[tokio::test]
async fn while_redis_is_away_requests_are_refused_consumers_wait_and_then_all_goes_on() {
    let server = OwnServer::new();
    let settings = RedisSettings {
        url: server.start(),
        ..redis_place::settings()
    };
    let deployment = Deployment::on(Backend::at(settings, TTL_MILLIS), 2).await;
    let ticket = deployment.reserve(1, at(0)).await.unwrap();

    server.crash();

    let refused = deployment.reserve(2, at(0)).await.unwrap_err();
    assert!(is_away(&refused), "{refused}");
    let claims = [claimed(1, ticket)];
    let waits = deployment.reservations().complete(&claims).await;
    assert!(matches!(waits, Err(StoreError::Unavailable(_))));

    server.start();

    // The same process, on the same connection, finds out by itself.
    while let Err(error) = deployment.reserve(3, at(0)).await {
        let is_passing = is_away(&error) || error == Error::Refused(Refusal::Rebuilding);
        assert!(is_passing, "{error}");
        tokio::task::yield_now().await;
    }
    let clock = deployment.backend.clock.clone();
    clock.advance_millis(10_000);
    let done = deployment.reservations().complete(&claims).await.unwrap();
    assert!(
        matches!(done[..], [Completion::Gone]),
        "its buyer had begun no purchase"
    );
    assert_eq!(deployment.stats().await.waiting, 1);
}

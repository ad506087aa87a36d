//! A process crashes between a grant in Redis and the answer's row in PostgreSQL. Another process answers a retry with the
//! same key by the same grant, and the purchase continues with it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::{process::Command, time::Duration};

use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use test_support::{
    Polling, api,
    engines::Engine,
    eventually,
    process::{self, ExitKind, ServerProcess},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_boxoffice");
const POLLING: Polling = Polling {
    interval: Duration::from_millis(20),
    timeout: Duration::from_secs(60),
};
const TICKETS: i64 = 3;

/// The engines and the folder that all processes share.
struct Cluster {
    folder: TempDir,
    postgres: Engine,
    redis: Engine,
}

impl Cluster {
    fn open() -> Self {
        let cluster = Self {
            folder: tempfile::tempdir().unwrap(),
            postgres: Engine::start("postgres", ""),
            redis: Engine::start("redis", ""),
        };
        let migrated = cluster.command().arg("migrate").output().unwrap();
        assert!(migrated.status.success(), "{migrated:?}");
        cluster
    }

    fn command(&self) -> Command {
        let mut command = process::command(PROGRAM);
        self.configure(&mut command);
        command
    }

    fn configure(&self, command: &mut Command) {
        command
            .env("BOXOFFICE_STORE__BACKEND", "postgres")
            .env("BOXOFFICE_STORE__POSTGRES__URL", &self.postgres.address)
            .env("BOXOFFICE_TICKETING__RESERVATIONS", "redis")
            .env("BOXOFFICE_TICKETING__REDIS__URL", &self.redis.address)
            .env("BOXOFFICE_LOG__LEVEL", "error");
    }

    /// A process with `failpoints` in the syntax of the crate `fail`.
    fn serve(&self, failpoints: &str) -> Process {
        let mut command = process::serve(PROGRAM, self.folder.path());
        self.configure(&mut command);
        command.env("FAILPOINTS", failpoints);
        let process = ServerProcess::start(command);
        Process {
            url: process.url(),
            process,
            client: api::client(),
        }
    }
}

struct Process {
    url: String,
    process: ServerProcess,
    client: Client,
}

impl Process {
    async fn post(&self, path: &str, key: &str, body: &Value) -> reqwest::Result<(u16, Value)> {
        let request = self
            .client
            .post(format!("{}{path}", self.url))
            .header("Idempotency-Key", key)
            .header("Content-Type", "application/json")
            .body(body.to_string());
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        let body = serde_json::from_slice(&answer.bytes().await?).unwrap_or_default();
        Ok((status, body))
    }

    /// Polls a path until the JSON is as wanted.
    async fn until(&self, path: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(POLLING, path, async || {
            let answer = self.client.get(format!("{}{path}", self.url)).send().await;
            let bytes = answer.unwrap().bytes().await.unwrap();
            let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            if is_wanted(&body) {
                Ok(body)
            } else {
                Err(body)
            }
        })
        .await
    }

    async fn stock(&self, event: &Value) -> Value {
        let path = format!("/ticketing/event/{event}");
        self.until(&path, |it| it["quantity"] == TICKETS).await
    }

    /// Waits until it has crashed.
    fn wait_for_crash(mut self) {
        assert_eq!(self.process.wait(), ExitKind::Aborted);
    }
}

#[tokio::test]
async fn a_buyer_whose_answer_was_lost_after_the_grant_is_granted_the_same_ticket() {
    // Given an event, and a process that grants a buyer a ticket and crashes before it has answered,
    let cluster = Cluster::open();
    let first = cluster.serve("");
    let show = json!({"name": "show", "ticketQuantity": TICKETS, "price": 100});
    let (status, event) = first.post("/event", "show", &show).await.unwrap();
    assert_eq!(status, 201, "{event}");
    let event = event["id"].clone();
    let buyer = json!({"name": "buyer", "points": 0});
    let (status, user) = first.post("/user", "buyer", &buyer).await.unwrap();
    assert_eq!(status, 201, "{user}");
    first.stock(&event).await;
    drop(first);
    let dying = cluster.serve("ticketing.before_answer=return");
    let reservation = json!({"eventId": event, "userId": user["id"]});
    let lost = dying
        .post("/ticketing/reserve", "reservation", &reservation)
        .await;
    assert!(lost.is_err(), "{lost:?}");
    dying.wait_for_crash();

    // when another process gets the request with the same key,
    let second = cluster.serve("");
    let stock = second.stock(&event).await;
    assert_eq!(stock["waiting"], 1, "it was granted before the crash");
    let (status, answer) = second
        .post("/ticketing/reserve", "reservation", &reservation)
        .await
        .unwrap();

    // then it grants the same ticket, and repeats that answer from then on;
    assert_eq!(status, 200, "{answer}");
    let again = second
        .post("/ticketing/reserve", "reservation", &reservation)
        .await;
    assert_eq!(again.unwrap(), (200, answer.clone()));
    assert_eq!(second.stock(&event).await["waiting"], 1);

    // and the buyer buys it.
    let purchase = json!({"ticketId": answer["ticketId"], "eventId": event, "userId": user["id"],
        "totalAmount": 100, "point": 0});
    let (status, begun) = second
        .post("/ticketing/process", "buy", &purchase)
        .await
        .unwrap();
    assert_eq!(status, 202, "{begun}");
    let ticket = answer["ticketId"].as_str().unwrap();
    let path = format!("/ticketing/process/{ticket}");
    let progress = second.until(&path, |it| it["paymentId"].is_string());
    assert_eq!(progress.await["referenceId"], answer["ticketId"]);

    // A request with another key is another reservation.
    let (status, refusal) = second
        .post("/ticketing/reserve", "other", &reservation)
        .await
        .unwrap();
    assert_eq!(
        (status, &refusal["code"]),
        (409, &json!("ALREADY_RESERVED"))
    );
}

//! A log that is not read or cannot be written: the program starts, serves, survives a panic and stops as usual.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use test_support::process::ServerProcess;

use crate::{
    program::boxoffice,
    support::{self, TIMEOUT},
};

/// Panics in the handler of a webhook, which saves its answer after its work.
const PANICS: &str = "web.before_save=panic";

const LINES_AT_ONCE: usize = 500;
/// The pipe and the queue before it take about ten thousand lines.
const FULL_WITHIN: Duration = Duration::from_secs(120);

fn command(data: &Path, level: &str) -> Command {
    let data = data.to_str().unwrap();
    let mut command = boxoffice(&["serve", "--listen", "127.0.0.1:0", "--data", data]);
    command
        .env("BOXOFFICE_LOG__LEVEL", level)
        .env("FAILPOINTS", PANICS);
    command
}

/// Sends requests that write log lines; the webhook panics.
async fn serves_on(url: &str) {
    let client = support::client();
    for _ in 0..3 {
        let alive = client.get(format!("{url}/healthz")).send().await.unwrap();
        assert_eq!(alive.status(), 200);
        let webhook = client
            .post(format!("{url}/payment/webhook/toss"))
            .header("Idempotency-Key", "one")
            .json(&json!({ "eventType": "PAYOUT_STATUS_CHANGED", "data": {} }));
        let panicked = webhook.send().await.unwrap();
        assert_eq!(panicked.status(), 500);
        let body: Value = panicked.json().await.unwrap();
        assert_eq!(body["code"], "INTERNAL");
        let made = client
            .post(format!("{url}/event"))
            .json(&json!({ "name": "Show", "ticketQuantity": 1 }));
        assert_eq!(made.send().await.unwrap().status(), 201);
    }
}

async fn lost_lines(url: &str) -> u64 {
    let metrics = support::client()
        .get(format!("{url}/metrics"))
        .send()
        .await
        .unwrap();
    let metrics = metrics.text().await.unwrap();
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("boxoffice_log_lines_lost_total "));
    line.expect("the metric is there").parse().unwrap()
}

#[tokio::test]
async fn a_closed_log_pipe_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path(), "debug");
    command.stderr(Stdio::piped());
    let mut serving = ServerProcess::start(command);
    drop(serving.child.stderr.take());
    serves_on(&serving.url()).await;
    assert!(lost_lines(&serving.url()).await > 0);
    serving.stop("-TERM");
}

#[tokio::test]
async fn a_full_disk_under_the_log_stops_neither_the_start_nor_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let mut command = command(folder.path(), "debug");
    command.stderr(full());
    let serving = ServerProcess::start(command);
    serves_on(&serving.url()).await;
    assert!(lost_lines(&serving.url()).await > 0);
    serving.stop("-TERM");
    // The line with the server's address cannot be written either.
    let mut child = self::command(folder.path(), "debug")
        .stdout(full())
        .stderr(full())
        .spawn()
        .unwrap();
    let address_file = folder.path().join("server.addr");
    let started = async {
        loop {
            match fs::read_to_string(&address_file) {
                Ok(address) if !address.is_empty() => return address,
                Ok(_) | Err(_) => {}
            }
            tokio::task::yield_now().await;
        }
    };
    let started = tokio::time::timeout(TIMEOUT, started).await;
    let address = started.expect("the server never wrote its address");
    serves_on(&format!("http://{address}")).await;
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_error_that_cannot_be_printed_keeps_its_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let data = folder.path().to_str().unwrap();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    let mut command = boxoffice(&["serve", "--listen", &listen, "--data", data]);
    let refused = command.stdout(full()).stderr(full()).status().unwrap();
    assert_eq!(refused.code(), Some(1));
}

#[tokio::test]
async fn an_unread_log_delays_no_answer_and_no_stop() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(folder.path(), "debug");
    command.stderr(Stdio::piped());
    // The pipe stays open and is never read.
    let serving = ServerProcess::start(command);
    let (client, healthz) = (support::client(), format!("{}/healthz", serving.url()));
    let full = async {
        while lost_lines(&serving.url()).await == 0 {
            // Each request writes a line.
            let alive = (0..LINES_AT_ONCE).map(|_| client.get(&healthz).send());
            for answer in futures::future::join_all(alive).await {
                assert_eq!(answer.unwrap().status(), 200);
            }
        }
    };
    let full = tokio::time::timeout(FULL_WITHIN, full).await;
    full.expect("a request waits for the log, or the log's queue has no limit");
    serves_on(&serving.url()).await;
    serving.stop("-TERM");
}

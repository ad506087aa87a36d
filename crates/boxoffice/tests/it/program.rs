//! The program as a process: one line when it is ready, a clean stop, clear refusals.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use messaging::{Commit, Message, Metrics, Store};
use serde_json::Value;
use tempfile::TempDir;
use test_support::process::{self, ExitKind, ServerProcess};

use crate::support::client;

const PROGRAM: &str = env!("CARGO_BIN_EXE_boxoffice");

pub fn boxoffice(arguments: &[&str]) -> Command {
    let mut command = process::command(PROGRAM);
    command.args(arguments);
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A server on a folder; dropping it kills the process.
pub fn serve(data: &Path) -> ServerProcess {
    ServerProcess::start(process::serve(PROGRAM, data))
}

/// A folder with one dead letter.
async fn folder_with_a_dead_letter() -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    {
        let tables = boxoffice::app::tables();
        let store = Store::open_embedded(
            boxoffice::backends::data_folder(folder.path()),
            &tables,
            Metrics::unregistered(),
        )
        .unwrap();
        let mut commit = Commit::new();
        commit.publish(Message {
            id: "poison".to_owned(),
            topic: "payment.create.request".to_owned(),
            key: "1".to_owned(),
            subject: None,
            time: contract::Timestamp::from_millis(1_800_000_000_000),
            payload: "{}".to_owned(),
            reissue: None,
            trace: None,
        });
        store.commit(commit).await.unwrap();
    }
    let serving = serve(folder.path());
    let url = format!("{}/dead-letter", serving.url());
    let client = client();
    let id = loop {
        let page: Value = client.get(&url).send().await.unwrap().json().await.unwrap();
        if let Some(id) = page["items"][0]["id"].as_str() {
            break id.to_owned();
        }
        tokio::task::yield_now().await;
    };
    serving.stop("-TERM");
    (folder, id)
}

#[tokio::test]
async fn serve_prints_one_line_answers_and_stops_on_either_signal() {
    let folder = tempfile::tempdir().unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    for signal in ["-TERM", "-INT"] {
        let mut command = process::serve(PROGRAM, folder.path());
        command.stderr(log.reopen().unwrap());
        let serving = ServerProcess::start(command);
        let address_file = folder.path().join("server.addr");
        let address = fs::read_to_string(&address_file).unwrap();
        assert_eq!(serving.url(), format!("http://{address}"));
        let answer = client()
            .get(format!("{}/readyz", serving.url()))
            .send()
            .await;
        assert_eq!(answer.unwrap().status(), 200);

        assert_eq!(serving.stop(signal), "", "more than one line was printed");
        assert!(!address_file.exists());
        // Else the stop has waited for somebody who never gives the store back.
        let log = fs::read_to_string(log.path()).unwrap();
        assert!(!log.contains("the store is still in use"), "{log}");
    }
}

#[tokio::test]
async fn messages_of_another_program_end_the_process_and_the_next_one_continues() {
    let folder = tempfile::tempdir().unwrap();
    let mut serving = serve(folder.path());
    let event = |serving: &ServerProcess| {
        client()
            .post(format!("{}/event", serving.url()))
            .json(&serde_json::json!({ "name": "Show", "ticketQuantity": 1 }))
            .send()
    };
    assert_eq!(event(&serving).await.unwrap().status(), 201);
    let file = rusqlite::Connection::open(folder.path().join("boxoffice.db")).unwrap();
    file.busy_timeout(std::time::Duration::from_secs(20))
        .unwrap();
    let foreign = "INSERT INTO message (offset, id, topic, key, time, payload)
         SELECT max(offset) + 1000, 'foreign', 'somebody.else', '1', 0, '{}' FROM message;
         INSERT INTO message (offset, id, topic, key, time, payload)
         WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 999)
         SELECT (SELECT max(offset) FROM message) - n, 'foreign ' || n, 'somebody.else', '1', 0, '{}' FROM n";
    file.execute_batch(foreign).unwrap();
    drop(file);
    // They block every commit: the process logs that once and exits.
    assert_eq!(event(&serving).await.unwrap().status(), 503);
    assert_eq!(serving.wait(), ExitKind::Failed(1));

    let serving = serve(folder.path());
    assert_eq!(event(&serving).await.unwrap().status(), 201);
    serving.stop("-TERM");
}

#[test]
fn a_second_server_on_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = serve(folder.path());
    let data = folder.path().to_str().unwrap();
    let second = boxoffice(&["serve", "--listen", "127.0.0.1:0", "--data", data]).output();
    let second = second.unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert_eq!(text(&second.stdout), "");
    let printed = text(&second.stderr);
    assert!(
        printed.contains("another process has the data folder"),
        "{printed}"
    );
    first.stop("-TERM");
}

#[test]
fn an_address_in_use_is_refused_with_the_name_of_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let refused = boxoffice(&["serve", "--listen", &listen, "--data", data])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let printed = text(&refused.stderr);
    assert!(
        printed.contains("listen") && printed.contains(&listen),
        "{printed}"
    );
}

#[test]
fn a_data_folder_that_is_a_file_is_refused_over_each_store() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for store in ["sqlite", "postgres"] {
        let data = file.path().to_str().unwrap();
        let mut command = boxoffice(&["serve", "--listen", "127.0.0.1:0", "--data", data]);
        command.env("BOXOFFICE_STORE__BACKEND", store);
        command.env(
            "BOXOFFICE_STORE__POSTGRES__URL",
            "postgres://127.0.0.1:1/none",
        );
        let refused = command.output().unwrap();
        assert_eq!(refused.status.code(), Some(1), "{store}");
        let printed = text(&refused.stderr);
        assert!(
            printed.contains("is a file; name another with --data or BOXOFFICE_DATA"),
            "{store}: {printed}"
        );
    }
}

#[test]
fn an_invalid_setting_stops_the_start_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("settings.toml");
    fs::write(&file, "[http]\nin_flight_maximum = 1").unwrap();
    let from_file = boxoffice(&["serve", "--config", file.to_str().unwrap()])
        .output()
        .unwrap();
    assert_refused(&from_file, "in_flight_maximum");

    let from_environment = boxoffice(&["serve"])
        .env("BOXOFFICE_HTTP__IN_FLIGHT_MAX", "many")
        .output()
        .unwrap();
    assert_refused(&from_environment, "http.in_flight_max");

    let missing = folder.path().join("missing.toml");
    let missing = missing.to_str().unwrap();
    assert_refused(
        &boxoffice(&["serve", "--config", missing]).output().unwrap(),
        missing,
    );

    let from_flag = boxoffice(&["serve", "--listen", "nowhere"])
        .output()
        .unwrap();
    assert_eq!(from_flag.status.code(), Some(2));
    assert!(text(&from_flag.stderr).contains("--listen"));
}

fn assert_refused(output: &Output, name: &str) {
    assert_eq!(output.status.code(), Some(1));
    let printed = text(&output.stderr);
    assert!(printed.contains(name), "{printed}");
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn config_prints_the_commented_defaults_whatever_is_set() {
    let printed = boxoffice(&["config"])
        .env("BOXOFFICE_HTTP__IN_FLIGHT_MAX", "many")
        .output()
        .unwrap();
    assert!(printed.status.success());
    assert_eq!(text(&printed.stdout), boxoffice::config::DEFAULT_TOML);
}

#[tokio::test]
async fn dead_letters_are_handled_equally_on_the_folder_and_through_the_server() {
    let (folder, id) = folder_with_a_dead_letter().await;
    let data = folder.path().to_str().unwrap();
    let dead_letter = |arguments: &[&str]| {
        let all = [&["dead-letter", "--data", data], arguments].concat();
        boxoffice(&all).output().unwrap()
    };
    let json = |arguments: &[&str]| -> Value {
        let output = dead_letter(arguments);
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
    };

    // Given a folder without a server.
    let table = text(&dead_letter(&["list"]).stdout);
    assert!(
        table.contains(&id) && table.contains("payment.create.request"),
        "{table}"
    );
    let on_folder = json(&["list", "--state", "waiting", "--json"]);
    assert_eq!(on_folder[0]["id"], *id);
    assert_eq!(
        json(&["list", "--state", "parked", "--json"]),
        serde_json::json!([])
    );
    assert!(text(&dead_letter(&["show", &id]).stdout).contains("poison"));

    // When a server has the folder open, the answers are the same.
    let serving = serve(folder.path());
    assert_eq!(json(&["list", "--json"]), on_folder);
    assert_eq!(json(&["show", &id, "--json"]), on_folder[0]);
    assert_unknown(&dead_letter(&["show", UNKNOWN]));
    assert_eq!(json(&["discard", &id, "--json"])["state"], "DISCARDED");
    serving.stop("-TERM");

    // Then a decision made through the server holds on the folder.
    let closed = dead_letter(&["replay", &id]);
    assert_eq!(closed.status.code(), Some(1));
    assert!(
        text(&closed.stderr).contains("Discarded"),
        "{}",
        text(&closed.stderr)
    );
    assert_unknown(&dead_letter(&["replay", UNKNOWN]));
}

const UNKNOWN: &str = "0192f0c1-2f00-7abc-8def-0123456789ab";

fn assert_unknown(output: &Output) {
    assert_eq!(output.status.code(), Some(1));
    let printed = text(&output.stderr);
    assert!(
        printed.contains(&format!("there is no dead letter {UNKNOWN}")),
        "{printed}"
    );
}

#[tokio::test]
async fn a_store_that_cannot_write_stops_the_program_and_keeps_every_accepted_request() {
    // Given a store whose files cannot grow beyond one mebibyte, which is more than a start writes.
    let folder = tempfile::tempdir().unwrap();
    let mut limited = Command::new("sh");
    limited
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 2048; exec \"$0\" serve --listen 127.0.0.1:0 --data \"$1\"",
        ])
        .arg(PROGRAM)
        .arg(folder.path());
    let mut serving = ServerProcess::start(limited);

    // When requests write until it is full.
    let client = client();
    let event = serde_json::json!({ "name": "Show", "ticketQuantity": 1 });
    let mut accepted = Vec::new();
    while let Ok(answer) = client
        .post(format!("{}/event", serving.url()))
        .json(&event)
        .send()
        .await
    {
        if answer.status() == 201 {
            accepted.push(answer.json::<Value>().await.unwrap()["id"].clone());
        }
    }

    // Then it stops by itself, and every accepted request is in the store.
    assert_eq!(serving.wait(), ExitKind::Failed(1));
    assert!(!accepted.is_empty());
    let again = serve(folder.path());
    for id in accepted {
        let answer = client
            .get(format!("{}/event/{id}", again.url()))
            .send()
            .await;
        assert_eq!(answer.unwrap().status(), 200, "event {id}");
    }
}

#[test]
fn a_command_that_only_reads_creates_no_data_folder() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let output = boxoffice(&["dead-letter", "list", "--data", missing.to_str().unwrap()]).output();
    assert_refused(&output.unwrap(), "there is no data folder");
    assert!(!missing.exists());
}

//! The operators' commands beside running processes: each service has its settings in a file.

use std::{fs, path::PathBuf, process::Output};

use messaging::{Commit, Message, Metrics, Store};
use serde_json::Value;
use tempfile::TempDir;
use test_support::{Polling, eventually};
use ticketing::model::Ticket;

use crate::{
    buyer::{BuyerKind, put_on_sale},
    deployment::{Deployment, POLL_INTERVAL, TIMEOUT},
    idle,
    process::{command, program},
    sales::{ENGINES_LOCK, run_buyers},
};

const BUYERS: usize = 5;

/// The working folder of the commands, with one settings file for each process.
struct OperatorCli {
    folder: TempDir,
}

impl OperatorCli {
    fn open(deployment: &Deployment) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for process in &deployment.processes {
            let lines = process.settings.iter().map(|(name, value)| {
                let name = name.strip_prefix("BOXOFFICE_").unwrap();
                let name = name.to_lowercase().replace("__", ".");
                let is_bare = value.parse::<i64>().is_ok() || value.parse::<bool>().is_ok();
                match is_bare {
                    true => format!("{name} = {value}\n"),
                    false => format!("{name} = {value:?}\n"),
                }
            });
            let (file, text) = (folder.path().join(&process.name), lines.collect::<String>());
            fs::write(file, text).unwrap();
        }
        Self { folder }
    }

    fn file(&self, process: &str) -> PathBuf {
        self.folder.path().join(process)
    }

    /// A command with the settings of these processes.
    async fn run(&self, processes: &[&str], arguments: &[&str]) -> Output {
        let mut command = command(&program(1), &[]);
        command.args(arguments).current_dir(self.folder.path());
        command.env("TMPDIR", self.folder.path());
        for process in processes {
            command.arg("--config").arg(self.file(process));
        }
        let ran = tokio::task::spawn_blocking(move || command.output());
        ran.await.unwrap().unwrap()
    }

    async fn audit(&self) -> (Option<i32>, Value) {
        let services = [
            "event-1",
            "user,dead-letter-1",
            "ticketing-api-1",
            "payment-api-1",
        ];
        let done = self.run(&services, &["audit", "--json"]).await;
        (done.status.code(), json(&done))
    }

    async fn dead_letter(&self, arguments: &[&str]) -> Value {
        let all = [&["dead-letter"], arguments, &["--json"]].concat();
        let done = self.run(&["user,dead-letter-1"], &all).await;
        assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
        json(&done)
    }

    /// The id of the only dead letter, once it is parked.
    async fn parked(&self) -> String {
        let polling = Polling {
            interval: POLL_INTERVAL,
            timeout: TIMEOUT,
        };
        eventually(polling, "a parked dead letter", async || {
            let parked = self.dead_letter(&["list", "--state", "parked"]).await;
            let id = parked[0]["id"].as_str().map(str::to_owned);
            id.ok_or(parked)
        })
        .await
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

async fn store(deployment: &Deployment, schema: &str) -> Store {
    let (settings, metrics) = (deployment.postgres(schema), Metrics::unregistered());
    let tables = boxoffice::app::tables();
    let store = Store::open_postgres(&settings, &tables, metrics).await;
    store.unwrap()
}

/// A message that its consumer must reject, in the outbox of a service.
async fn commit_poison(deployment: &Deployment) {
    let mut commit = Commit::new();
    commit.publish(Message {
        id: "poison".to_owned(),
        topic: "payment.create.request".to_owned(),
        key: "1".to_owned(),
        subject: None,
        time: messaging::Clock::System.now(),
        payload: "{}".to_owned(),
        reissue: None,
        trace: None,
    });
    let store = store(deployment, "ticketing").await;
    store.commit(commit).await.unwrap();
}

/// A deployment after a sale, once nothing is pending; the operators' commands; the number of tickets.
async fn after_a_sale() -> (Deployment, OperatorCli, usize) {
    let deployment = Deployment::open().await;
    let event = put_on_sale(&deployment, "show", 100).await;
    let wishes = std::iter::repeat_n((BuyerKind::Pays, event), BUYERS);
    let outcomes = run_buyers(&deployment, "sale", wishes).await;
    let books = idle::wait_until_idle(&deployment, &[event]).await;
    idle::hold(&deployment, &[event], &outcomes, &books).await;
    let cli = OperatorCli::open(&deployment);
    (deployment, cli, books.tickets.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_reads_the_books_of_all_services_and_reports_lasting_differences() {
    let _engines = ENGINES_LOCK.lock().await;
    // Given a sale, an audit of all services finds nothing,
    let (deployment, cli, tickets) = after_a_sale().await;
    let (code, report) = cli.audit().await;
    assert_eq!(
        (code, &report["violations"]),
        (Some(0), &Value::Array(vec![])),
        "{report}"
    );
    assert_eq!(report["counts"]["tickets"], tickets, "{report}");
    assert_eq!(
        report["counts"]["completedReservations"], tickets,
        "{report}"
    );
    assert_eq!(report["counts"]["payments"], tickets, "{report}");
    // and the same store given twice is refused.
    let same = cli.run(&["event-1", "event-1"], &["audit"]).await;
    assert_eq!(same.status.code(), Some(1));
    assert!(text(&same.stderr).contains("name the same store"));
    // When a ticket is deleted from the books of one service,
    let store = store(&deployment, "ticketing").await;
    let owned: Vec<Ticket> = store
        .find(messaging::Find::all(
            <Ticket as messaging::Record>::TABLE,
            1,
        ))
        .await
        .unwrap();
    let mut loss = Commit::new();
    loss.delete(&owned[0]);
    store.commit(loss).await.unwrap();
    // then every audit reports its payment, which another service owns, and its claim in Redis.
    let (code, report) = cli.audit().await;
    assert_eq!(code, Some(1), "{report}");
    let answer = report["violations"].to_string();
    for words in [
        "its money is kept, but it has no ticket",
        "it is completed in Redis, but has no ticket",
        "counted as sold",
    ] {
        assert!(answer.contains(words), "{words}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_handled_and_payments_reconciled_beside_running_processes() {
    let _engines = ENGINES_LOCK.lock().await;
    // Given a message that its consumer rejects until it is parked,
    let (deployment, cli, tickets) = after_a_sale().await;
    commit_poison(&deployment).await;
    let id = cli.parked().await;
    assert_eq!(
        cli.dead_letter(&["show", &id]).await["letter"]["messageId"],
        "poison"
    );
    // when a person replays it, its group rejects it again,
    let sent = cli.dead_letter(&["replay", &id]).await;
    assert_eq!(sent["state"], "REPLAYED", "{sent}");
    assert_eq!(cli.parked().await, id);
    // and a discarded dead letter stays discarded.
    cli.dead_letter(&["discard", &id]).await;
    let shown = cli.dead_letter(&["show", &id]).await;
    assert_eq!(shown["state"], "DISCARDED", "{shown}");
    // (The command takes one database only.)
    let files = ["event-1", "user,dead-letter-1"];
    let refused = cli.run(&files, &["dead-letter", "list"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("only `audit`"));
    let again = cli
        .run(&["user,dead-letter-1"], &["dead-letter", "replay", &id])
        .await;
    assert_eq!(again.status.code(), Some(1));

    // Given books that agree with the gateway's,
    let clean = cli
        .run(&["payment-worker-1"], &["reconcile", "--json"])
        .await;
    assert_eq!(clean.status.code(), Some(0), "{}", text(&clean.stderr));
    assert_eq!(json(&clean)["matched"], tickets, "{}", json(&clean));
    // when the gateway has a charge for an unknown order, reconciliation reports it.
    deployment
        .gateway
        .client
        .charge("another-shops-order", "pg-foreign", 500)
        .await;
    let answer = cli.run(&["payment-api-2"], &["reconcile", "--json"]).await;
    assert_eq!(answer.status.code(), Some(1), "{}", text(&answer.stderr));
    assert_eq!(json(&answer)["missingHere"], 1, "{}", json(&answer));
    let remaining: Vec<_> = fs::read_dir(cli.folder.path()).unwrap().collect();
    assert_eq!(remaining.len(), deployment.processes.len(), "{remaining:?}");
}

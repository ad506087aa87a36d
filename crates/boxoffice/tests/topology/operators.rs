//! What people do on the command line, beside processes that work: each service has its settings in a file.

use std::{fs, path::PathBuf, process::Output};

use messaging::{Commit, Message, Metrics, Store};
use serde_json::Value;
use tempfile::TempDir;
use ticketing::model::Ticket;
use tokio::time::Instant;

use crate::{
    buyer::{Kind, put_on_sale},
    deployment::{Deployment, LOOK, PATIENCE},
    process::command,
    rest,
    stories::{TURN, crowd},
};

const BUYERS: usize = 5;

/// The files of settings, and the folder that the commands are started with.
struct Desk {
    folder: TempDir,
}

impl Desk {
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
        let mut command = command(&[]);
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

    /// The one dead letter, once it needs a person.
    async fn parked(&self) -> String {
        let until = Instant::now() + PATIENCE;
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            let parked = self.dead_letter(&["list", "--state", "parked"]).await;
            if let Some(id) = parked[0]["id"].as_str() {
                return id.to_owned();
            }
            assert!(Instant::now() < until, "nothing is parked");
        }
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

/// Deployment and desk, after some have bought and everything is at rest.
async fn after_a_sale() -> (Deployment, Desk, usize) {
    let deployment = Deployment::open().await;
    let event = put_on_sale(&deployment, "show", 100).await;
    let wishes = std::iter::repeat_n((Kind::Pays, event), BUYERS);
    let outcomes = crowd(&deployment, "sale", wishes).await;
    let books = rest::come_to_rest(&deployment, &[event]).await;
    rest::hold(&deployment, &[event], &outcomes, &books).await;
    let desk = Desk::open(&deployment);
    (deployment, desk, books.tickets.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_reads_the_books_of_all_services_and_tells_only_what_lasts() {
    let _turn = TURN.lock().await;
    // Given a sale, an audit of all services finds nothing,
    let (deployment, desk, tickets) = after_a_sale().await;
    let (code, report) = desk.audit().await;
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
    // and one store is not taken for two.
    let same = desk.run(&["event-1", "event-1"], &["audit"]).await;
    assert_eq!(same.status.code(), Some(1));
    assert!(text(&same.stderr).contains("name the same store"));
    // When a ticket is gone from the books of one service,
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
    // then its payment, which is another's, and its claim in Redis are told, each time.
    let (code, report) = desk.audit().await;
    assert_eq!(code, Some(1), "{report}");
    let told = report["violations"].to_string();
    for words in [
        "there is no ticket for it",
        "Redis counts it as bought",
        "counted as sold",
    ] {
        assert!(told.contains(words), "{words}: {report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_and_the_gateways_books_are_seen_to_beside_working_processes() {
    let _turn = TURN.lock().await;
    // Given a message that its consumer rejects until it is parked,
    let (deployment, desk, tickets) = after_a_sale().await;
    commit_poison(&deployment).await;
    let id = desk.parked().await;
    assert_eq!(
        desk.dead_letter(&["show", &id]).await["letter"]["messageId"],
        "poison"
    );
    // when a person sends it again, its group rejects it again,
    let sent = desk.dead_letter(&["replay", &id]).await;
    assert_eq!(sent["state"], "REPLAYED", "{sent}");
    assert_eq!(desk.parked().await, id);
    // and what is discarded stays so.
    desk.dead_letter(&["discard", &id]).await;
    let shown = desk.dead_letter(&["show", &id]).await;
    assert_eq!(shown["state"], "DISCARDED", "{shown}");
    // (Of several databases one is meant.)
    let files = ["event-1", "user,dead-letter-1"];
    let refused = desk.run(&files, &["dead-letter", "list"]).await;
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("only `audit`"));
    let again = desk
        .run(&["user,dead-letter-1"], &["dead-letter", "replay", &id])
        .await;
    assert_eq!(again.status.code(), Some(1));

    // Given books that agree with the gateway's,
    let clean = desk
        .run(&["payment-worker-1"], &["reconcile", "--json"])
        .await;
    assert_eq!(clean.status.code(), Some(0), "{}", text(&clean.stderr));
    assert_eq!(json(&clean)["matched"], tickets, "{}", json(&clean));
    // when the gateway was paid for an order that is none of ours, that is told.
    deployment
        .gateway
        .charge("another-shops-order", "pg-foreign", 500)
        .await;
    let told = desk.run(&["payment-api-2"], &["reconcile", "--json"]).await;
    assert_eq!(told.status.code(), Some(1), "{}", text(&told.stderr));
    assert_eq!(json(&told)["missingHere"], 1, "{}", json(&told));
    let left: Vec<_> = fs::read_dir(desk.folder.path()).unwrap().collect();
    assert_eq!(left.len(), deployment.processes.len(), "{left:?}");
}

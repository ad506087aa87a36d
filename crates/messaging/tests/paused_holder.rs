//! A holder that is stopped for longer than its lease, as a process is by a paused machine: another takes the lease
//! and writes, and what the first one then writes is refused. A real process and PostgreSQL.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use common::{Account, postgres::Schema, tables};
use messaging::{
    Clock, Commit, CommitError, Fence, LeaseManager, MessageTable, Metrics, Postgres,
    PostgresSettings, Store,
    lease::{Error, Lease},
};

const NAME: &str = "account 1";
const LEASE_MILLIS: i64 = 1_000;
/// What must come does so within this, or the test fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the child finds everything: it is this program again, and runs `the_other_process`.
const PLACE: &str = "PAUSED_HOLDER_PLACE";

/// One process that wants the lease, and what it protects.
struct Party {
    store: Store,
    leases: LeaseManager,
}

impl Party {
    async fn join(postgres: &PostgresSettings, holder: &str) -> Self {
        let opened = Store::open_postgres(postgres, &tables(), Metrics::unregistered()).await;
        let (store, holder) = (opened.unwrap(), holder.to_owned());
        let leases = LeaseManager::new(store.clone(), Clock::System, holder, LEASE_MILLIS);
        Self { store, leases }
    }

    /// Takes the lease when it is free.
    async fn acquire(&self) -> Lease {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        loop {
            if let Some(lease) = self.leases.try_acquire(NAME).await.unwrap() {
                return lease;
            }
            look.tick().await;
        }
    }

    async fn balance(&self) -> Option<i64> {
        let known: Option<Account> = self.store.load(1).await.unwrap();
        known.map(|known| known.balance)
    }

    async fn write(&self, balance: i64, fence: Fence) -> Result<(), CommitError> {
        let known: Option<Account> = self.store.load(1).await.unwrap();
        let account = known.unwrap_or_else(|| Account::new(1, 0));
        let mut commit = Commit::new();
        commit.put(&account.with_balance(balance)).fenced_by(fence);
        self.store.commit(commit).await
    }
}

/// The child: it says a line for whatever happened, and writes when it is told to.
struct Other {
    child: Child,
    said: Receiver<String>,
}

impl Other {
    fn start(postgres: &PostgresSettings) -> Self {
        let place = [&postgres.url, &postgres.schema];
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["the_other_process", "--exact", "--nocapture"])
            .env(PLACE, place.map(String::as_str).join("\n"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (say, said) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, word)) = line.split_once("said: ") {
                    let _ = say.send(word.to_owned());
                }
            }
        });
        Self { child, said }
    }

    fn hear(&self) -> String {
        self.said.recv_timeout(PATIENCE).expect("it says something")
    }

    fn tell_to_write(&mut self, balance: i64) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{balance}").unwrap();
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // Also where it is stopped; it fails only where it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the child does; in the tester's own process, nothing.
#[tokio::test(flavor = "multi_thread")]
async fn the_other_process() {
    let Ok(place) = std::env::var(PLACE) else {
        return;
    };
    let place: Vec<&str> = place.lines().collect();
    let postgres = settings(place[0], place[1]);
    let party = Party::join(&postgres, "the other").await;
    let lease = party.acquire().await;
    println!("said: holds {}", lease.token());
    let told = std::io::stdin().lines().map_while(Result::ok);
    for wanted in told {
        let wanted = wanted.parse().unwrap();
        match party.write(wanted, lease.fence()).await {
            Ok(()) => println!("said: written"),
            Err(CommitError::Fenced { lease }) => {
                println!("said: refused without {lease}");
                break;
            }
            Err(error) => println!("said: {error}"),
        }
    }
    lease.lost().await;
    println!("said: lost, {}", lease.is_lost());
    match lease.release().await {
        Err(Error::Lost { lease }) => println!("said: nothing to release of {lease}"),
        other => println!("said: {other:?}"),
    }
}

fn settings(url: &str, schema: &str) -> PostgresSettings {
    PostgresSettings {
        url: url.to_owned(),
        schema: schema.to_owned(),
        messages: MessageTable::Outbox,
        connections_max: 2,
        ..PostgresSettings::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_was_stopped_past_its_lease_is_told_of_the_loss_and_writes_nothing() {
    // Given a process that holds the lease, and writes under it,
    let schema = Schema::new();
    let postgres = settings(&schema.settings.url, &schema.settings.schema);
    Postgres::migrate(&postgres, &tables()).await.unwrap();
    let party = Party::join(&postgres, "this").await;
    let mut other = Other::start(&postgres);
    assert_eq!(other.hear(), "holds 1");
    other.tell_to_write(3);
    assert_eq!(other.hear(), "written");

    // when it is stopped until its lease has run out, and another takes it and writes,
    other.signal("-STOP");
    let lease = tokio::time::timeout(PATIENCE, party.acquire()).await;
    let lease = lease.unwrap();
    assert_eq!(lease.token(), 2);
    party.write(5, lease.fence()).await.unwrap();

    // then what it wants to write when it goes on is refused, and it is told that it lost the lease.
    other.tell_to_write(7);
    other.signal("-CONT");
    assert_eq!(other.hear(), format!("refused without {NAME}"));
    assert_eq!(other.hear(), "lost, true");
    assert_eq!(other.hear(), format!("nothing to release of {NAME}"));
    assert_eq!(party.balance().await, Some(5));
    lease.release().await.unwrap();
}

//! A holder that is stopped for longer than its lease, as a process is by a paused machine: another takes the lease
//! and writes, and what the first one then writes is refused. A real process, Redis and PostgreSQL.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use messaging::{
    Clock, CommitError, MessageTable, Metrics, Postgres, PostgresSettings, Store,
    lease::{Error, LeaseManager},
};
use ticketing::{RedisSettings, redis_leases::RedisLeases, redis_server::RedisServer};

#[path = "../../messaging/tests/common/postgres.rs"]
#[expect(dead_code, reason = "a part of it is used")]
mod postgres_place;
#[path = "common/protected.rs"]
mod protected;
#[path = "common/redis.rs"]
#[expect(dead_code, reason = "a part of it is used")]
mod redis_place;

use protected::{STOCK, quantity, resize};

const LEASE_MILLIS: i64 = 1_000;
/// What must come does so within this, or the test fails.
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the child finds everything: it is this program again, and runs `the_other_process`.
const PLACE: &str = "PAUSED_HOLDER_PLACE";

/// One process that wants the lock, and what it protects.
struct Party {
    store: Store,
    leases: LeaseManager,
}

impl Party {
    async fn join(postgres: &PostgresSettings, redis: &RedisSettings, holder: &str) -> Self {
        let tables = [messaging::TABLES, ticketing::TABLES].concat();
        let store = Store::open_postgres(postgres, &tables, Metrics::unregistered());
        let store = store.await.unwrap();
        let server = RedisServer::connect(redis).await.unwrap();
        let (kept, holder) = (store.clone(), holder.to_owned());
        let ledger = RedisLeases::open(server, kept).await.unwrap();
        let leases = LeaseManager::new(ledger, Clock::System, holder, LEASE_MILLIS);
        Self { store, leases }
    }
}

/// The child: it says a line for whatever happened, and writes when it is told to.
struct Other {
    child: Child,
    said: Receiver<String>,
}

impl Other {
    fn start(postgres: &PostgresSettings, redis: &RedisSettings) -> Self {
        let place = [&postgres.url, &postgres.schema, &redis.url, &redis.prefix];
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

    fn tell_to_write(&mut self, quantity: i64) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{quantity}").unwrap();
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
    let redis = RedisSettings {
        url: place[2].to_owned(),
        prefix: place[3].to_owned(),
        ..RedisSettings::default()
    };
    let party = Party::join(&postgres, &redis, "the other").await;
    let lease = party.leases.acquire(STOCK).await.unwrap();
    println!("said: holds {}", lease.token());
    let told = std::io::stdin().lines().map_while(Result::ok);
    for wanted in told {
        let wanted = wanted.parse().unwrap();
        match resize(&party.store, wanted, lease.fence()).await {
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
    let schema = postgres_place::Schema::new();
    let postgres = settings(&schema.settings.url, &schema.settings.schema);
    let tables = [messaging::TABLES, ticketing::TABLES].concat();
    Postgres::migrate(&postgres, &tables).await.unwrap();
    let redis = redis_place::settings();
    let party = Party::join(&postgres, &redis, "this").await;
    let mut other = Other::start(&postgres, &redis);
    assert_eq!(other.hear(), "holds 1");
    other.tell_to_write(3);
    assert_eq!(other.hear(), "written");

    // when it is stopped until its lease has run out, and another takes it and writes,
    other.signal("-STOP");
    let lease = tokio::time::timeout(PATIENCE, party.leases.acquire(STOCK)).await;
    let lease = lease.unwrap().unwrap();
    assert_eq!(lease.token(), 2);
    resize(&party.store, 5, lease.fence()).await.unwrap();

    // then what it wants to write when it goes on is refused, and it is told that it lost the lease.
    other.tell_to_write(7);
    other.signal("-CONT");
    assert_eq!(other.hear(), format!("refused without {STOCK}"));
    assert_eq!(other.hear(), "lost, true");
    assert_eq!(other.hear(), format!("nothing to release of {STOCK}"));
    assert_eq!(quantity(&party.store).await, Some(5));
    lease.release().await.unwrap();
}

//! How many messages a second one consumer carries over Kafka, from the commit that publishes them to the commit that
//! handles them, everything on this machine.
//!
//!   eval "$(scripts/engines start)"
//!   cargo run --release -p messaging --features kafka --example kafka_messages
#![expect(
    clippy::unwrap_used,
    reason = "a measurement that cannot go on has failed"
)]

use std::time::{Duration, Instant};

use contract::{Payload, Timestamp};
use messaging::{
    Bus, Clock, Column, Commit, Consumer, DeadLetterSettings, Kafka, KafkaSettings, Key, Message,
    MessageTable, Metrics, Postgres, PostgresSettings, Random, Record, Records, Ref, Rejection,
    Shell, ShutdownSwitch, Store, Table, Worker, metrics::GroupLabel,
};
use serde::{Deserialize, Serialize};

const ACCOUNTS: i64 = 1_000;
const MESSAGES: i64 = 100_000;
/// Messages of one commit, and commits under way at once, where as many as possible are published.
const COMMIT_MESSAGES: i64 = 10;
const COMMITS_WAITING: i64 = 64;
/// Messages one after the other, each when the one before was handled.
const ROUND_TRIPS: i64 = 300;

#[derive(Clone, Serialize, Deserialize)]
struct Account {
    id: i64,
    balance: i64,
    version: i64,
}

impl Record for Account {
    const TABLE: &'static Table = &Table {
        name: "account",
        columns: &[
            Column::integer("id"),
            Column::integer("balance"),
            Column::integer("version"),
        ],
        key: "id",
        constraints: &[],
        indexes: &[],
    };
    fn key(&self) -> Key {
        self.id.into()
    }
    fn version(&self) -> i64 {
        self.version
    }
}

#[derive(Serialize, Deserialize)]
struct Deposit {
    account: i64,
    amount: i64,
}

impl Payload for Deposit {
    const TOPIC: &'static str = "bank.deposit.request";
    fn key(&self) -> String {
        self.account.to_string()
    }
}

struct Teller;

impl Consumer for Teller {
    type Prepared = ();
    fn group(&self) -> &'static str {
        "teller"
    }
    fn topics(&self) -> &'static [&'static str] {
        &[Deposit::TOPIC]
    }
    fn concerns(&self, message: &Message) -> Result<Vec<Ref>, Rejection> {
        Ok(vec![Ref::to::<Account>(
            message.parse::<Deposit>()?.account,
        )])
    }
    fn decide(
        &self,
        message: &Message,
        records: &Records,
        (): &(),
        _: Timestamp,
    ) -> Result<Commit, Rejection> {
        let deposit: Deposit = message.parse()?;
        let account: Option<Account> = records.get(deposit.account)?;
        let mut account = account.ok_or_else(|| Rejection::new("there is no such account"))?;
        account.balance += deposit.amount;
        let mut commit = Commit::new();
        commit.put(&account);
        Ok(commit)
    }
}

fn deposits(from: i64, count: i64, now: Timestamp) -> Commit {
    let mut commit = Commit::new();
    for number in from..from + count {
        let deposit = Deposit {
            account: number % ACCOUNTS,
            amount: 1,
        };
        commit.publish(Message::new(number.to_string(), &deposit, now));
    }
    commit
}

async fn publish_all(store: &Store) {
    let mut waiting = std::collections::VecDeque::new();
    for commit in 0..MESSAGES / COMMIT_MESSAGES {
        let commit = deposits(
            commit * COMMIT_MESSAGES,
            COMMIT_MESSAGES,
            Clock::System.now(),
        );
        waiting.push_back(store.submit(messaging::Submission {
            commits: [commit].into(),
            position: None,
        }));
        if waiting.len() as i64 > COMMITS_WAITING {
            waiting.pop_front().unwrap().outcomes().await;
        }
    }
    for receipt in waiting {
        receipt.outcomes().await;
    }
}

#[tokio::main]
async fn main() {
    let environment = |name: &str| std::env::var(name).expect("the engines are started");
    let run = Random::System.below(1 << 30);
    let tables = [messaging::TABLES, &[Account::TABLE]].concat();
    let settings = PostgresSettings {
        url: environment("BOXOFFICE_TEST_POSTGRES_URL"),
        schema: format!("measure_{run}"),
        messages: MessageTable::Outbox,
        ..PostgresSettings::default()
    };
    Postgres::migrate(&settings, &tables).await.unwrap();
    let metrics = Metrics::unregistered();
    let store = Store::open_postgres(&settings, &tables, metrics.clone())
        .await
        .unwrap();
    let settings = KafkaSettings {
        brokers: environment("BOXOFFICE_TEST_KAFKA"),
        prefix: format!("measure-{run}."),
        ..KafkaSettings::default()
    };
    let kafka = Kafka::open(settings, &store, &[Deposit::TOPIC], 1_000_000)
        .await
        .unwrap();
    let mut accounts = Commit::new();
    for id in 0..ACCOUNTS {
        accounts.put(&Account {
            id,
            balance: 0,
            version: 0,
        });
    }
    store.commit(accounts).await.unwrap();

    let started = Instant::now();
    publish_all(&store).await;
    let committed = started.elapsed();
    let Store::Postgres(outbox) = &store else {
        unreachable!("it was opened so")
    };
    while !outbox.pending(1).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    say("committed", committed);
    say(
        "committed and acknowledged by the broker",
        started.elapsed(),
    );

    let shell = Shell {
        store: store.clone(),
        bus: Bus::Kafka(kafka.clone()),
        clock: Clock::System,
        random: Random::System,
        metrics: metrics.clone(),
        dead_letters: DeadLetterSettings::default(),
    };
    let handled = metrics
        .messages_handled
        .get_or_create(&GroupLabel { group: "teller" })
        .clone();
    let worker = Worker::new(Teller, shell).unwrap();
    let (switch, stop) = ShutdownSwitch::new();
    let worker = tokio::spawn(worker.run(stop));
    let mut committed = store.committed();
    while handled.get() == 0 {
        committed.changed().await.unwrap();
    }
    let (started, before) = (Instant::now(), handled.get());
    while handled.get() < MESSAGES as u64 {
        committed.changed().await.unwrap();
        tokio::task::yield_now().await;
        if handled.get() + 200 > MESSAGES as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let rate = (handled.get() - before) as f64 / started.elapsed().as_secs_f64();
    println!("one consumer: {rate:.0} messages a second handled");

    let mut trips = Vec::new();
    for number in 0..ROUND_TRIPS {
        let (started, before) = (Instant::now(), handled.get());
        store
            .commit(deposits(MESSAGES + number, 1, Clock::System.now()))
            .await
            .unwrap();
        while handled.get() == before {
            tokio::task::yield_now().await;
        }
        trips.push(started.elapsed());
    }
    trips.sort_unstable();
    let at = |part: usize| trips[trips.len() * part / 100].as_secs_f64() * 1000.0;
    println!(
        "from the commit that publishes to the commit that handles: p50 {:.1} ms, p99 {:.1} ms",
        at(50),
        at(99)
    );
    switch.stop();
    worker.await.unwrap();
    kafka.close().await;
}

fn say(what: &str, took: Duration) {
    println!(
        "{:.0} messages a second {what}",
        MESSAGES as f64 / took.as_secs_f64()
    );
}

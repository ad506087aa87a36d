//! How many messages a second consumers of one group carry over Kafka, from the commit that publishes them to the commit
//! that handles them, with one, two and four of them, each with a store, a consumer and a producer of its own as a
//! process has; everything on this machine.
//!
//!   eval "$(scripts/engines start)"
//!   cargo run --release -p messaging --features kafka --example kafka_messages
#![expect(
    clippy::unwrap_used,
    reason = "a measurement that cannot go on has failed"
)]

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use messaging::{
    Bus, Clock, Column, Commit, Consumer, DeadLetterSettings, Decision, Group, Kafka,
    KafkaSettings, Message, MessageTable, Metrics, Payload, Postgres, PostgresSettings, Random,
    Record, Records, Ref, Rejection, ShutdownSwitch, Store, Submission, Table, Timestamp, Worker,
    WorkerContext, metrics::GroupLabel,
};
use serde::{Deserialize, Serialize};

const ACCOUNTS: i64 = 1_000;
const MESSAGES: i64 = 100_000;
/// Messages of one commit, and commits under way at once, where as many as possible are published.
const COMMIT_MESSAGES: i64 = 10;
const COMMITS_WAITING: i64 = 64;
/// Messages that may wait for the publisher, and after how many commits that is looked at.
const PENDING_MAX: usize = 8_000;
const COMMITS_PER_LOOK: i64 = 200;
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
            Column::VERSION,
        ],
        key: "id",
        constraints: &[],
        indexes: &[],
    };
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
    type Input = Deposit;
    type Prefetched = ();
    type Outcome = ();
    fn group(&self) -> Group {
        Group::new("teller", &[Deposit::TOPIC])
    }
    fn read(&self, message: &Message) -> Result<Deposit, Rejection> {
        message.parse()
    }
    fn required_records(&self, deposit: &Deposit) -> Vec<Ref> {
        vec![Ref::to::<Account>(deposit.account)]
    }
    fn decide(
        &self,
        _message: &Message,
        deposit: &Deposit,
        records: &Records,
        (): &(),
        _: Timestamp,
    ) -> Result<Decision, Rejection> {
        let account: Option<Account> = records.get(deposit.account)?;
        let mut account = account.ok_or_else(|| Rejection::new("there is no such account"))?;
        account.balance += deposit.amount;
        let mut commit = Commit::new();
        commit.put(&account);
        Ok(commit.into())
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

/// Publishes everything, no faster than the publisher brings it to the brokers: what does not fit into memory would be
/// the relay's.
async fn publish_all(place: &Place) {
    let mut waiting = VecDeque::new();
    for commit in 0..MESSAGES / COMMIT_MESSAGES {
        if commit % COMMITS_PER_LOOK == 0 {
            place.until_published(PENDING_MAX).await;
        }
        let commit = deposits(
            commit * COMMIT_MESSAGES,
            COMMIT_MESSAGES,
            Clock::System.now(),
        );
        waiting.push_back(place.store.submit(Submission {
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
    place.until_published(0).await;
}

/// What one process has: a store, a bus, and counters.
struct Place {
    store: Store,
    kafka: Arc<Kafka>,
    metrics: Arc<Metrics>,
}

impl Place {
    async fn open(postgres: &PostgresSettings, kafka: &KafkaSettings) -> Self {
        let metrics = Metrics::unregistered();
        let store = Store::open_postgres(postgres, &tables(), metrics.clone())
            .await
            .unwrap();
        let kafka = Kafka::open(kafka.clone(), &store, &[Deposit::TOPIC], &[], 1_000_000);
        Self {
            kafka: kafka.await.unwrap(),
            store,
            metrics,
        }
    }

    async fn until_published(&self, pending_max: usize) {
        let Store::Postgres(outbox) = &self.store else {
            unreachable!("it was opened so")
        };
        let look = u32::try_from(pending_max + 1).unwrap();
        while outbox.pending(look).await.unwrap().len() > pending_max {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn worker(&self) -> Worker<Teller> {
        let context = WorkerContext {
            store: self.store.clone(),
            bus: Bus::Kafka(self.kafka.clone()),
            clock: Clock::System,
            random: Random::System,
            metrics: self.metrics.clone(),
            dead_letters: DeadLetterSettings::default(),
        };
        Worker::new(Teller, context).unwrap()
    }

    fn handled(&self) -> u64 {
        let teller = GroupLabel { group: "teller" };
        self.metrics.messages_handled.get_or_create(&teller).get()
    }
}

fn tables() -> Vec<&'static Table> {
    [messaging::TABLES, &[Account::TABLE]].concat()
}

#[tokio::main]
async fn main() {
    for consumers in [1, 2, 4] {
        measure(consumers).await;
    }
}

async fn measure(consumers: usize) {
    let environment = |name: &str| std::env::var(name).expect("the engines are started");
    let run = Random::System.below(1 << 30);
    let postgres = PostgresSettings {
        url: environment("BOXOFFICE_TEST_POSTGRES_URL"),
        schema: format!("measure_{run}"),
        messages: MessageTable::Outbox,
        ..PostgresSettings::default()
    };
    Postgres::migrate(&postgres, &tables()).await.unwrap();
    let kafka = KafkaSettings {
        brokers: environment("BOXOFFICE_TEST_KAFKA"),
        prefix: format!("measure-{run}."),
        ..KafkaSettings::default()
    };
    let mut places = Vec::new();
    for _ in 0..consumers {
        places.push(Place::open(&postgres, &kafka).await);
    }
    let publisher = &places[0];
    let mut accounts = Commit::new();
    for id in 0..ACCOUNTS {
        accounts.put(&Account {
            id,
            balance: 0,
            version: 0,
        });
    }
    publisher.store.commit(accounts).await.unwrap();

    let started = Instant::now();
    publish_all(publisher).await;
    let rate = MESSAGES as f64 / started.elapsed().as_secs_f64();
    println!("{rate:.0} messages a second committed, and acknowledged by the broker");

    let (switch, stop) = ShutdownSwitch::new();
    let start = |place: &Place| tokio::spawn(place.worker().run(stop.clone()));
    let workers: Vec<_> = places.iter().map(start).collect();
    let handled = || places.iter().map(Place::handled).sum::<u64>();
    // The clock starts when every consumer has its partitions.
    while places.iter().any(|place| place.handled() == 0) && handled() < MESSAGES as u64 / 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (started, before) = (Instant::now(), handled());
    while handled() < MESSAGES as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let rate = (handled() - before) as f64 / started.elapsed().as_secs_f64();
    let each: Vec<u64> = places.iter().map(Place::handled).collect();
    println!(
        "{consumers} consumers: {rate:.0} messages a second handled, {:.0} each; shared out as {each:?}",
        rate / consumers as f64
    );
    if consumers == 1 {
        round_trips(publisher).await;
    }
    switch.stop();
    for worker in workers {
        worker.await.unwrap();
    }
    for place in &places {
        place.kafka.close().await;
    }
}

/// One message after the other, each when the one before was handled.
async fn round_trips(place: &Place) {
    let mut trips = Vec::new();
    for number in 0..ROUND_TRIPS {
        let (started, before) = (Instant::now(), place.handled());
        let commit = deposits(MESSAGES + number, 1, Clock::System.now());
        place.store.commit(commit).await.unwrap();
        while place.handled() == before {
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
}

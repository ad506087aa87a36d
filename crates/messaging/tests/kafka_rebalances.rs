//! Rebalances: no message of a key is overtaken by another, and a batch in the middle of its commit is finished or dropped as
//! a whole. Events are drawn from a printed seed; `REBALANCE_SEED` repeats them.
#![cfg(feature = "kafka")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod common;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use common::{
    Account, Deposit, Teller, balance, context, deposit, eventually, kafka::Brokers, movement,
    movements, publish, read_all, store_all, within,
};
use futures::future::BoxFuture;
use messaging::{
    Clock, Commit, Consumer, Decision, Group, Leader, LeaseManager, Message, Metrics, Payload,
    Postgres, Random, Records, Ref, Rejection, Relay, ShutdownSwitch, Store, StoreError, Timestamp,
    Worker, dead_letters::DeadLetter, metrics::GroupLabel,
};
use tokio::{sync::watch, task::JoinHandle};

const KEYS: i64 = 64;

fn outbox(store: &Store) -> &Postgres {
    match store {
        Store::Postgres(outbox) => outbox,
        _ => unreachable!("it was opened so"),
    }
}

// ---- members that join and leave

/// Records in its commit what it sees of each key, and rejects what is out of order.
#[derive(Clone)]
struct Recorder;

impl Consumer for Recorder {
    type Input = Deposit;
    type Prefetched = ();
    type Outcome = ();
    fn group(&self) -> Group {
        Group::new("recorder", &[Deposit::TOPIC])
    }
    fn read(&self, message: &Message) -> Result<Deposit, Rejection> {
        message.parse()
    }
    fn required_records(&self, deposit: &Deposit) -> Vec<Ref> {
        vec![Ref::to::<Account>(seen_account(deposit.account))]
    }
    fn decide(
        &self,
        message: &Message,
        deposit: &Deposit,
        records: &Records,
        (): &(),
        _: Timestamp,
    ) -> Result<Decision, Rejection> {
        let account = records.get::<Account>(seen_account(deposit.account))?;
        let account = account.ok_or_else(|| Rejection::new("there is no such account"))?;
        if deposit.amount != account.balance + 1 {
            let text = format!("{} came behind {}", deposit.amount, account.balance);
            return Err(Rejection::new(text));
        }
        let mut commit = Commit::new();
        commit
            .put(&account.with_balance(deposit.amount))
            .append(&movement(&message.id, deposit.account, deposit.amount));
        Ok(commit.into())
    }
}

/// The row that stores what the consumer has seen of a key.
fn seen_account(key: i64) -> i64 {
    1_000 + key
}

/// Publishes 1, 2, 3 … for each key, in competition with the other process: each number is decided on the previous one.
async fn publish_turns(store: Store, keys: i64, random: Random, enough: Arc<AtomicBool>) {
    while !enough.load(Ordering::Relaxed) {
        let key = i64::try_from(random.below(keys.unsigned_abs())).unwrap();
        let last = common::account(&store, key).await;
        let next = last.balance + 1;
        let mut commit = Commit::new();
        commit
            .put(&last.with_balance(next))
            .publish(deposit(&format!("{key} {next}"), key, next));
        // It is published, or the other process was faster.
        let _ = store.commit(commit).await;
    }
}

fn member(store: &Store) -> (ShutdownSwitch, JoinHandle<()>, Arc<Metrics>) {
    let metrics = Metrics::unregistered();
    let context = context(store, &metrics, &Clock::System);
    let worker = Worker::new(Recorder, context).unwrap();
    let (switch, stop) = ShutdownSwitch::new();
    (switch, tokio::spawn(worker.run(stop)), metrics)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_message_of_a_key_is_overtaken_while_members_join_and_leave() {
    const KEYS: i64 = 6;
    const ROUNDS: u64 = 5;
    let seed = std::env::var("REBALANCE_SEED").map_or_else(
        |_| Random::System.below(1 << 30),
        |seed| seed.parse().unwrap(),
    );
    println!("REBALANCE_SEED={seed}");
    let random = Random::seeded(seed);
    let mut brokers = Brokers::new();
    brokers.settings.partitions = 4;
    let stores = [brokers.open_silent().await, brokers.open_silent().await];
    let buses = [
        brokers.connect(&stores[0]).await,
        brokers.connect(&stores[1]).await,
    ];
    let accounts =
        (0..KEYS).flat_map(|key| [Account::new(key, 0), Account::new(seen_account(key), 0)]);
    store_all(&stores[0], &accounts.collect::<Vec<_>>()).await;
    // As in production, the relay publishes rows that are blocked for long.
    let mut relaying = Vec::new();
    for (store, bus) in stores.iter().zip(&buses) {
        let (switch, stop) = ShutdownSwitch::new();
        let lease_millis = bus.settings().relay_lease_millis;
        let leases =
            LeaseManager::new(store.clone(), Clock::System, "one".to_owned(), lease_millis);
        let (bus, store) = (Arc::clone(bus), store.clone());
        let relay = Leader::new(leases, Relay::LEASE, stop.clone(), move |fence, stop| {
            let (bus, store, metrics) = (bus.clone(), store.clone(), Metrics::unregistered());
            let relay = Relay::new(bus, store, Clock::System, metrics, fence);
            messaging::periodic::run(relay, Clock::System, stop)
        });
        relaying.push((
            switch,
            tokio::spawn(messaging::periodic::run(relay, Clock::System, stop)),
        ));
    }

    let enough = Arc::new(AtomicBool::new(false));
    let publishing = stores.clone().map(|store| {
        let random = Random::seeded(random.below(u64::MAX));
        tokio::spawn(publish_turns(store, KEYS, random, Arc::clone(&enough)))
    });
    let mut members = vec![member(&stores[0])];
    let label = GroupLabel { group: "recorder" };
    for round in 0..ROUNDS {
        let newcomer = member(&stores[random.below(2) as usize]);
        let handled = newcomer.2.messages_handled.get_or_create(&label).clone();
        members.push(newcomer);
        let awaited = format!("a newcomer of round {round} handles messages");
        eventually(&awaited, async || handled.get() >= 20).await;
        // Any member may leave, gracefully or aborted; at least one stays.
        let (switch, going, _) = members.remove(random.below(members.len() as u64) as usize);
        if random.below(2) == 0 {
            switch.stop();
            within("a member leaves", going).await.unwrap();
        } else {
            going.abort();
        }
    }
    enough.store(true, Ordering::Relaxed);
    for publishing in publishing {
        within("a publisher ends", publishing).await.unwrap();
    }
    let bus = common::bus(&stores[0]);
    eventually("everything published is handled", async || {
        bus.is_drained("recorder", &[Deposit::TOPIC]).await.unwrap()
    })
    .await;
    for (switch, working, _) in members {
        switch.stop();
        within("a member ends", working).await.unwrap();
    }

    assert_eq!(
        read_all(&stores[0], "undertaker", &[DeadLetter::TOPIC]).await,
        []
    );
    let mut all = 0;
    for key in 0..KEYS {
        let published = balance(&stores[0], key).await;
        assert!(published > 0);
        let seen = balance(&stores[0], seen_account(key)).await;
        assert_eq!(seen, published, "key {key} of seed {seed}");
        all += published;
    }
    assert_eq!(movements(&stores[0]).await.len() as i64, all);
    for (switch, relaying) in relaying {
        switch.stop();
        within("a relay ends", relaying).await.unwrap();
    }
    for bus in buses {
        within("a bus closes", bus.close()).await;
    }
}

// ---- a revocation while a batch is committed

/// A teller that is paused in the middle of a large batch: its records are loaded, nothing is committed.
struct PausingTeller {
    gate: Gate,
}

#[derive(Clone)]
struct Gate {
    /// 0: open; 1: the first batch waits; 2: the next large one waits.
    state: watch::Sender<u8>,
    /// Keys of the large batch that waits.
    held: Arc<Mutex<HashSet<String>>>,
}

impl Gate {
    fn new() -> Self {
        Self {
            state: watch::Sender::new(1),
            held: Arc::default(),
        }
    }

    async fn pass(&self, deposits: Vec<&Deposit>) {
        let mut state = self.state.subscribe();
        // Gives the published messages time to arrive after this batch.
        let _ = state.wait_for(|state| *state != 1).await;
        let keys: HashSet<_> = deposits.iter().map(|it| it.key()).collect();
        let is_large = keys.len() as i64 >= KEYS / 2;
        if is_large && *state.borrow() == 2 {
            *self.held.lock().unwrap() = keys;
            let _ = state.wait_for(|state| *state == 0).await;
        }
    }
}

impl Consumer for PausingTeller {
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
        Teller { group: "teller" }.required_records(deposit)
    }
    fn prefetch<'a>(&'a self, deposits: Vec<&'a Deposit>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async {
            self.gate.pass(deposits).await;
            Ok(())
        })
    }
    fn decide(
        &self,
        message: &Message,
        deposit: &Deposit,
        records: &Records,
        prefetched: &(),
        now: Timestamp,
    ) -> Result<Decision, Rejection> {
        Teller { group: "teller" }.decide(message, deposit, records, prefetched, now)
    }
}

/// A group whose first member is in the middle of a large batch, and whose second one joins.
struct PausedGroup {
    store: Store,
    gate: Gate,
    deposited: i64,
    first: (ShutdownSwitch, JoinHandle<()>),
    second: (ShutdownSwitch, JoinHandle<()>),
    metrics: Arc<Metrics>,
    brokers: Brokers,
}

async fn paused_group(revoke_millis_max: u64) -> PausedGroup {
    let mut brokers = Brokers::new();
    brokers.settings.partitions = 8;
    brokers.settings.revoke_millis_max = revoke_millis_max;
    // The watchdog must not report the paused batch as stalled.
    brokers.settings.stall_secs_max = 600;
    let store = brokers.open_silent().await;
    let kafka = brokers.connect(&store).await;
    brokers.keep(&kafka);
    let accounts: Vec<_> = (0..KEYS).map(|id| Account::new(id, 0)).collect();
    store_all(&store, &accounts).await;
    let gate = Gate::new();
    let consumer = PausingTeller { gate: gate.clone() };
    let metrics = Metrics::unregistered();
    let worker = Worker::new(consumer, context(&store, &metrics, &Clock::System)).unwrap();
    let (switch, stop) = ShutdownSwitch::new();
    let first = (switch, tokio::spawn(worker.run(stop)));

    // Messages may arrive in small batches: those are released, until a large one arrives.
    let mut deposited = 0;
    let is_held = || !gate.held.lock().unwrap().is_empty();
    while !is_held() {
        deposited += 1;
        assert!(deposited < 100, "no large batch came");
        gate.state.send_replace(1);
        let all = (0..KEYS).map(|id| deposit(&format!("{id} {deposited}"), id, 1));
        publish(&store, all).await;
        eventually("the brokers have everything", async || {
            outbox(&store).pending(1).await.unwrap().is_empty()
        })
        .await;
        // By the answer to a request that follows the sends, the consumer has most of the messages.
        let bus = common::bus(&store);
        assert!(!bus.is_drained("teller", &[Deposit::TOPIC]).await.unwrap());
        gate.state.send_replace(2);
        eventually("the batches are handled, or one is held", async || {
            is_held() || movements(&store).await.len() as i64 == deposited * KEYS
        })
        .await;
    }

    let metrics = Metrics::unregistered();
    let second = Worker::new(
        Teller { group: "teller" },
        context(&store, &metrics, &Clock::System),
    );
    let (switch, stop) = ShutdownSwitch::new();
    let second = (switch, tokio::spawn(second.unwrap().run(stop)));
    PausedGroup {
        store,
        gate,
        deposited,
        first,
        second,
        metrics,
        brokers,
    }
}

impl PausedGroup {
    fn handled_by_second(&self) -> u64 {
        let label = GroupLabel { group: "teller" };
        self.metrics.messages_handled.get_or_create(&label).get()
    }

    /// Publishes one more for each key, for the current owner of its partition.
    async fn one_more(&mut self) {
        self.deposited += 1;
        let number = self.deposited;
        let all = (0..KEYS).map(|id| deposit(&format!("{id} {number}"), id, 1));
        publish(&self.store, all).await;
    }

    async fn ends_with_everything_once(self) {
        let bus = common::bus(&self.store);
        eventually("everything is handled", async || {
            bus.is_drained("teller", &[Deposit::TOPIC]).await.unwrap()
        })
        .await;
        for (switch, working) in [self.first, self.second] {
            switch.stop();
            within("a member ends", working).await.unwrap();
        }
        for id in 0..KEYS {
            assert_eq!(
                balance(&self.store, id).await,
                self.deposited,
                "account {id}"
            );
        }
        let moved = movements(&self.store).await.len() as i64;
        assert_eq!(moved, KEYS * self.deposited);
        assert_eq!(
            read_all(&self.store, "undertaker", &[DeadLetter::TOPIC]).await,
            []
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_revoked_partition_waits_for_the_batch_in_progress() {
    // Longer than this test's timeouts.
    let mut group = paused_group(250_000).await;
    // The first member must give up some of its partitions.
    eventually("the newcomer is in the group", async || {
        group.brokers.group("teller") == ("Stable".to_owned(), 2)
    })
    .await;
    group.one_more().await;
    eventually("the brokers have one more of each key", async || {
        outbox(&group.store).pending(1).await.unwrap().is_empty()
    })
    .await;
    let in_hand = group.gate.held.lock().unwrap().len();
    assert!(in_hand as i64 >= KEYS / 2);
    // The newcomer gets the partitions only after the batch is finished.
    assert_eq!(group.handled_by_second(), 0);
    group.gate.state.send_replace(0);
    eventually("the newcomer has partitions", async || {
        group.handled_by_second() > 0
    })
    .await;
    let label = GroupLabel { group: "teller" };
    let again = group.metrics.messages_duplicate.get_or_create(&label).get();
    assert_eq!(
        again, 0,
        "the finished batch is committed to the brokers before the revocation"
    );
    group.ends_with_everything_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_batch_that_is_committed_too_late_is_dropped() {
    let group = paused_group(100).await;
    // The newcomer does not wait: it handles the messages of the paused batch, under the same ids.
    eventually(
        "the newcomer handles what another has in hand",
        async || group.handled_by_second() > 0,
    )
    .await;
    group.gate.state.send_replace(0);
    group.ends_with_everything_once().await;
}

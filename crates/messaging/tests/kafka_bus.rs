//! What the Kafka bus promises beyond every bus: order with several publishers, nothing lost or doubled if a process dies,
//! and the relay's lease.
#![cfg(feature = "kafka")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use common::{
    Account, Deposit, balance, context, deposit, drain, eventually,
    kafka::{Brokers, INBOX_SECS, TOPICS, guarded},
    movements, publish, read_all, start, store_all, teller, within,
};
use messaging::{
    Batch, Bus, Clock, Commit, Consumer, Decision, Group, Kafka, KafkaSettings, Lease,
    LeaseManager, Message, Metrics, Payload, Records, Ref, Rejection, Relay, Runner,
    ShutdownSwitch, Store, Timestamp, Worker,
    bus::Subscription,
    dead_letters::{DeadLetter, DeadLetterResolved},
    kafka::OpenError,
};
use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};

const RELAY_AFTER_MILLIS: i64 = 5_000;

/// A relay that has taken its lease.
async fn relay(kafka: &Arc<Kafka>, store: &Store, clock: &Clock, holder: &str) -> (Relay, Lease) {
    let lease_millis = kafka.settings().relay_lease_millis;
    let (store, clock) = (store.clone(), clock.clone());
    let leases = LeaseManager::new(
        store.clone(),
        clock.clone(),
        holder.to_owned(),
        lease_millis,
    );
    let lease = leases.try_acquire(Relay::LEASE).await.unwrap();
    let lease = lease.expect("the lease is free");
    let metrics = Metrics::unregistered();
    let relay = Relay::new(Arc::clone(kafka), store, clock, metrics, lease.fence());
    (relay, lease)
}

/// Two rounds of the relay, far enough apart for rows to be overdue; returns how many rows it published.
async fn relayed(relay: &mut Relay, clock: &Clock) -> usize {
    assert_eq!(relay.run_once().await, Ok(0));
    clock.advance_millis(RELAY_AFTER_MILLIS);
    relay.run_once().await.unwrap()
}

async fn deposits(store: &Store, group: &'static str) -> Vec<String> {
    let all = read_all(store, group, &[Deposit::TOPIC]).await;
    all.iter().map(|message| message.id.clone()).collect()
}

/// The next messages that arrive.
async fn next_batch(subscription: &mut Subscription, max: usize) -> Batch {
    let coming = async {
        loop {
            if let Some(batch) = subscription.try_next(max).await.unwrap() {
                return batch;
            }
            subscription.changed().await;
        }
    };
    within("messages arrive from the brokers", coming).await
}

/// The first messages that arrive, in a group of its own.
async fn first_to_come(store: &Store) -> Vec<String> {
    let mut subscription = common::bus(store)
        .subscribe("early", &[Deposit::TOPIC])
        .unwrap();
    let mut early = Vec::new();
    while early.is_empty() {
        let batch = next_batch(&mut subscription, 10).await;
        early.extend(batch.messages.iter().map(|message| message.id.clone()));
    }
    within("a consumer leaves", subscription.close()).await;
    early
}

/// Without the later ones of equal ids.
fn first_of_each(ids: Vec<String>) -> Vec<String> {
    let mut firsts: Vec<String> = Vec::new();
    for id in ids {
        if !firsts.contains(&id) {
            firsts.push(id);
        }
    }
    firsts
}

/// Accepts the deposits of an account only in the order of their amounts: 1, 2, 3 …
#[derive(Clone)]
struct Sequenced;

impl Consumer for Sequenced {
    type Input = Deposit;
    type Prefetched = ();
    type Outcome = ();
    fn group(&self) -> Group {
        Group::new("sequenced", &[Deposit::TOPIC])
    }
    fn read(&self, message: &Message) -> Result<Deposit, Rejection> {
        message.parse()
    }
    fn required_records(&self, deposit: &Deposit) -> Vec<Ref> {
        vec![Ref::to::<Account>(deposit.account)]
    }
    fn decide(
        &self,
        message: &Message,
        deposit: &Deposit,
        records: &Records,
        (): &(),
        _: Timestamp,
    ) -> Result<Decision, Rejection> {
        let account: Option<Account> = records.get(deposit.account)?;
        let account = account.ok_or_else(|| Rejection::new("there is no such account"))?;
        if deposit.amount != account.balance + 1 {
            return Err(Rejection::new("it is out of order"));
        }
        let mut commit = Commit::new();
        commit
            .put(&account.with_balance(deposit.amount))
            .append(&common::movement(
                &message.id,
                deposit.account,
                deposit.amount,
            ));
        Ok(commit.into())
    }
}

// ---- redelivery

#[tokio::test]
async fn a_batch_committed_without_an_acknowledgement_is_redelivered_and_changes_nothing() {
    let brokers = Brokers::new();
    let store = brokers.open_silent().await;
    let kafka = brokers.connect(&store).await;
    let metrics = Metrics::unregistered();
    let context = context(&store, &metrics, &Clock::manual(start()));
    store_all(&store, &[Account::new(1, 0)]).await;
    publish(&store, (0..50).map(|n| deposit(&n.to_string(), 1, 1))).await;

    // The process dies between commit and acknowledgement: here, the batch is committed by hand and not acknowledged.
    let mut subscription = context.bus.subscribe("teller", &[Deposit::TOPIC]).unwrap();
    let mut handled = 0;
    while handled < 20 {
        let batch = next_batch(&mut subscription, 20).await;
        for message in batch.messages {
            let records = Records::default().with(&common::account(&store, 1).await);
            let teller = common::Teller { group: "teller" };
            // `Records::with` counts as a save, so the version is one too high.
            let deposit = teller.read(&message).unwrap();
            let decision = teller.decide(&message, &deposit, &records, &(), start());
            let mut commit = decision.unwrap().commit;
            for put in &mut commit.puts {
                put.expected -= 1;
                put.row.set("version", (put.expected + 1).into());
            }
            commit.handled = Some(messaging::commit::Handled {
                group: "teller".into(),
                message_id: message.id.clone(),
                key: message.key.clone(),
                at: start(),
            });
            store.commit(commit).await.unwrap();
            handled += 1;
        }
    }
    within("a consumer leaves", subscription.close()).await;

    let mut worker = teller(&context);
    assert_eq!(drain(&mut worker).await, 50);
    assert_eq!(balance(&store, 1).await, 50);
    assert_eq!(movements(&store).await.len(), 50);
    let label = messaging::metrics::GroupLabel { group: "teller" };
    assert_eq!(
        metrics.messages_duplicate.get_or_create(&label).get(),
        handled
    );
    within("a bus closes", kafka.close()).await;
}

// ---- order during rebalances

/// Deposits 1, 2, 3 … to each account until `enough` is set; returns the last amount.
async fn publish_in_order(store: Store, accounts: i64, enough: Arc<AtomicBool>) -> i64 {
    let mut amount = 0;
    while !enough.load(Ordering::Relaxed) {
        amount += 1;
        publish(
            &store,
            (0..accounts).map(|id| deposit(&format!("{id} {amount}"), id, amount)),
        )
        .await;
    }
    amount
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn members_that_join_and_leave_during_batches_lose_double_and_reorder_nothing() {
    const ACCOUNTS: i64 = 8;
    let mut brokers = Brokers::new();
    brokers.settings.partitions = 4;
    // Two processes, each with its own store, bus and member.
    let (one, two) = (brokers.open_silent().await, brokers.open_silent().await);
    let buses = [brokers.connect(&one).await, brokers.connect(&two).await];
    let accounts: Vec<_> = (0..ACCOUNTS).map(|id| Account::new(id, 0)).collect();
    store_all(&one, &accounts).await;

    let enough = Arc::new(AtomicBool::new(false));
    let publishing = tokio::spawn(publish_in_order(one.clone(), ACCOUNTS, Arc::clone(&enough)));
    let (still, still_stop) = ShutdownSwitch::new();
    let metrics = Metrics::unregistered();
    let steady = Worker::new(Sequenced, context(&one, &metrics, &Clock::System)).unwrap();
    let steady = tokio::spawn(steady.run(still_stop));
    // The other member joins, handles messages, and leaves: gracefully, or aborted in the middle of a step.
    for round in 0..3 {
        let metrics = Metrics::unregistered();
        let guest = Worker::new(Sequenced, context(&two, &metrics, &Clock::System)).unwrap();
        let (switch, stop) = ShutdownSwitch::new();
        let guest = tokio::spawn(guest.run(stop));
        let label = messaging::metrics::GroupLabel { group: "sequenced" };
        let handled = metrics.messages_handled.get_or_create(&label).clone();
        eventually("the guest has handled messages", async || {
            handled.get() >= 100
        })
        .await;
        if round % 2 == 0 {
            switch.stop();
            within("the guest leaves", guest).await.unwrap();
        } else {
            guest.abort();
        }
    }
    enough.store(true, Ordering::Relaxed);
    let each = within("the publisher ends", publishing).await.unwrap();
    let bus = common::bus(&one);
    eventually("the group has handled everything", async || {
        bus.is_drained("sequenced", &[Deposit::TOPIC])
            .await
            .unwrap()
    })
    .await;
    still.stop();
    within("the steady member ends", steady).await.unwrap();

    for id in 0..ACCOUNTS {
        assert_eq!(balance(&one, id).await, each);
    }
    assert_eq!(movements(&one).await.len() as i64, ACCOUNTS * each);
    assert_eq!(read_all(&one, "undertaker", &[DeadLetter::TOPIC]).await, []);
    for bus in buses {
        within("a bus closes", bus.close()).await;
    }
}

// ---- the relay

#[tokio::test]
async fn unpublished_messages_of_a_dead_process_are_published_in_order() {
    let brokers = Brokers::new();
    let dead = brokers.open_silent().await;
    publish(&dead, (0..100).map(|n| deposit(&format!("{n:02}"), 1, 1))).await;
    drop(dead);

    let store = brokers.open_silent().await;
    let kafka = brokers.connect(&store).await;
    let clock = Clock::manual(start());
    let (mut relay, _lease) = relay(&kafka, &store, &clock, "one").await;
    assert_eq!(relayed(&mut relay, &clock).await, 100);
    assert_eq!(relay.run_once().await, Ok(0));
    let expected: Vec<_> = (0..100).map(|n| format!("{n:02}")).collect();
    assert_eq!(deposits(&store, "reader").await, expected);
    within("a bus closes", kafka.close()).await;
}

#[tokio::test]
async fn a_message_does_not_overtake_an_unpublished_one_of_its_key_of_a_dead_process() {
    let brokers = Brokers::new();
    let dead = brokers.open_silent().await;
    publish(&dead, [deposit("left behind", 1, 1)]).await;

    let store = brokers.open_silent().await;
    let kafka = brokers.connect(&store).await;
    publish(
        &store,
        [deposit("later", 1, 1), deposit("of another key", 2, 1)],
    )
    .await;
    publish(&store, [deposit("last", 1, 1)]).await;
    // A message that nothing blocks is published at once.
    assert_eq!(first_to_come(&store).await, ["of another key"]);

    let clock = Clock::manual(start());
    let (mut relay, _lease) = relay(&kafka, &store, &clock, "one").await;
    assert!(relayed(&mut relay, &clock).await >= 1);
    let of_the_key = read_all(&store, "reader", &[Deposit::TOPIC]).await;
    let of_the_key = of_the_key.iter().filter(|message| message.key == "1");
    let ids = first_of_each(of_the_key.map(|message| message.id.clone()).collect());
    assert_eq!(ids, ["left behind", "later", "last"]);
    within("a bus closes", kafka.close()).await;
}

#[tokio::test]
async fn messages_of_one_key_wait_only_for_their_own_subject() {
    let about = |subject: &str, message: Message| Message {
        subject: Some(subject.to_owned()),
        ..message
    };
    // given a message of a dead process, and two later ones of its key: one of its subject, one of another
    let brokers = Brokers::new();
    let dead = brokers.open_silent().await;
    publish(&dead, [about("one", deposit("left behind", 1, 1))]).await;
    let store = brokers.open_silent().await;
    let kafka = brokers.connect(&store).await;
    let later = [
        about("one", deposit("later", 1, 1)),
        about("two", deposit("of another subject", 1, 1)),
    ];
    publish(&store, later).await;
    // then the one of the other subject is published at once, and the relay publishes the rest in order
    assert_eq!(first_to_come(&store).await, ["of another subject"]);
    let clock = Clock::manual(start());
    let (mut relay, _lease) = relay(&kafka, &store, &clock, "one").await;
    assert!(relayed(&mut relay, &clock).await >= 1);
    let all = first_of_each(deposits(&store, "reader").await);
    assert_eq!(all, ["of another subject", "left behind", "later"]);
    within("a bus closes", kafka.close()).await;
}

#[tokio::test]
async fn a_leader_suspended_past_its_lease_publishes_nothing() {
    let mut brokers = Brokers::new();
    // Rows are overdue before the leader renews its lease.
    brokers.settings.relay_lease_millis = 4 * RELAY_AFTER_MILLIS;
    let dead = brokers.open_silent().await;
    publish(&dead, [deposit("left behind", 1, 1)]).await;
    let store = brokers.open_silent().await;
    let kafka = brokers.connect(&store).await;
    // The suspended leader's clock does not advance, so its lease looks valid to it.
    let (asleep, awake) = (Clock::manual(start()), Clock::manual(start()));
    let (mut stale, _stale) = relay(&kafka, &store, &asleep, "stale").await;
    assert_eq!(stale.run_once().await, Ok(0));
    awake.advance_millis(kafka.settings().relay_lease_millis);
    let (mut fresh, _fresh) = relay(&kafka, &store, &awake, "fresh").await;
    assert_eq!(fresh.run_once().await, Ok(0));

    asleep.advance_millis(RELAY_AFTER_MILLIS);
    assert_eq!(stale.run_once().await, Ok(0));
    let Store::Postgres(outbox) = &store else {
        unreachable!("it was opened so")
    };
    assert_eq!(outbox.pending(10).await.unwrap().len(), 1);
    awake.advance_millis(RELAY_AFTER_MILLIS);
    assert_eq!(fresh.run_once().await, Ok(1));
    assert_eq!(deposits(&store, "reader").await, ["left behind"]);
    within("a bus closes", kafka.close()).await;
}

#[tokio::test]
async fn a_leaders_task_runs_in_one_process_and_then_in_the_next() {
    let brokers = Brokers::new();
    let start = async || {
        let store = brokers.open_silent().await;
        let kafka = brokers.connect(&store).await;
        let context = context(&store, &Metrics::unregistered(), &Clock::System);
        let (tell, begun) = tokio::sync::mpsc::unbounded_channel();
        let mut runner = Runner::with_context(context);
        runner.leader("task", move |fence, mut stop| {
            let fence = fence.expect("several processes share the store");
            tell.send(fence.token).unwrap();
            async move { stop.requested().await }
        });
        (kafka, runner.start().unwrap(), begun)
    };
    let (kafka, running, mut begun) = start().await;
    let token = within("the first process leads", begun.recv()).await;
    let (next_kafka, next_running, mut next_begun) = start().await;
    assert!(next_begun.try_recv().is_err(), "the first process leads");

    assert!(running.stop(common::PATIENCE).await.is_empty());
    within("a bus closes", kafka.close()).await;
    let next_token = within("the next process leads", next_begun.recv()).await;
    assert!(next_token > token);
    assert!(next_running.stop(common::PATIENCE).await.is_empty());
    within("a bus closes", next_kafka.close()).await;
}

// ---- settings rejected at the start

#[tokio::test]
async fn a_topic_with_too_few_partitions_and_a_too_short_inbox_retention_are_rejected() {
    let brokers = Brokers::new();
    let store = brokers.open_silent().await;
    let kafka = brokers.connect(&store).await;
    within("a bus closes", kafka.close()).await;
    eventually("the broker knows the topics", async || {
        let mut known = true;
        for topic in TOPICS {
            let retention = brokers.configured(topic, "retention.ms").await;
            known &= retention.as_deref() == Some("3600000");
        }
        known && brokers.topics_at(&brokers.settings.brokers).len() == TOPICS.len()
    })
    .await;
    let refused = async |settings: KafkaSettings, inbox_secs| {
        let opened = Kafka::open(settings, &store, TOPICS, &[], inbox_secs).await;
        let error = opened.err().unwrap();
        let text = error.to_string();
        // The store is all right: repeating the start would not help.
        assert!(matches!(error, OpenError::Kafka(_)), "{text}");
        text
    };
    let more = KafkaSettings {
        partitions: 3,
        ..brokers.settings.clone()
    };
    assert!(refused(more, INBOX_SECS).await.contains("has 2 partitions"));
    let forgetful = refused(brokers.settings.clone(), 3_600).await;
    assert!(forgetful.contains("inbox_retention_secs"), "{forgetful}");
    assert!(forgetful.contains("raise it to"), "{forgetful}");
    // The topics keep the configuration they were created with.
    let shorter = KafkaSettings {
        retention_secs: 60,
        ..brokers.settings.clone()
    };
    let forgetful = refused(shorter, 3_600).await;
    assert!(forgetful.contains("inbox_retention_secs"), "{forgetful}");
    assert!(
        forgetful.contains(&brokers.settings.prefix),
        "no topic is named: {forgetful}"
    );
    let longer = KafkaSettings {
        retention_secs: 7_200,
        ..brokers.settings.clone()
    };
    let lossy = refused(longer, INBOX_SECS).await;
    assert!(
        lossy.contains(&brokers.settings.prefix) && lossy.contains("retention_secs says 7200"),
        "{lossy}"
    );
    let more_copies = KafkaSettings {
        replication: 2,
        ..brokers.settings.clone()
    };
    let few = refused(more_copies, INBOX_SECS).await;
    assert!(few.contains("setting replication says 2"), "{few}");
}

#[tokio::test]
async fn a_topic_created_by_others_is_rejected_if_it_would_lose_messages() {
    let brokers = Brokers::new();
    let store = brokers.open_silent().await;
    let name = format!("{}{}", brokers.settings.prefix, Deposit::TOPIC);
    let compacted = NewTopic::new(&name, 2, TopicReplication::Fixed(1))
        .set("cleanup.policy", "compact")
        .set("retention.ms", "3600000")
        .set("segment.ms", "900000");
    let admin = brokers.admin();
    let made = admin
        .create_topics([&compacted], &AdminOptions::new())
        .await;
    assert!(matches!(made.unwrap()[..], [Ok(_)]));
    eventually("the broker knows the topic", async || {
        let policy = brokers.configured(Deposit::TOPIC, "cleanup.policy").await;
        policy.as_deref() == Some("compact")
    })
    .await;
    let opened = Kafka::open(brokers.settings.clone(), &store, TOPICS, &[], INBOX_SECS).await;
    let refused = opened.err().unwrap().to_string();
    assert!(
        refused.contains(&name) && refused.contains("cleanup.policy"),
        "{refused}"
    );
}

// ---- stalls

#[tokio::test]
async fn a_batch_in_progress_that_is_not_retried_is_reported_as_stalled() {
    let mut brokers = Brokers::new();
    brokers.settings.stall_secs_max = 2;
    brokers.settings.revoke_millis_max = 1_000;
    let store = brokers.open_silent().await;
    let kafka = brokers.connect(&store).await;
    publish(&store, [deposit("a", 1, 1)]).await;
    let mut subscription = Bus::Kafka(Arc::clone(&kafka))
        .subscribe("slow", &[Deposit::TOPIC])
        .unwrap();
    let _in_hand = next_batch(&mut subscription, 10).await;
    let reason = within("the watchdog reports the stall", kafka.failed()).await;
    assert!(reason.contains("slow"), "{reason}");
}

// ---- dead letters

#[tokio::test]
async fn dead_letters_go_to_their_own_brokers_and_are_reissued_from_there() {
    let mut brokers = Brokers::new();
    let apart = &guarded().plain;
    brokers.settings.dead_letter_brokers = Some(apart.clone());
    let store = brokers.open_silent().await;
    let kafka = brokers.connect(&store).await;
    let clock = Clock::manual(start());
    let context = context(&store, &Metrics::unregistered(), &clock);
    publish(&store, [deposit("a", 1, 5)]).await;
    let mut worker = teller(&context);
    drain(&mut worker).await;
    let mut undertaker = Worker::new(
        messaging::dead_letters::DeadLetterConsumer::default(),
        context.clone(),
    )
    .unwrap();
    drain(&mut undertaker).await;
    let letters = messaging::dead_letters::list(&store, None, None, 10)
        .await
        .unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].letter.message_id, "a");

    // Neither broker has the topics of the other.
    let letter_topics = [DeadLetter::TOPIC, DeadLetterResolved::TOPIC];
    let mut there = brokers.topics_at(apart);
    there.sort();
    let mut wanted = letter_topics.map(|topic| format!("{}{topic}", brokers.settings.prefix));
    wanted.sort();
    assert_eq!(there, wanted);
    let here = brokers.topics_at(&brokers.settings.brokers);
    assert_eq!(here.len(), TOPICS.len() - letter_topics.len());

    // The dead letter is reissued to its group over the brokers of its topic.
    store_all(&store, &[Account::new(1, 0)]).await;
    clock.advance_millis(10_000);
    let timers = messaging::timers::Timers {
        store: store.clone(),
        clock: clock.clone(),
        metrics: Metrics::unregistered(),
    };
    timers.fire_due().await.unwrap();
    drain(&mut worker).await;
    assert_eq!(balance(&store, 1).await, 5);
    within("a bus closes", kafka.close()).await;
}

// ---- reports

#[tokio::test]
async fn lag_and_unpublished_messages_are_reported_exactly() {
    let brokers = Brokers::new();
    let dead = brokers.open_silent().await;
    publish(&dead, (0..7).map(|n| deposit(&format!("left {n}"), n, 1))).await;
    let store = brokers.open_silent().await;
    let kafka = brokers.connect(&store).await;
    let bus = Bus::Kafka(Arc::clone(&kafka));
    assert_eq!(bus.unpublished().await, Ok(7));

    let clock = Clock::manual(start());
    let (mut relay, _lease) = relay(&kafka, &store, &clock, "one").await;
    assert_eq!(relayed(&mut relay, &clock).await, 7);
    assert_eq!(bus.unpublished().await, Ok(0));

    // The lag of an idle group returns to 0, even if its last step saw some.
    let metrics = Metrics::unregistered();
    let worker = Worker::new(Sequenced, context(&store, &metrics, &Clock::System)).unwrap();
    let (switch, stop) = ShutdownSwitch::new();
    let working = tokio::spawn(worker.run(stop));
    let label = messaging::metrics::GroupLabel { group: "sequenced" };
    let lag = metrics.lag.get_or_create(&label).clone();
    lag.set(1_000);
    eventually("the lag is reported as 0", async || lag.get() == 0).await;
    switch.stop();
    within("the worker ends", working).await.unwrap();
    within("a bus closes", kafka.close()).await;
}

// ---- cleaning

#[tokio::test]
async fn cleaning_removes_old_inbox_entries_and_no_unpublished_message() {
    let brokers = Brokers::new();
    let dead = brokers.open_silent().await;
    publish(&dead, [deposit("left behind", 2, 1)]).await;
    drop(dead);
    let store = brokers.open_silent().await;
    let kafka = brokers.connect(&store).await;
    let clock = Clock::manual(start());
    store_all(&store, &[Account::new(1, 0)]).await;
    let mut handled = Commit::new();
    handled.handled = Some(messaging::commit::Handled {
        group: "teller".into(),
        message_id: "a".into(),
        key: "a".into(),
        at: start(),
    });
    store.commit(handled).await.unwrap();
    let housekeeping = messaging::housekeeping::Housekeeping {
        store: store.clone(),
        clock: clock.clone(),
        groups: vec!["teller"],
        settings: messaging::housekeeping::CleaningSettings {
            inbox_retention_secs: 60,
        },
        retentions: Vec::new(),
    };
    let marked = async || !store.seen("teller", &["a"]).await.unwrap().is_empty();
    // Each call continues the walk over the inbox, which restarts at its end.
    let clean = async || {
        for _ in 0..3 {
            housekeeping.clean().await.unwrap();
        }
    };
    clock.advance_millis(60_001);
    clean().await;
    // An unpublished message may still reach any group.
    assert_eq!(kafka.unpublished().await, Ok(1));
    assert!(marked().await);
    let relays = Clock::manual(start());
    let (mut relay, _lease) = relay(&kafka, &store, &relays, "one").await;
    assert_eq!(relayed(&mut relay, &relays).await, 1);
    clean().await;
    assert!(!marked().await);
    within("a bus closes", kafka.close()).await;
}

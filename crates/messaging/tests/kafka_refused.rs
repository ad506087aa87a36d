//! Messages that the brokers reject: each waits for an operator, with the later ones of its key; all others are published.
#![cfg(feature = "kafka")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Arc;

use common::{
    Deposit, Noise, PATIENCE, deposit, eventually, kafka::Brokers, noise, publish, start, within,
};
use messaging::{
    Clock, DeadLetterId, Kafka, Lease, LeaseManager, Message, Metrics, Payload, Relay, Store,
    dead_letters::{self, DeadLetterRecord, DeadLetterState},
};
use rdkafka::admin::{AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication};

const RELAY_AFTER_MILLIS: i64 = 5_000;
const TOPIC_PAUSE_MILLIS: i64 = 30_000;
/// The limit of the topic that [`Fixture::new`] creates; [`large`] exceeds it.
const TOPIC_BYTES_MAX: usize = 100_000;

struct Fixture {
    brokers: Brokers,
    store: Store,
    kafka: Arc<Kafka>,
    clock: Clock,
    metrics: Arc<Metrics>,
    relay: Relay,
    _lease: Lease,
}

impl Fixture {
    /// The topic of deposits accepts at most [`TOPIC_BYTES_MAX`].
    async fn new() -> Self {
        let brokers = Brokers::new();
        let name = format!("{}{}", brokers.settings.prefix, Deposit::TOPIC);
        let limit = TOPIC_BYTES_MAX.to_string();
        let narrow = NewTopic::new(&name, 2, TopicReplication::Fixed(1))
            .set("max.message.bytes", &limit)
            .set("retention.ms", "3600000")
            .set("segment.ms", "900000");
        let made = brokers.admin();
        let made = made.create_topics([&narrow], &AdminOptions::new()).await;
        assert!(matches!(made.unwrap()[..], [Ok(_)]));
        let store = brokers.open_silent().await;
        let kafka = brokers.connect(&store).await;
        Self::with(brokers, store, kafka).await
    }

    async fn with(brokers: Brokers, store: Store, kafka: Arc<Kafka>) -> Self {
        let (clock, metrics) = (Clock::manual(start()), Metrics::unregistered());
        let lease_millis = kafka.settings().relay_lease_millis;
        let leases = LeaseManager::new(store.clone(), clock.clone(), "one".into(), lease_millis);
        let lease = leases.try_acquire(Relay::LEASE).await.unwrap().unwrap();
        let relay = Relay::new(
            Arc::clone(&kafka),
            store.clone(),
            clock.clone(),
            Arc::clone(&metrics),
            lease.fence(),
        );
        Self {
            brokers,
            store,
            kafka,
            clock,
            metrics,
            relay,
            _lease: lease,
        }
    }

    /// Runs rounds of the relay until a condition holds.
    async fn relay_until(&mut self, awaited: &str, holds: impl AsyncFn(&Store) -> bool) {
        let mut last = Ok(0);
        let looking = async {
            while !holds(&self.store).await {
                // An early round may fail; the next one retries.
                last = self.relay.run_once().await;
                self.clock.advance_millis(RELAY_AFTER_MILLIS);
                tokio::task::yield_now().await;
            }
        };
        if tokio::time::timeout(PATIENCE, looking).await.is_err() {
            let (pending, letters) = (pending(&self.store).await, letters(&self.store).await);
            let letters: Vec<_> = letters
                .iter()
                .map(|it| (it.state, &it.letter.reason))
                .collect();
            panic!("awaited: {awaited}; {last:?}, {pending:?}, {letters:?}");
        }
    }

    /// The messages of a topic at the broker, each once, in order.
    async fn kept(&self, topic: &'static str) -> Vec<String> {
        let all = messaging::kafka::scan(&self.brokers.settings, &[topic]).await;
        let mut ids: Vec<String> = Vec::new();
        for message in all.unwrap() {
            if !ids.contains(&message.id) {
                ids.push(message.id);
            }
        }
        ids
    }

    async fn deposits(&self) -> Vec<String> {
        self.kept(Deposit::TOPIC).await
    }
}

/// Letters that hardly compress.
fn noise_of(length: usize, seed: u64) -> String {
    let random = messaging::Random::seeded(seed);
    let letter = |_| char::from(b'a' + random.below(26) as u8);
    (0..length).map(letter).collect()
}

/// Exceeds the limit of its topic.
fn large(id: &str, account: i64) -> Message {
    let message = deposit(id, account, 1);
    let pad = noise_of(2 * TOPIC_BYTES_MAX, 5);
    let payload = message.payload.trim_end_matches('}');
    Message {
        payload: format!("{payload},\"pad\":\"{pad}\"}}"),
        ..message
    }
}

/// Exceeds the client's own limit: no broker is asked about it.
fn huge(id: &str, account: i64) -> Message {
    Message {
        payload: "x".repeat(1_100_000),
        ..deposit(id, account, 1)
    }
}

async fn letters(store: &Store) -> Vec<DeadLetterRecord> {
    dead_letters::list(store, None, None, 100).await.unwrap()
}

async fn pending(store: &Store) -> Vec<String> {
    let Store::Postgres(outbox) = store else {
        unreachable!("it was opened so")
    };
    let rows = outbox.pending(100).await.unwrap();
    rows.iter().map(|row| row.message.id.clone()).collect()
}

async fn state(store: &Store, id: DeadLetterId) -> DeadLetterState {
    dead_letters::show(store, id).await.unwrap().state
}

/// Raises the limit of the topic of deposits.
async fn widen(brokers: &Brokers) {
    let name = format!("{}{}", brokers.settings.prefix, Deposit::TOPIC);
    let wide = AlterConfig::new(ResourceSpecifier::Topic(&name)).set("max.message.bytes", "900000");
    let altered = brokers.admin();
    let altered = altered.alter_configs([&wide], &AdminOptions::new()).await;
    assert!(matches!(altered.unwrap()[..], [Ok(_)]));
    eventually("the broker knows the topic's limit", async || {
        let known = brokers
            .configured(Deposit::TOPIC, "max.message.bytes")
            .await;
        known.as_deref() == Some("900000")
    })
    .await;
}

#[tokio::test]
async fn a_message_that_the_brokers_reject_is_parked_with_the_later_ones_of_its_key_and_all_others_are_published()
 {
    let mut given = Fixture::new().await;
    // given a message that is too large, a later one of its key, and others
    let rows = [
        deposit("before", 1, 1),
        large("large", 1),
        deposit("behind", 1, 1),
        deposit("other", 2, 1),
    ];
    publish(&given.store, rows).await;
    publish(
        &given.store,
        [noise(1), deposit("later", 2, 1), deposit("last", 1, 1)],
    )
    .await;
    given
        .relay_until("all else is published", async |store| {
            pending(store).await == ["large", "behind", "last"] && letters(store).await.len() == 1
        })
        .await;
    // then it is reported once, and the process publishes all others
    assert_eq!(given.deposits().await.len(), 3);
    assert_eq!(given.metrics.messages_parked.get(), 1);
    let letter = letters(&given.store).await.remove(0);
    assert_eq!(letter.state, DeadLetterState::Parked);
    assert_eq!(letter.letter.group, dead_letters::OUTBOX);
    assert_eq!(letter.letter.message_id, "large");
    assert!(
        letter.letter.reason.contains("the brokers refuse it"),
        "{letter:?}"
    );
    publish(
        &given.store,
        [deposit("after", 2, 1), deposit("also behind", 1, 1)],
    )
    .await;
    let behind = ["large", "behind", "last", "also behind"];
    given
        .relay_until("what came since is published", async |store| {
            pending(store).await == behind
        })
        .await;

    // when an operator replays it too early, it is parked again
    let now = given.clock.now();
    dead_letters::replay(&given.store, letter.id, now)
        .await
        .unwrap();
    given
        .relay_until("it was refused again", async |store| {
            state(store, letter.id).await == DeadLetterState::Parked
        })
        .await;
    assert_eq!(pending(&given.store).await, behind);
    // and when the brokers accept it, all waiting messages are published in order
    widen(&given.brokers).await;
    let now = given.clock.now();
    dead_letters::replay(&given.store, letter.id, now)
        .await
        .unwrap();
    given
        .relay_until("everything is published", async |store| {
            pending(store).await.is_empty()
        })
        .await;
    assert_eq!(
        state(&given.store, letter.id).await,
        DeadLetterState::Resolved
    );
    let all = given.deposits().await;
    let of_one: Vec<_> = all
        .iter()
        .filter(|id| !["other", "later", "after"].contains(&id.as_str()))
        .collect();
    assert_eq!(of_one, ["before", "large", "behind", "last", "also behind"]);
    within("a bus closes", given.kafka.close()).await;
}

#[tokio::test]
async fn discarding_a_rejected_message_lets_the_later_ones_be_published() {
    let mut given = Fixture::new().await;
    let rows = [
        huge("huge", 1),
        deposit("behind", 1, 1),
        deposit("other", 2, 1),
    ];
    publish(&given.store, rows).await;
    given
        .relay_until("it is parked", async |store| {
            letters(store).await.len() == 1
        })
        .await;
    let id = letters(&given.store).await[0].id;
    // when it is discarded, those behind it are published
    let now = given.clock.now();
    dead_letters::discard(&given.store, id, now).await.unwrap();
    given
        .relay_until("all else is published", async |store| {
            pending(store).await.is_empty()
        })
        .await;
    let mut ids = given.deposits().await;
    ids.sort();
    assert_eq!(ids, ["behind", "other"]);
    within("a bus closes", given.kafka.close()).await;
}

#[tokio::test]
async fn small_messages_that_are_rejected_as_a_batch_are_published_one_by_one() {
    let mut given = Fixture::new().await;
    // given messages of a dead process, of one key, each small and together over the topic's limit
    let pad = |n: usize| {
        let pad = noise_of(6_000, n as u64);
        let message = deposit(&format!("{n:02}"), 1, 1);
        let payload = message.payload.trim_end_matches('}');
        Message {
            payload: format!("{payload},\"pad\":\"{pad}\"}}"),
            ..message
        }
    };
    let dead = given.brokers.open_silent().await;
    publish(&dead, (0..40).map(pad)).await;
    drop(dead);
    given
        .relay_until("all are published", async |store| {
            pending(store).await.is_empty()
        })
        .await;
    let expected: Vec<_> = (0..40).map(|n| format!("{n:02}")).collect();
    assert_eq!(given.deposits().await, expected);
    assert_eq!(letters(&given.store).await, []);
    within("a bus closes", given.kafka.close()).await;
}

#[tokio::test]
async fn messages_before_a_rejected_one_are_deleted_in_the_round_that_sends_them() {
    let mut given = Fixture::new().await;
    // given messages of a dead process
    let dead = given.brokers.open_silent().await;
    publish(&dead, [deposit("before", 2, 1), huge("huge", 1)]).await;
    drop(dead);
    given
        .relay_until("the first message is deleted", async |store| {
            pending(store).await == ["huge"]
        })
        .await;
    // then that is before the round that parks the other
    assert_eq!(letters(&given.store).await, []);
    within("a bus closes", given.kafka.close()).await;
}

#[tokio::test]
async fn the_messages_of_a_topic_that_the_brokers_reject_wait_and_all_others_are_published() {
    let brokers = Brokers::new();
    let store = brokers.open_silent().await;
    let kafka = brokers.connect(&store).await;
    // given a topic that was deleted
    brokers.delete_topic(Deposit::TOPIC).await;
    let mut given = Fixture::with(brokers, store, kafka).await;
    publish(&given.store, (0..5).map(|n| deposit(&n.to_string(), n, 1))).await;
    publish(&given.store, (0..5).map(noise)).await;
    // then the others are published, and its messages stay
    let refused = Arc::clone(&given.metrics);
    given
        .relay_until("all else is published", async |store| {
            pending(store).await.len() == 5 && refused.topics_refused.get() == 1
        })
        .await;
    assert_eq!(letters(&given.store).await, []);
    assert_eq!(given.kept(Noise::TOPIC).await.len(), 5);
    // and they are published when the topic exists again, without an operator
    let name = format!("{}{}", given.brokers.settings.prefix, Deposit::TOPIC);
    let topic = NewTopic::new(&name, 2, TopicReplication::Fixed(1));
    let admin = given.brokers.admin();
    let made = admin.create_topics([&topic], &AdminOptions::new()).await;
    assert!(matches!(made.unwrap()[..], [Ok(_)]));
    given.clock.advance_millis(TOPIC_PAUSE_MILLIS);
    given
        .relay_until("all is published", async |store| {
            pending(store).await.is_empty() && refused.topics_refused.get() == 0
        })
        .await;
    assert_eq!(given.deposits().await.len(), 5);
    within("a bus closes", given.kafka.close()).await;
}

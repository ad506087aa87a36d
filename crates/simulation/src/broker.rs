//! The bus: topics with partitions, and groups whose members share them. At least once, in the order of each key as far as
//! it was published: everything else that Kafka may do, it does.
//!
//! State: every record; of each group its members, who owns which partition, and what is committed.

mod membership;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use messaging::Message;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

pub use membership::BrokerClient;

use crate::{
    database::Database,
    faults::Fault,
    world::{Outage, World, pause},
};

/// As Kafka, unless its operators allow more.
const MESSAGE_BYTES_MAX: usize = 1_048_576;
const PARTITIONS: u64 = 2;
/// A member without a heartbeat for so long has left.
const SESSION_MILLIS: i64 = 6_000;
const HEARTBEAT_MILLIS: u64 = 500;
const POLL_MILLIS: u64 = 200;
const RELAY_MILLIS: u64 = 20;

type Place = (String, u64);

#[derive(Default)]
struct Partition {
    records: Vec<Arc<Message>>,
    slow_until: i64,
}

#[derive(Default)]
struct Group {
    topics: &'static [&'static str],
    /// When each was last heard.
    members: BTreeMap<u64, i64>,
    generation: u64,
    owners: BTreeMap<Place, u64>,
    /// How many records of each partition are handled.
    committed: BTreeMap<Place, usize>,
    /// How many were given to their owner.
    given: BTreeMap<Place, usize>,
}

#[derive(Default)]
struct State {
    partitions: BTreeMap<Place, Partition>,
    groups: BTreeMap<&'static str, Group>,
    members: u64,
}

impl State {
    /// The partitions, and a group.
    fn group(&mut self, name: &str) -> Option<(&BTreeMap<Place, Partition>, &mut Group)> {
        Some((&self.partitions, self.groups.get_mut(name)?))
    }
}

pub struct Broker {
    world: Arc<World>,
    state: Mutex<State>,
    arrived: Arc<Notify>,
    away: Outage,
    databases: Vec<Arc<Database>>,
}

impl Broker {
    pub fn new(world: &Arc<World>, databases: &[Arc<Database>]) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            state: Mutex::default(),
            arrived: Arc::default(),
            away: Outage::default(),
            databases: databases.to_vec(),
        })
    }

    /// Publishes what the databases commit, and watches the groups. For the host of the engines.
    pub fn start(self: &Arc<Self>) {
        for database in &self.databases {
            tokio::spawn(Arc::clone(self).relay(Arc::clone(database)));
        }
        tokio::spawn(Arc::clone(self).watch_groups());
    }

    fn is_away(&self) -> bool {
        self.away.millis_left(&self.world) > 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// Messages that this group has not handled.
    pub fn unhandled(&self, group: &str) -> usize {
        let state = self.lock();
        let Some(group) = state.groups.get(group) else {
            return 0;
        };
        let those = state.partitions.iter();
        let those = those.filter(|((topic, _), _)| group.topics.contains(&topic.as_str()));
        those
            .map(|(place, it)| it.records.len() - group.committed.get(place).copied().unwrap_or(0))
            .sum()
    }

    /// A record of any topic, to be copied.
    pub fn any_record(&self) -> Option<Arc<Message>> {
        let state = self.lock();
        let filled: Vec<_> = state
            .partitions
            .values()
            .filter(|it| !it.records.is_empty())
            .collect();
        (!filled.is_empty()).then(|| Arc::clone(self.world.pick(&self.world.pick(&filled).records)))
    }

    pub fn append(&self, message: Arc<Message>) {
        let hash = message.key.bytes().fold(7_u64, |hash, byte| {
            hash.wrapping_mul(31).wrapping_add(byte.into())
        });
        let place = (message.topic.clone(), hash % PARTITIONS);
        let mut state = self.lock();
        let partition = state.partitions.entry(place).or_default();
        partition.records.push(Arc::clone(&message));
        if self.world.strikes(Fault::PartitionSlow, &message.topic) {
            // Now and then longer than a reservation waits for its payment.
            let millis_max = *self.world.pick(&[3_000, 15_000, 60_000]);
            partition.slow_until = self.world.after(500, millis_max);
        }
        drop(state);
        self.world.step(format_args!(
            "published {} {:.80}",
            message.topic, message.id
        ));
        self.arrived.notify_waiters();
    }

    /// Publishes the messages of one database: those of one key in their order, and some of them twice.
    async fn relay(self: Arc<Self>, database: Arc<Database>) {
        let mut read = 0;
        let mut waiting: VecDeque<(i64, Arc<Message>)> = VecDeque::new();
        loop {
            // Also without a commit: what waits becomes due.
            let _ = tokio::time::timeout(
                Duration::from_millis(RELAY_MILLIS),
                database.committed.notified(),
            )
            .await;
            for stored in database.outbox(read) {
                read = stored.offset;
                let (world, message) = (&self.world, stored.message);
                let due = match world.strikes(Fault::PublishSlow, &message.topic) {
                    // Now and then longer than a reservation waits for its payment.
                    true => world.after(100, *world.pick(&[3_000, 10_000, 60_000])),
                    false => world.elapsed(),
                };
                waiting.push_back((due, message));
            }
            self.away
                .may_begin(&self.world, Fault::BrokerAway, "broker", 20_000);
            if self.is_away() || waiting.is_empty() {
                continue;
            }
            self.publish_due(&mut waiting);
            if waiting.is_empty() {
                database.remove_published(read);
            }
        }
    }

    fn publish_due(self: &Arc<Self>, waiting: &mut VecDeque<(i64, Arc<Message>)>) {
        let now = self.world.elapsed();
        let mut held: Vec<String> = Vec::new();
        let mut later = VecDeque::new();
        for (due, message) in waiting.drain(..) {
            if due > now || held.contains(&message.key) {
                held.push(message.key.clone());
                later.push_back((due, message));
                continue;
            }
            if self.world.strikes(Fault::Duplicate, &message.topic) {
                let (broker, again) = (Arc::clone(self), Arc::clone(&message));
                let millis = self.world.between(0, 20_000);
                tokio::spawn(async move {
                    pause(millis).await;
                    broker.append(again);
                });
            }
            if message.payload.len() > MESSAGE_BYTES_MAX {
                let (topic, size) = (&message.topic, message.payload.len());
                self.world
                    .fail(format_args!("no broker takes {size} bytes on {topic}"));
            }
            self.append(message);
        }
        *waiting = later;
    }

    async fn watch_groups(self: Arc<Self>) {
        loop {
            pause(HEARTBEAT_MILLIS).await;
            let mut state = self.lock();
            let State {
                partitions, groups, ..
            } = &mut *state;
            for (name, group) in groups {
                let before = group.members.len();
                let now = self.world.elapsed();
                group.members.retain(|_, seen| now - *seen < SESSION_MILLIS);
                if group.members.len() != before || self.world.strikes(Fault::Rebalance, name) {
                    self.rebalance(partitions, name, group);
                }
            }
        }
    }

    fn rebalance(&self, partitions: &BTreeMap<Place, Partition>, name: &str, group: &mut Group) {
        group.generation += 1;
        group.given = group.committed.clone();
        group.owners.clear();
        let members: Vec<u64> = group.members.keys().copied().collect();
        self.world
            .step(format_args!("{name} is rebalanced over {members:?}"));
        if members.is_empty() {
            return;
        }
        let those = partitions
            .keys()
            .filter(|(topic, _)| group.topics.contains(&topic.as_str()));
        for place in those {
            group
                .owners
                .insert(place.clone(), *self.world.pick(&members));
        }
    }
}

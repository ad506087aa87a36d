//! The bus as a process sees it: its memberships in groups, and what each has taken.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use messaging::{
    Message, StoreError,
    backend::{Answer, BusEngine, SubscriptionEngine},
};
use parking_lot::Mutex;

use super::{Broker, HEARTBEAT_MILLIS, POLL_MILLIS, Place, State};
use crate::{faults::Fault, world::pause};

/// The bus as a process sees it.
pub struct BrokerClient(pub Arc<Broker>);

impl BusEngine for BrokerClient {
    fn subscribe(
        &self,
        group: &'static str,
        topics: &'static [&'static str],
    ) -> Result<Box<dyn SubscriptionEngine>, StoreError> {
        let broker = Arc::clone(&self.0);
        let mut state = broker.lock();
        state.members += 1;
        let member = state.members;
        let State {
            partitions, groups, ..
        } = &mut *state;
        let joined = groups.entry(group).or_default();
        joined.topics = topics;
        joined.members.insert(member, broker.world.elapsed());
        broker.rebalance(partitions, group, joined);
        drop(state);
        let alive = Arc::new(());
        tokio::spawn(heartbeat(
            Arc::clone(&broker),
            group,
            member,
            Arc::downgrade(&alive),
        ));
        Ok(Box::new(Membership {
            broker,
            group,
            topics,
            member,
            batches: 0,
            taken: Mutex::default(),
            _alive: alive,
        }))
    }

    fn backlog<'a>(&'a self, group: &'a str, _: &'a [&'static str]) -> Answer<'a, i64> {
        let unhandled = self.0.unhandled(group);
        async move { Ok(i64::try_from(unhandled).unwrap_or(i64::MAX)) }.boxed()
    }

    fn unpublished(&self) -> Answer<'_, i64> {
        async { Ok(0) }.boxed()
    }
}

/// Runs on the member's host: a host that stands still sends none.
async fn heartbeat(broker: Arc<Broker>, group: &'static str, member: u64, alive: Weak<()>) {
    while alive.strong_count() > 0 {
        pause(HEARTBEAT_MILLIS).await;
        let now = broker.world.elapsed();
        let mut state = broker.lock();
        if alive.strong_count() > 0
            && let Some((partitions, group_state)) = state.group(group)
            && group_state.members.insert(member, now).is_none()
        {
            broker.rebalance(partitions, group, group_state);
        }
    }
}

struct Membership {
    broker: Arc<Broker>,
    group: &'static str,
    topics: &'static [&'static str],
    member: u64,
    batches: u64,
    taken: Mutex<BTreeMap<u64, Taken>>,
    _alive: Arc<()>,
}

/// What a batch took: up to which record of each partition, and in which generation.
struct Taken {
    generation: u64,
    ends: Vec<(Place, usize)>,
}

impl SubscriptionEngine for Membership {
    fn take(&mut self, max: usize) -> Option<(Vec<Arc<Message>>, u64)> {
        let broker = Arc::clone(&self.broker);
        if broker.is_away() {
            return None;
        }
        let (world, mut state) = (&broker.world, broker.lock());
        let (partitions, group) = state.group(self.group)?;
        // A topic whose first record came after the last rebalance.
        let those = partitions
            .keys()
            .filter(|it| self.topics.contains(&it.0.as_str()));
        if those.clone().any(|it| !group.owners.contains_key(it)) {
            broker.rebalance(partitions, self.group, group);
        }
        let (mut messages, mut ends) = (Vec::new(), Vec::new());
        let mine = group
            .owners
            .iter()
            .filter(|(_, owner)| **owner == self.member);
        for place in mine.map(|(place, _)| place.clone()).collect::<Vec<_>>() {
            let partition = &partitions[&place];
            let given = group.given.entry(place.clone()).or_default();
            let room = max - messages.len();
            if partition.slow_until > world.elapsed()
                || room == 0
                || *given >= partition.records.len()
            {
                continue;
            }
            let end = partition
                .records
                .len()
                .min(*given + world.between(1, room.min(16) as u64) as usize);
            messages.extend_from_slice(&partition.records[*given..end]);
            *given = end;
            ends.push((place, end));
        }
        if ends.is_empty() {
            return None;
        }
        messages.retain(|it| it.is_for(self.group, self.topics));
        self.batches += 1;
        let generation = group.generation;
        self.taken
            .lock()
            .insert(self.batches, Taken { generation, ends });
        if messages.is_empty() {
            drop(state);
            self.acknowledge(self.batches);
            return None;
        }
        Some((messages, self.batches))
    }

    fn acknowledge(&self, batch: u64) {
        let (broker, taken) = (&self.broker, self.taken.lock().remove(&batch));
        let mut state = broker.lock();
        let Some((group, taken)) = state.groups.get_mut(self.group).zip(taken) else {
            return;
        };
        if group.generation != taken.generation {
            broker.world.step(format_args!(
                "{} acknowledges what it no longer owns",
                self.group
            ));
            return;
        }
        if broker.world.strikes(Fault::AckLost, self.group) {
            group.given = group.committed.clone();
            group.generation += 1;
            return;
        }
        for (place, end) in taken.ends {
            let committed = group.committed.entry(place).or_default();
            *committed = end.max(*committed);
        }
    }

    fn changed(&mut self) -> BoxFuture<'_, ()> {
        let arrived = Arc::clone(&self.broker.arrived);
        async move {
            let _ =
                tokio::time::timeout(Duration::from_millis(POLL_MILLIS), arrived.notified()).await;
        }
        .boxed()
    }

    fn lag(&self) -> i64 {
        i64::try_from(self.broker.unhandled(self.group)).unwrap_or(i64::MAX)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        let mut state = self.broker.lock();
        if let Some((partitions, group)) = state.group(self.group) {
            group.members.remove(&self.member);
            self.broker.rebalance(partitions, self.group, group);
        }
        async {}.boxed()
    }
}

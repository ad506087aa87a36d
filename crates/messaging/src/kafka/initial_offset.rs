//! The initial offsets of a group that has committed none. On an empty topic the group starts at the beginning. A topic
//! with records may hold another deployment's: the operator chooses by the setting `initial_offset`, and without it the
//! process does not start.
//!
//! The first process of a deployment commits initial offsets for all groups before it publishes: otherwise a group that
//! starts later would see the messages of the others as existing records. State: the offsets at the brokers.

use std::{collections::HashMap, sync::Arc, time::Duration};

use rdkafka::{
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode},
    topic_partition_list::{Offset, TopicPartitionList},
};

use super::{
    KafkaSettings, OpenError, REQUEST_SECS_MAX, committed, is_transient,
    partition_buffer::TopicPartition, retry,
};
use crate::{Group, kafka_settings::InitialOffset};

/// Commits initial offsets for each of these groups that has none.
pub(super) async fn ensure(settings: &KafkaSettings, groups: &[Group]) -> Result<(), OpenError> {
    let spawn = |group: &Group| {
        let (settings, group) = (settings.clone(), *group);
        // A client has one group id, so each group needs its own client.
        tokio::task::spawn_blocking(move || ensure_group(&settings, group))
    };
    let tasks: Vec<_> = groups.iter().map(spawn).collect();
    for task in tasks {
        task.await.map_err(OpenError::kafka)??;
    }
    Ok(())
}

fn ensure_group(settings: &KafkaSettings, group: Group) -> Result<(), OpenError> {
    for (brokers, names) in settings.by_brokers(group.topics) {
        let consumer: BaseConsumer = settings
            .client(brokers)
            .set("group.id", format!("{}{}", settings.prefix, group.name))
            .set("enable.auto.commit", "false")
            .create()
            .map_err(OpenError::kafka)?;
        ensure_at(settings, &consumer, group.name, &names)?;
    }
    Ok(())
}

fn ensure_at(
    settings: &KafkaSettings,
    consumer: &BaseConsumer,
    group: &str,
    names: &[String],
) -> Result<(), OpenError> {
    // The ends are read before the committed offsets. A process of this deployment publishes only after it has committed
    // offsets for all groups, so records of its own never count as existing ones here.
    let partitions = partitions_of(consumer, names)?;
    let begins = offsets(consumer, &partitions, Offset::Beginning)?;
    let ends = offsets(consumer, &partitions, Offset::End)?;
    let committed = committed(consumer, &partition_list(&partitions, Offset::Invalid)?)?;
    let committed = committed.elements();
    let mut first = TopicPartitionList::new();
    for name in names {
        let is_committed = |it: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            it.topic() == name && matches!(it.offset(), Offset::Offset(_))
        };
        if committed.iter().any(is_committed) {
            continue;
        }
        let own: Vec<TopicPartition> = partitions
            .iter()
            .filter(|it| *it.0 == **name)
            .cloned()
            .collect();
        let count = |partition: &TopicPartition| {
            ends.get(partition).unwrap_or(&0) - begins.get(partition).unwrap_or(&0)
        };
        let records: i64 = own.iter().map(count).sum();
        let at = match (records, settings.initial_offset) {
            (0, _) | (_, Some(InitialOffset::Earliest)) => begins.clone(),
            (_, Some(InitialOffset::Latest)) => ends.clone(),
            (_, Some(InitialOffset::At(time))) => {
                let mut at = offsets(consumer, &own, Offset::Offset(time.as_millis()))?;
                // A partition whose records are all older.
                for partition in &own {
                    at.entry(partition.clone())
                        .or_insert(ends.get(partition).copied().unwrap_or(0));
                }
                at
            }
            (records, None) => return Err(setting_missing(group, name, records)),
        };
        for partition in own {
            let offset = Offset::Offset(at.get(&partition).copied().unwrap_or(0));
            first
                .add_partition_offset(&partition.0, partition.1, offset)
                .map_err(OpenError::kafka)?;
        }
        if records > 0 {
            tracing::info!(group, topic = name, records, initial_offset = ?settings.initial_offset, "a new group starts on a topic that has records");
        }
    }
    commit(consumer, &first)
}

fn setting_missing(group: &str, topic: &str, records: i64) -> OpenError {
    OpenError::kafka(format_args!(
        "the setting initial_offset is missing: group {group} is new at the brokers, and topic {topic} has {records} \
         records already. Set it to \"latest\" to skip them, to \"earliest\" to handle them, or to the time to start at"
    ))
}

/// All partitions of these topics. It waits for a topic that was just created until the brokers know it.
fn partitions_of(
    consumer: &BaseConsumer,
    names: &[String],
) -> Result<Vec<TopicPartition>, OpenError> {
    let mut all = Vec::new();
    for name in names {
        let fetch = || match known_partitions(consumer, name) {
            Ok(partitions) if partitions.is_empty() => Err(None),
            known => known.map_err(Some),
        };
        let unknown = || {
            OpenError::kafka(format_args!(
                "the brokers do not know topic {name} after {REQUEST_SECS_MAX} s; it may have been deleted"
            ))
        };
        let partitions = retry(fetch, Option::is_none);
        all.extend(partitions.map_err(|error| error.unwrap_or_else(unknown))?);
    }
    Ok(all)
}

/// The partitions that the brokers know of a topic. By name: the brokers may have thousands of other topics.
fn known_partitions(consumer: &BaseConsumer, name: &str) -> Result<Vec<TopicPartition>, OpenError> {
    let timeout = Duration::from_secs(REQUEST_SECS_MAX);
    let metadata = consumer
        .fetch_metadata(Some(name), timeout)
        .map_err(OpenError::kafka)?;
    let topic: Arc<str> = Arc::from(name);
    let known = metadata.topics().iter().flat_map(|it| it.partitions());
    let partitions = known.map(|partition| (Arc::clone(&topic), partition.id()));
    Ok(partitions.collect())
}

fn partition_list(
    partitions: &[TopicPartition],
    offset: Offset,
) -> Result<TopicPartitionList, OpenError> {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in partitions {
        list.add_partition_offset(topic, *partition, offset)
            .map_err(OpenError::kafka)?;
    }
    Ok(list)
}

/// The beginning or end of each partition, or its first offset at or after a time in milliseconds. Partitions without such
/// an offset are left out.
fn offsets(
    consumer: &BaseConsumer,
    partitions: &[TopicPartition],
    at: Offset,
) -> Result<HashMap<TopicPartition, i64>, OpenError> {
    let timeout = Duration::from_secs(REQUEST_SECS_MAX);
    let wanted = partition_list(partitions, at)?;
    let found = retry(
        || {
            let found = consumer.offsets_for_times(wanted.clone(), timeout)?;
            // Each partition may fail by itself.
            for partition in found.elements() {
                partition.error()?;
            }
            Ok(found)
        },
        is_transient,
    )
    .map_err(OpenError::kafka)?;
    let found = found.elements();
    let offsets = found.iter().filter_map(|it| match it.offset() {
        Offset::Offset(offset) => Some(((Arc::from(it.topic()), it.partition()), offset)),
        _ => None,
    });
    Ok(offsets.collect())
}

/// Commits initial offsets. It succeeds without if the group has members, which have committed before they read.
fn commit(consumer: &BaseConsumer, first: &TopicPartitionList) -> Result<(), OpenError> {
    if first.count() == 0 {
        return Ok(());
    }
    // The topic was just created, or the group has no coordinator yet.
    let passes = |error: &KafkaError| !has_members(error);
    match retry(|| consumer.commit(first, CommitMode::Sync), passes) {
        Err(error) if !has_members(&error) => Err(OpenError::kafka(error)),
        _ => Ok(()),
    }
}

/// Members of the group have rejected a commit from outside.
fn has_members(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::RebalanceInProgress
        )
    )
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;

    use super::*;

    #[tokio::test]
    async fn a_new_group_starts_at_the_beginning_of_empty_topics() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("p.one", 2, 1).unwrap();
        cluster.create_topic("p.two", 1, 1).unwrap();
        let settings = KafkaSettings {
            brokers: cluster.bootstrap_servers(),
            prefix: "p.".to_owned(),
            ..KafkaSettings::default()
        };
        ensure(&settings, &[Group::new("group", &["one", "two"])])
            .await
            .unwrap();
        let client = settings
            .client(&settings.brokers)
            .set("group.id", "p.group")
            .create();
        let consumer: BaseConsumer = client.unwrap();
        let names = ["p.one".to_owned(), "p.two".to_owned()];
        let partitions = partitions_of(&consumer, &names).unwrap();
        assert_eq!(partitions.len(), 3);
        let list = partition_list(&partitions, Offset::Invalid).unwrap();
        let committed = committed(&consumer, &list).unwrap();
        for partition in committed.elements() {
            assert_eq!(partition.offset(), Offset::Offset(0));
        }
    }
}

//! Reads all records that the brokers retain of some topics, up to the end offsets at the time of the call. For audits:
//! has each record been handled? State: none.

use std::{collections::HashMap, time::Duration};

use rdkafka::{
    consumer::{BaseConsumer, Consumer as _},
    message::Message as _,
    topic_partition_list::{Offset, TopicPartitionList},
};

use super::{KafkaSettings, REQUEST_SECS_MAX, codec, unavailable};
use crate::{Message, StoreError};

/// Reads all records of these topics without a committed offset: no group is affected.
///
/// # Errors
/// [`StoreError::Unavailable`] if the brokers do not answer, or do not deliver a record within 20 s.
pub async fn scan(
    settings: &KafkaSettings,
    topics: &[&'static str],
) -> Result<Vec<Message>, StoreError> {
    let (settings, topics) = (settings.clone(), topics.to_vec());
    let scan_all = move || {
        let mut all = Vec::new();
        for topic in topics {
            all.append(&mut scan_topic(&settings, topic)?);
        }
        Ok(all)
    };
    let scanning = tokio::task::spawn_blocking(scan_all).await;
    scanning.map_err(unavailable)?
}

fn scan_topic(settings: &KafkaSettings, topic: &str) -> Result<Vec<Message>, StoreError> {
    let timeout = Duration::from_secs(REQUEST_SECS_MAX);
    let name = settings.broker_topic(topic);
    // A consumer needs a group id to read; nothing is committed under it.
    let consumer: BaseConsumer = settings
        .client(settings.brokers_of(topic))
        .set("group.id", format!("{}kept", settings.prefix))
        .set("enable.auto.commit", "false")
        .create()
        .map_err(unavailable)?;
    let mut ends = end_offsets(&consumer, &name, timeout)?;
    let mut partitions = TopicPartitionList::new();
    for partition in ends.keys() {
        partitions
            .add_partition_offset(&name, *partition, Offset::Beginning)
            .map_err(unavailable)?;
    }
    consumer.assign(&partitions).map_err(unavailable)?;
    let mut messages = Vec::new();
    while !ends.is_empty() {
        let record = consumer.poll(timeout);
        let record = record.ok_or_else(|| {
            unavailable(format_args!(
                "no record of {name} arrived within {REQUEST_SECS_MAX} s"
            ))
        })?;
        let record = record.map_err(unavailable)?;
        let partition = record.partition();
        match ends.get(&partition) {
            Some(end) if record.offset() < *end => {
                messages.push(codec::decode(&record, topic));
                if record.offset() + 1 == *end {
                    ends.remove(&partition);
                }
            }
            // It was appended after the end offsets were read.
            _ => {}
        }
    }
    Ok(messages)
}

/// The end offset of each partition that has records.
fn end_offsets(
    consumer: &BaseConsumer,
    name: &str,
    timeout: Duration,
) -> Result<HashMap<i32, i64>, StoreError> {
    let metadata = consumer
        .fetch_metadata(Some(name), timeout)
        .map_err(unavailable)?;
    let topics = metadata.topics().iter();
    let mut ends = HashMap::new();
    for partition in topics.flat_map(|topic| topic.partitions()) {
        let watermarks = consumer.fetch_watermarks(name, partition.id(), timeout);
        let (low, high) = watermarks.map_err(unavailable)?;
        if low < high {
            ends.insert(partition.id(), high);
        }
    }
    Ok(ends)
}

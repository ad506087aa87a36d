//! Every record that the brokers keep of some topics, from their beginning to what was their end when it was asked for.
//! For whoever wants to know whether each of them was handled. State: none.

use std::{collections::HashMap, time::Duration};

use rdkafka::{
    consumer::{BaseConsumer, Consumer as _},
    message::Message as _,
    topic_partition_list::{Offset, TopicPartitionList},
};

use super::{ANSWER_SECS_MAX, KafkaSettings, unavailable, wire};
use crate::{Message, StoreError};

/// Reads all records of these topics; nobody's offsets change.
///
/// # Errors
/// [`StoreError::Unavailable`] where the brokers do not answer, or a record does not come.
pub async fn kept(
    settings: &KafkaSettings,
    topics: &[&'static str],
) -> Result<Vec<Message>, StoreError> {
    let (settings, topics) = (settings.clone(), topics.to_vec());
    let read = move || {
        let mut all = Vec::new();
        for topic in topics {
            all.append(&mut read(&settings, topic)?);
        }
        Ok(all)
    };
    let reading = tokio::task::spawn_blocking(read).await;
    reading.map_err(unavailable)?
}

fn read(settings: &KafkaSettings, topic: &str) -> Result<Vec<Message>, StoreError> {
    let timeout = Duration::from_secs(ANSWER_SECS_MAX);
    let name = settings.wire_topic(topic);
    // A name is needed to read, but nothing is told under it.
    let consumer: BaseConsumer = settings
        .client(settings.brokers_of(topic))
        .set("group.id", format!("{}kept", settings.prefix))
        .set("enable.auto.commit", "false")
        .create()
        .map_err(unavailable)?;
    let mut ends = ends(&consumer, &name, timeout)?;
    let mut places = TopicPartitionList::new();
    for partition in ends.keys() {
        places
            .add_partition_offset(&name, *partition, Offset::Beginning)
            .map_err(unavailable)?;
    }
    consumer.assign(&places).map_err(unavailable)?;
    let mut messages = Vec::new();
    while !ends.is_empty() {
        let record = consumer.poll(timeout);
        let record = record.ok_or_else(|| unavailable(format_args!("{name} does not come")))?;
        let record = record.map_err(unavailable)?;
        let partition = record.partition();
        match ends.get(&partition) {
            Some(end) if record.offset() < *end => {
                messages.push(wire::message(&record, topic));
                if record.offset() + 1 == *end {
                    ends.remove(&partition);
                }
            }
            // It came after the question.
            _ => {}
        }
    }
    Ok(messages)
}

/// The partitions that have records, and where each ends.
fn ends(
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
        let marks = consumer.fetch_watermarks(name, partition.id(), timeout);
        let (low, high) = marks.map_err(unavailable)?;
        if low < high {
            ends.insert(partition.id(), high);
        }
    }
    Ok(ends)
}

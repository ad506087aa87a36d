//! Where a group begins of which the brokers know nothing yet. On topics without a record it begins where they begin.
//! On topics with a history, of which nobody can tell whether it is this deployment's, a person says it by the setting
//! `initial_offset`; unsaid, the process does not start.
//!
//! Whoever starts first says it for every group of the deployment, before it publishes anything: a group that is started
//! later must not take what the others published meanwhile for a history. State: the offsets at the brokers.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::Timestamp;
use rdkafka::{
    consumer::{BaseConsumer, CommitMode, Consumer as _},
    error::RDKafkaErrorCode,
    topic_partition_list::{Offset, TopicPartitionList},
};
use serde::Deserialize;

use super::{
    ANSWER_SECS_MAX, COORDINATOR_PAUSE_MILLIS, KafkaSettings, OpenError, committed, patiently,
};

/// Where a new group begins on topics with a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum InitialOffset {
    /// With the oldest record that is kept.
    Earliest,
    /// Behind the newest record.
    Latest,
    /// With the first record of this time or later.
    At(Timestamp),
}

impl TryFrom<String> for InitialOffset {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "earliest" => Ok(Self::Earliest),
            "latest" => Ok(Self::Latest),
            time => time.parse().map(Self::At).map_err(|_| {
                format!(
                    "initial_offset is \"earliest\", \"latest\" or a time (RFC 3339), not {text:?}"
                )
            }),
        }
    }
}

/// A consumer group and what it reads.
pub type Group = (&'static str, &'static [&'static str]);

/// Sees to it that each of these groups has its place on each of its topics.
pub(super) async fn ensure(settings: &KafkaSettings, groups: &[Group]) -> Result<(), OpenError> {
    let begin = |(group, topics): &Group| {
        let (settings, group, topics) = (settings.clone(), *group, *topics);
        // Each group is asked for by a client of its own.
        tokio::task::spawn_blocking(move || begin(&settings, group, topics))
    };
    let begun: Vec<_> = groups.iter().map(begin).collect();
    for begun in begun {
        begun.await.map_err(OpenError::of)??;
    }
    Ok(())
}

fn begin(settings: &KafkaSettings, group: &str, topics: &[&str]) -> Result<(), OpenError> {
    for (brokers, names) in settings.by_brokers(topics) {
        let consumer: BaseConsumer = settings
            .client(brokers)
            .set("group.id", format!("{}{group}", settings.prefix))
            .set("enable.auto.commit", "false")
            .create()
            .map_err(OpenError::of)?;
        begin_at(settings, &consumer, group, &names)?;
    }
    Ok(())
}

fn begin_at(
    settings: &KafkaSettings,
    consumer: &BaseConsumer,
    group: &str,
    names: &[String],
) -> Result<(), OpenError> {
    // Before the group's own offsets: who publishes has told the brokers where every group begins, so what is a history
    // now is either known to them by then, or somebody else's.
    let partitions = partitions(consumer, names)?;
    let begins = offsets(consumer, &partitions, Offset::Beginning)?;
    let ends = offsets(consumer, &partitions, Offset::End)?;
    let known = committed(consumer, &listed(&partitions, |_| Offset::Invalid)?)?;
    let known = known.elements();
    let mut first = TopicPartitionList::new();
    for name in names {
        let is_known = |it: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            it.topic() == name && matches!(it.offset(), Offset::Offset(_))
        };
        if known.iter().any(is_known) {
            continue;
        }
        let own: Vec<Place> = partitions
            .iter()
            .filter(|it| it.0 == *name)
            .cloned()
            .collect();
        let records =
            |place: &Place| ends.get(place).unwrap_or(&0) - begins.get(place).unwrap_or(&0);
        let history: i64 = own.iter().map(records).sum();
        let at = match (history, settings.initial_offset) {
            (0, _) | (_, Some(InitialOffset::Earliest)) => begins.clone(),
            (_, Some(InitialOffset::Latest)) => ends.clone(),
            (_, Some(InitialOffset::At(time))) => {
                let mut at = offsets(consumer, &own, Offset::Offset(time.as_millis()))?;
                // Nothing is as new as that.
                for place in &own {
                    at.entry(place.clone())
                        .or_insert(ends.get(place).copied().unwrap_or(0));
                }
                at
            }
            (records, None) => return Err(unsaid(group, name, records)),
        };
        for place in own {
            let offset = Offset::Offset(at.get(&place).copied().unwrap_or(0));
            first
                .add_partition_offset(&place.0, place.1, offset)
                .map_err(OpenError::of)?;
        }
        if history > 0 {
            tracing::info!(group, topic = name, records = history, initial_offset = ?settings.initial_offset, "a new group begins on a topic with a history");
        }
    }
    tell(consumer, &first)
}

fn unsaid(group: &str, topic: &str, records: i64) -> OpenError {
    OpenError::of(format_args!(
        "the setting initial_offset is missing: group {group} is new at the brokers, and topic {topic} has {records} \
         records already. Say \"latest\" to leave them out, \"earliest\" to handle them, or the time to begin at"
    ))
}

type Place = (String, i32);

/// A topic that was made a moment ago is not known to every broker yet; it is waited for.
fn partitions(consumer: &BaseConsumer, names: &[String]) -> Result<Vec<Place>, OpenError> {
    let until = Instant::now() + Duration::from_secs(ANSWER_SECS_MAX);
    loop {
        let places = known_partitions(consumer, names)?;
        let missing = names
            .iter()
            .find(|name| !places.iter().any(|place| place.0 == **name));
        let Some(missing) = missing else {
            return Ok(places);
        };
        if Instant::now() >= until {
            return Err(OpenError::of(format_args!(
                "the brokers do not know topic {missing} after {ANSWER_SECS_MAX} s; it may have been deleted"
            )));
        }
        std::thread::sleep(Duration::from_millis(COORDINATOR_PAUSE_MILLIS));
    }
}

fn known_partitions(consumer: &BaseConsumer, names: &[String]) -> Result<Vec<Place>, OpenError> {
    let timeout = Duration::from_secs(ANSWER_SECS_MAX);
    let metadata = consumer
        .fetch_metadata(None, timeout)
        .map_err(OpenError::of)?;
    let topics = metadata.topics().iter();
    let own = topics.filter(|topic| names.iter().any(|name| name == topic.name()));
    let places = own.flat_map(|topic| {
        let partitions = topic.partitions().iter();
        partitions.map(|partition| (topic.name().to_owned(), partition.id()))
    });
    Ok(places.collect())
}

fn listed(
    places: &[Place],
    offset: impl Fn(&Place) -> Offset,
) -> Result<TopicPartitionList, OpenError> {
    let mut list = TopicPartitionList::new();
    for place in places {
        list.add_partition_offset(&place.0, place.1, offset(place))
            .map_err(OpenError::of)?;
    }
    Ok(list)
}

/// The first offset of each partition at or behind a time in milliseconds, or its beginning or end. Left out is a partition
/// that has none, or of a topic that was made a moment ago and has nothing.
fn offsets(
    consumer: &BaseConsumer,
    places: &[Place],
    at: Offset,
) -> Result<HashMap<Place, i64>, OpenError> {
    let timeout = Duration::from_secs(ANSWER_SECS_MAX);
    let asked = listed(places, |_| at)?;
    let found = patiently(|| {
        let found = consumer.offsets_for_times(asked.clone(), timeout)?;
        // Each partition has an answer of its own.
        for partition in found.elements() {
            partition.error()?;
        }
        Ok(found)
    })
    .map_err(OpenError::of)?;
    let found = found.elements();
    let offsets = found.iter().filter_map(|it| match it.offset() {
        Offset::Offset(offset) => Some(((it.topic().to_owned(), it.partition()), offset)),
        _ => None,
    });
    Ok(offsets.collect())
}

/// Tells the brokers where a group begins, until they know it, or know it from one of its members.
fn tell(consumer: &BaseConsumer, first: &TopicPartitionList) -> Result<(), OpenError> {
    if first.count() == 0 {
        return Ok(());
    }
    let until = Instant::now() + Duration::from_secs(ANSWER_SECS_MAX);
    loop {
        let Err(error) = consumer.commit(first, CommitMode::Sync) else {
            return Ok(());
        };
        match error.rdkafka_error_code() {
            // Its members have said it before they read.
            Some(
                RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::RebalanceInProgress,
            ) => return Ok(()),
            // A topic was made, or a coordinator is chosen, at this moment.
            _ if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(COORDINATOR_PAUSE_MILLIS));
            }
            _ => return Err(OpenError::of(error)),
        }
    }
}

//! Topics: those of the contract are made where they are missing, and checked where they are there.

use std::{collections::HashMap, time::Duration};

use rdkafka::{
    admin::{
        AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
        TopicReplication,
    },
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{KafkaSettings, settings::inbox_secs_min, unavailable};
use crate::StoreError;

const ANSWER_SECS_MAX: u64 = 20;

type Admin = AdminClient<DefaultClientContext>;

/// Every topic as it has to be, at the brokers that hold it.
pub(super) async fn ensure(
    settings: &KafkaSettings,
    topics: &[&'static str],
    inbox_retention_secs: i64,
) -> Result<(), StoreError> {
    let mut by_brokers: HashMap<&str, Vec<String>> = HashMap::new();
    for topic in topics {
        let names = by_brokers.entry(settings.brokers_of(topic)).or_default();
        names.push(settings.wire_topic(topic));
    }
    if inbox_retention_secs < settings.inbox_secs_min() {
        return Err(too_forgetful(
            "new topics",
            inbox_retention_secs,
            settings.inbox_secs_min(),
        ));
    }
    for (brokers, names) in by_brokers {
        let admin: Admin = settings.client(brokers).create().map_err(unavailable)?;
        create(&admin, settings, &names).await?;
        let counted = partitions(&admin, &names)?;
        check_partitions(settings, &names, &counted)?;
        check_retention(&admin, &names, inbox_retention_secs).await?;
    }
    Ok(())
}

/// How many partitions each of these topics has.
fn partitions(admin: &Admin, names: &[String]) -> Result<HashMap<String, usize>, StoreError> {
    let timeout = Duration::from_secs(ANSWER_SECS_MAX);
    let metadata = admin
        .inner()
        .fetch_metadata(None, timeout)
        .map_err(unavailable)?;
    let topics = metadata.topics().iter();
    let counted = topics.map(|topic| (topic.name().to_owned(), topic.partitions().len()));
    Ok(counted.filter(|(name, _)| names.contains(name)).collect())
}

async fn create(
    admin: &Admin,
    settings: &KafkaSettings,
    names: &[String],
) -> Result<(), StoreError> {
    let known = partitions(admin, names)?;
    let (retention, segment) = (
        (settings.retention_secs * 1000).to_string(),
        (settings.segment_secs() * 1000).to_string(),
    );
    let missing: Vec<NewTopic<'_>> = names
        .iter()
        .filter(|name| !known.contains_key(*name))
        .map(|name| {
            NewTopic::new(
                name,
                settings.partitions,
                TopicReplication::Fixed(settings.replication),
            )
            .set("retention.ms", &retention)
            .set("segment.ms", &segment)
            .set("cleanup.policy", "delete")
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let answers = admin
        .create_topics(&missing, &options())
        .await
        .map_err(unavailable)?;
    for answer in answers {
        match answer {
            // Another process that starts at the same time made it.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                return Err(unavailable(format_args!(
                    "topic {name} cannot be made: {code}"
                )));
            }
        }
    }
    Ok(())
}

fn check_partitions(
    settings: &KafkaSettings,
    names: &[String],
    counted: &HashMap<String, usize>,
) -> Result<(), StoreError> {
    let wanted = usize::try_from(settings.partitions).unwrap_or(usize::MAX);
    for name in names {
        // One that was made a moment ago may not be told of yet.
        let there = counted.get(name).copied().unwrap_or(wanted);
        if there < wanted {
            return Err(unavailable(format_args!(
                "topic {name} has {there} partitions, and the setting partitions says {wanted}: adding some would \
                 give keys to other partitions, so it must be done by a person, with nothing in flight"
            )));
        }
    }
    Ok(())
}

async fn check_retention(
    admin: &Admin,
    names: &[String],
    inbox_retention_secs: i64,
) -> Result<(), StoreError> {
    let topics: Vec<_> = names
        .iter()
        .map(|name| ResourceSpecifier::Topic(name))
        .collect();
    let described = admin
        .describe_configs(&topics, &options())
        .await
        .map_err(unavailable)?;
    for described in described {
        let config = match described {
            Ok(config) => config,
            // Made a moment ago, and with the settings that were checked.
            Err(RDKafkaErrorCode::UnknownTopicOrPartition) => continue,
            Err(code) => return Err(unavailable(KafkaError::AdminOp(code))),
        };
        let secs = |key: &str| {
            let millis: i64 = config.get(key)?.value.as_deref()?.parse().ok()?;
            // -1: for ever.
            Some(if millis < 0 { i64::MAX } else { millis / 1000 })
        };
        // Of one that was made a moment ago a broker may not know anything yet.
        let (Some(retention), Some(segment)) = (secs("retention.ms"), secs("segment.ms")) else {
            continue;
        };
        let needed = inbox_secs_min(retention, segment);
        if inbox_retention_secs < needed {
            let name = match &config.specifier {
                OwnedResourceSpecifier::Topic(name) => name.as_str(),
                OwnedResourceSpecifier::Group(_) | OwnedResourceSpecifier::Broker(_) => "a topic",
            };
            return Err(too_forgetful(name, inbox_retention_secs, needed));
        }
    }
    Ok(())
}

fn too_forgetful(topic: &str, secs: i64, needed: i64) -> StoreError {
    unavailable(format_args!(
        "the setting inbox_retention_secs is {secs}, and {topic} may deliver a message again for {needed} seconds"
    ))
}

fn options() -> AdminOptions {
    let timeout = Some(Duration::from_secs(ANSWER_SECS_MAX));
    AdminOptions::new()
        .operation_timeout(timeout)
        .request_timeout(timeout)
}

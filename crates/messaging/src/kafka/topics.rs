//! Creates the topics that are missing at the brokers, and checks those that exist. State: none.

use std::{collections::HashMap, time::Duration};

use rdkafka::{
    admin::{
        AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier,
        ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{KafkaSettings, OpenError, REQUEST_SECS_MAX, connectivity};
use crate::kafka_settings::inbox_secs_min;

type Admin = AdminClient<DefaultClientContext>;

#[derive(Clone, Copy)]
struct Shape {
    partitions: usize,
    /// Of the partition that has the fewest.
    replicas: usize,
}

/// Creates or checks each topic at the brokers that hold it.
pub(super) async fn ensure(
    settings: &KafkaSettings,
    topics: &[&'static str],
    inbox_retention_secs: i64,
) -> Result<(), OpenError> {
    if inbox_retention_secs < settings.inbox_secs_min() {
        return Err(inbox_retention_too_short(
            "new topics",
            inbox_retention_secs,
            settings.inbox_secs_min(),
        ));
    }
    for (brokers, names) in settings.by_brokers(topics) {
        let known = shapes(settings, brokers, &names).await?;
        let admin: Admin = settings
            .client(brokers)
            .create()
            .map_err(OpenError::kafka)?;
        let known = match create(&admin, settings, &names, &known).await? {
            true => shapes(settings, brokers, &names).await?,
            false => known,
        };
        check_shapes(settings, &names, &known)?;
        check_configs(&admin, settings, &names, inbox_retention_secs).await?;
    }
    Ok(())
}

/// The shapes of those topics that exist.
async fn shapes(
    settings: &KafkaSettings,
    brokers: &str,
    names: &[String],
) -> Result<HashMap<String, Shape>, OpenError> {
    let (settings, brokers, names) = (settings.clone(), brokers.to_owned(), names.to_vec());
    let fetch = move || connectivity::metadata(&settings, &brokers, &names);
    let fetched = tokio::task::spawn_blocking(fetch).await;
    let metadata = fetched.map_err(OpenError::kafka)??;
    let topics = metadata.iter().flat_map(|it| it.topics());
    // A topic that does not exist, or is not visible to this client, has none.
    let visible = topics.filter(|topic| !topic.partitions().is_empty());
    let shapes = visible.map(|topic| {
        let replicas = topic.partitions().iter().map(|it| it.replicas().len());
        let shape = Shape {
            partitions: topic.partitions().len(),
            replicas: replicas.min().unwrap_or(0),
        };
        (topic.name().to_owned(), shape)
    });
    Ok(shapes.collect())
}

/// Creates the topics that are not known; returns whether there were any.
async fn create(
    admin: &Admin,
    settings: &KafkaSettings,
    names: &[String],
    known: &HashMap<String, Shape>,
) -> Result<bool, OpenError> {
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
            // Retention counts from a record's arrival, not from its sender's clock.
            .set("message.timestamp.type", "LogAppendTime")
        })
        .collect();
    if missing.is_empty() {
        return Ok(false);
    }
    let answers = admin
        .create_topics(&missing, &options())
        .await
        .map_err(OpenError::kafka)?;
    for answer in answers {
        match answer {
            // Another process that starts at the same time has created it.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                return Err(OpenError::kafka(format_args!(
                    "topic {name} cannot be created with the settings partitions, replication and retention_secs: {code}"
                )));
            }
        }
    }
    Ok(true)
}

/// A topic may have more partitions and replicas than the settings say, never fewer.
fn check_shapes(
    settings: &KafkaSettings,
    names: &[String],
    known: &HashMap<String, Shape>,
) -> Result<(), OpenError> {
    let partitions = usize::try_from(settings.partitions).unwrap_or(usize::MAX);
    let replicas = usize::try_from(settings.replication).unwrap_or(usize::MAX);
    for name in names {
        // The metadata may not show a topic yet that was just created.
        let Some(shape) = known.get(name) else {
            continue;
        };
        if shape.partitions < partitions {
            return Err(OpenError::kafka(format_args!(
                "topic {name} has {} partitions, and the setting partitions says {partitions}: added partitions \
                 take over keys of others, so an operator must add them, with no messages in flight",
                shape.partitions
            )));
        }
        if shape.replicas < replicas {
            return Err(OpenError::kafka(format_args!(
                "topic {name} has {} replicas of a partition, and the setting replication says {replicas}",
                shape.replicas
            )));
        }
    }
    Ok(())
}

async fn check_configs(
    admin: &Admin,
    settings: &KafkaSettings,
    names: &[String],
    inbox_retention_secs: i64,
) -> Result<(), OpenError> {
    let topics: Vec<_> = names
        .iter()
        .map(|name| ResourceSpecifier::Topic(name))
        .collect();
    let described = admin
        .describe_configs(&topics, &options())
        .await
        .map_err(OpenError::kafka)?;
    for described in described {
        match described {
            Ok(config) => check_config(&config, settings, inbox_retention_secs)?,
            // The broker does not know a topic yet that was just created, with settings that are checked above.
            Err(RDKafkaErrorCode::UnknownTopicOrPartition) => {}
            Err(code) => return Err(OpenError::kafka(KafkaError::AdminOp(code))),
        }
    }
    Ok(())
}

/// Checks that a topic retains its records as long as configured, and no longer than the inbox retains their ids.
fn check_config(
    config: &ConfigResource,
    settings: &KafkaSettings,
    inbox_retention_secs: i64,
) -> Result<(), OpenError> {
    let name = match &config.specifier {
        OwnedResourceSpecifier::Topic(name) => name.as_str(),
        OwnedResourceSpecifier::Group(_) | OwnedResourceSpecifier::Broker(_) => "a topic",
    };
    let value = |key: &str| config.get(key)?.value.as_deref();
    let secs = |key: &str| {
        let millis: i64 = value(key)?.parse().ok()?;
        // -1: unlimited.
        Some(if millis < 0 { i64::MAX } else { millis / 1000 })
    };
    // A broker may not know the configuration yet of a topic that was just created.
    let (Some(retention), Some(segment)) = (secs("retention.ms"), secs("segment.ms")) else {
        return Ok(());
    };
    if let Some(policy) = value("cleanup.policy").filter(|policy| *policy != "delete") {
        return Err(OpenError::kafka(format_args!(
            "topic {name} has the cleanup.policy {policy}, which loses messages of a key: set it to delete"
        )));
    }
    if retention < settings.retention_secs {
        return Err(OpenError::kafka(format_args!(
            "topic {name} retains its messages for {retention} seconds, and the setting retention_secs says {}",
            settings.retention_secs
        )));
    }
    let needed = inbox_secs_min(retention, segment);
    if inbox_retention_secs < needed {
        return Err(inbox_retention_too_short(
            name,
            inbox_retention_secs,
            needed,
        ));
    }
    Ok(())
}

fn inbox_retention_too_short(topic: &str, secs: i64, needed: i64) -> OpenError {
    OpenError::kafka(format_args!(
        "the setting inbox_retention_secs is {secs}, and {topic} may redeliver a message for {needed} seconds: raise it to \
         at least that"
    ))
}

fn options() -> AdminOptions {
    let timeout = Some(Duration::from_secs(REQUEST_SECS_MAX));
    AdminOptions::new()
        .operation_timeout(timeout)
        .request_timeout(timeout)
}

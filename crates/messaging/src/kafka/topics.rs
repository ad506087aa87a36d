//! Topics: creates those that are missing, and checks those that exist.

use std::{collections::HashMap, time::Duration};

use rdkafka::{
    admin::{
        AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier,
        ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{ANSWER_SECS_MAX, KafkaSettings, OpenError, reach, settings::inbox_secs_min};

type Admin = AdminClient<DefaultClientContext>;

/// How a topic lies at the brokers.
#[derive(Clone, Copy)]
struct Shape {
    partitions: usize,
    /// Copies of the partition that has the fewest.
    replicas: usize,
}

/// Every topic as it has to be, at the brokers that hold it.
pub(super) async fn ensure(
    settings: &KafkaSettings,
    topics: &[&'static str],
    inbox_retention_secs: i64,
) -> Result<(), OpenError> {
    if inbox_retention_secs < settings.inbox_secs_min() {
        return Err(too_forgetful(
            "new topics",
            inbox_retention_secs,
            settings.inbox_secs_min(),
        ));
    }
    for (brokers, names) in settings.by_brokers(topics) {
        let known = shapes(settings, brokers, &names).await?;
        let admin: Admin = settings.client(brokers).create().map_err(OpenError::of)?;
        if create(&admin, settings, &names, &known).await? {
            let known = shapes(settings, brokers, &names).await?;
            check_shapes(settings, &names, &known)?;
        } else {
            check_shapes(settings, &names, &known)?;
        }
        check_configs(&admin, settings, &names, inbox_retention_secs).await?;
    }
    Ok(())
}

/// Those of the topics that are there.
async fn shapes(
    settings: &KafkaSettings,
    brokers: &str,
    names: &[String],
) -> Result<HashMap<String, Shape>, OpenError> {
    let (asked, brokers) = (settings.clone(), brokers.to_owned());
    let metadata = tokio::task::spawn_blocking(move || reach::metadata(&asked, &brokers))
        .await
        .map_err(OpenError::of)??;
    let shapes = metadata.topics().iter().map(|topic| {
        let replicas = topic.partitions().iter().map(|it| it.replicas().len());
        let shape = Shape {
            partitions: topic.partitions().len(),
            replicas: replicas.min().unwrap_or(0),
        };
        (topic.name().to_owned(), shape)
    });
    Ok(shapes.filter(|(name, _)| names.contains(name)).collect())
}

/// Makes what is not known; whether there was anything.
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
            // A record's age is counted from its arrival, whatever its sender and its sender's clock say.
            .set("message.timestamp.type", "LogAppendTime")
        })
        .collect();
    if missing.is_empty() {
        return Ok(false);
    }
    let answers = admin
        .create_topics(&missing, &options())
        .await
        .map_err(OpenError::of)?;
    for answer in answers {
        match answer {
            // Another process that starts at the same time made it.
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => {
                return Err(OpenError::of(format_args!(
                    "topic {name} cannot be made with the settings partitions, replication and retention_secs: {code}"
                )));
            }
        }
    }
    Ok(true)
}

/// A topic may have more than the settings say, never less.
fn check_shapes(
    settings: &KafkaSettings,
    names: &[String],
    known: &HashMap<String, Shape>,
) -> Result<(), OpenError> {
    let partitions = usize::try_from(settings.partitions).unwrap_or(usize::MAX);
    let replicas = usize::try_from(settings.replication).unwrap_or(usize::MAX);
    for name in names {
        // One that was made a moment ago may not be told of yet.
        let Some(there) = known.get(name).filter(|it| it.partitions > 0) else {
            continue;
        };
        if there.partitions < partitions {
            return Err(OpenError::of(format_args!(
                "topic {name} has {} partitions, and the setting partitions says {partitions}: adding some would \
                 give keys to other partitions, so it must be done by a person, with nothing in flight",
                there.partitions
            )));
        }
        if there.replicas < replicas {
            return Err(OpenError::of(format_args!(
                "topic {name} has {} copies of a partition, and the setting replication says {replicas}",
                there.replicas
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
        .map_err(OpenError::of)?;
    for described in described {
        match described {
            Ok(config) => check_config(&config, settings, inbox_retention_secs)?,
            // Made a moment ago, and with the settings that were checked.
            Err(RDKafkaErrorCode::UnknownTopicOrPartition) => {}
            Err(code) => return Err(OpenError::of(KafkaError::AdminOp(code))),
        }
    }
    Ok(())
}

/// Whether a topic keeps its records for as long as we count on, and no longer than the inbox remembers.
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
        // -1: for ever.
        Some(if millis < 0 { i64::MAX } else { millis / 1000 })
    };
    // Of one that was made a moment ago a broker may not know anything yet.
    let (Some(retention), Some(segment)) = (secs("retention.ms"), secs("segment.ms")) else {
        return Ok(());
    };
    if let Some(policy) = value("cleanup.policy").filter(|policy| *policy != "delete") {
        return Err(OpenError::of(format_args!(
            "topic {name} has the cleanup.policy {policy}: only delete keeps every message of a key"
        )));
    }
    if retention < settings.retention_secs {
        return Err(OpenError::of(format_args!(
            "topic {name} keeps its messages for {retention} seconds, and the setting retention_secs says {}",
            settings.retention_secs
        )));
    }
    let needed = inbox_secs_min(retention, segment);
    if inbox_retention_secs < needed {
        return Err(too_forgetful(name, inbox_retention_secs, needed));
    }
    Ok(())
}

fn too_forgetful(topic: &str, secs: i64, needed: i64) -> OpenError {
    OpenError::of(format_args!(
        "the setting inbox_retention_secs is {secs}, and {topic} may deliver a message again for {needed} seconds"
    ))
}

fn options() -> AdminOptions {
    let timeout = Some(Duration::from_secs(ANSWER_SECS_MAX));
    AdminOptions::new()
        .operation_timeout(timeout)
        .request_timeout(timeout)
}

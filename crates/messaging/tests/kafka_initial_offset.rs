//! The initial offsets of a group that has committed none.
#![cfg(feature = "kafka")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Arc;

use common::{
    Account, Deposit, Teller, balance, context, deposit, drain, eventually,
    kafka::{Brokers, INBOX_SECS, TOPICS},
    publish, start, store_all, within,
};
use messaging::{
    Bus, Clock, Group, Kafka, KafkaSettings, Metrics, Payload, Store, Worker, WorkerContext,
    kafka::OpenError, kafka_settings::InitialOffset,
};

const DEPOSITS: &[&str] = &[Deposit::TOPIC];

/// Opens the bus as another process.
async fn open(
    brokers: &Brokers,
    groups: &[Group],
    initial_offset: Option<InitialOffset>,
) -> Result<(Store, Arc<Kafka>), OpenError> {
    let settings = KafkaSettings {
        initial_offset,
        ..brokers.settings.clone()
    };
    let store = brokers.open_silent().await;
    let kafka = Kafka::open(settings, &store, TOPICS, groups, INBOX_SECS).await?;
    Ok((store, kafka))
}

fn shell_of(store: &Store, kafka: &Arc<Kafka>) -> WorkerContext {
    WorkerContext {
        bus: Bus::Kafka(Arc::clone(kafka)),
        ..context(store, &Metrics::unregistered(), &Clock::manual(start()))
    }
}

/// How many messages a new group handles.
async fn handled(context: &WorkerContext, group: &'static str) -> usize {
    drain(&mut Worker::new(Teller { group }, context.clone()).unwrap()).await
}

#[tokio::test]
async fn a_new_group_on_topics_with_records_starts_at_the_configured_offset_or_not_at_all() {
    let brokers = Brokers::new();
    let store = brokers.open_silent().await;
    // given topics with records, before and after some moment
    let kafka = brokers.connect(&store).await;
    store_all(&store, &[Account::new(1, 0)]).await;
    publish(&store, (0..3).map(|n| deposit(&format!("old {n}"), 1, 1))).await;
    let published = async || kafka.unpublished().await == Ok(0);
    eventually("the old ones are published", published).await;
    let moment = Clock::System.now().plus_millis(1);
    eventually("it is later", async || Clock::System.now() > moment).await;
    publish(&store, [deposit("newer", 1, 1), deposit("newest", 1, 1)]).await;
    eventually("the newer ones are published", published).await;
    // then a new group is rejected without the setting
    let refused = open(&brokers, &[Group::new("chance", DEPOSITS)], None).await;
    let refused = refused.err().unwrap().to_string();
    for told in [
        "initial_offset",
        "chance",
        "5 records",
        &brokers.settings.prefix,
    ] {
        assert!(refused.contains(told), "{told}: {refused}");
    }
    assert!(!refused.contains("store"), "{refused}");
    // and starts at the configured offset, which is committed from then on
    let future = moment.plus_secs(3_600);
    for (group, at, expected) in [
        ("earliest", InitialOffset::Earliest, 5),
        ("latest", InitialOffset::Latest, 0),
        ("moment", InitialOffset::At(moment), 2),
        ("future", InitialOffset::At(future), 0),
    ] {
        let groups: &[Group] = &[Group::new(group, DEPOSITS)];
        let (_, begun) = open(&brokers, groups, Some(at)).await.unwrap();
        within("a bus closes", begun.close()).await;
        let (store, again) = open(&brokers, groups, None).await.unwrap();
        assert_eq!(
            handled(&shell_of(&store, &again), group).await,
            expected,
            "{group}"
        );
        within("a bus closes", again.close()).await;
    }
    within("a bus closes", kafka.close()).await;
    assert_eq!(balance(&store, 1).await, 7);
}

#[tokio::test]
async fn a_group_that_starts_later_handles_all_that_its_deployment_has_published() {
    let brokers = Brokers::new();
    let groups: &[Group] = &[Group::new("early", DEPOSITS), Group::new("late", DEPOSITS)];
    // given a deployment whose first process has published
    let (store, first) = open(&brokers, groups, None).await.unwrap();
    store_all(&store, &[Account::new(1, 0)]).await;
    publish(&store, (0..3).map(|n| deposit(&n.to_string(), 1, 1))).await;
    eventually("they are published", async || {
        first.unpublished().await == Ok(0)
    })
    .await;
    // then another group starts later, with any setting, and misses nothing
    for initial_offset in [None, Some(InitialOffset::Latest)] {
        let (_, second) = open(&brokers, groups, initial_offset).await.unwrap();
        within("a bus closes", second.close()).await;
    }
    assert_eq!(handled(&shell_of(&store, &first), "late").await, 3);
    within("a bus closes", first.close()).await;
}

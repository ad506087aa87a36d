//! Where a consumer group begins that is new at the brokers.
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
    Bus, Clock, Kafka, KafkaSettings, Metrics, Payload, Store, Worker, WorkerContext,
    kafka::{Group, InitialOffset, OpenError},
};

const DEPOSITS: &[&str] = &[Deposit::TOPIC];

/// A process of its own.
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

/// What is handled with the bus of this process.
fn shell_of(store: &Store, kafka: &Arc<Kafka>) -> WorkerContext {
    WorkerContext {
        bus: Bus::Kafka(Arc::clone(kafka)),
        ..context(store, &Metrics::unregistered(), &Clock::manual(start()))
    }
}

/// How much a group that is new finds, and handles.
async fn handled(context: &WorkerContext, group: &'static str) -> usize {
    drain(&mut Worker::new(Teller { group }, context.clone()).unwrap()).await
}

#[tokio::test]
async fn a_new_group_on_topics_with_a_history_begins_where_it_is_told_to_and_nowhere_unless_told() {
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
    // then a group that is new there is not begun by chance
    let refused = open(&brokers, &[("chance", DEPOSITS)], None).await;
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
    // and one that is told to begins there, and is begun from then on
    let future = moment.plus_secs(3_600);
    for (group, at, expected) in [
        ("earliest", InitialOffset::Earliest, 5),
        ("latest", InitialOffset::Latest, 0),
        ("moment", InitialOffset::At(moment), 2),
        ("future", InitialOffset::At(future), 0),
    ] {
        let groups: &[Group] = &[(group, DEPOSITS)];
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
async fn what_others_published_since_a_deployment_began_is_no_history_of_a_group_that_starts_later()
{
    let brokers = Brokers::new();
    let groups: &[Group] = &[("early", DEPOSITS), ("late", DEPOSITS)];
    // given a deployment whose first process publishes at once
    let (store, first) = open(&brokers, groups, None).await.unwrap();
    store_all(&store, &[Account::new(1, 0)]).await;
    publish(&store, (0..3).map(|n| deposit(&n.to_string(), 1, 1))).await;
    eventually("they are published", async || {
        first.unpublished().await == Ok(0)
    })
    .await;
    // then one with another group starts, whatever it is told of histories, and misses nothing
    for initial_offset in [None, Some(InitialOffset::Latest)] {
        let (_, second) = open(&brokers, groups, initial_offset).await.unwrap();
        within("a bus closes", second.close()).await;
    }
    assert_eq!(handled(&shell_of(&store, &first), "late").await, 3);
    within("a bus closes", first.close()).await;
}

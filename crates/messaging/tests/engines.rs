//! A choice of engines, as a program of one's own opens it.

mod common;

use common::{
    Account, Movement, Noise, Place, Teller, balance, bus_places, deposit, drain, publish,
    store_all,
};
use messaging::{Consumer, Engines, Entry, Group, Payload, Record, Worker, WorkerContext};

fn engines_of(place: &Place) -> Engines {
    match place {
        Place::Folder(folder) => Engines::embedded(folder.path()),
        Place::Schema(schema) => Engines::Postgres(schema.settings.clone()),
        #[cfg(feature = "kafka")]
        Place::Brokers(brokers) => Engines::Kafka(
            brokers.store_settings().clone(),
            Box::new(brokers.settings.clone()),
        ),
    }
}

#[tokio::test]
async fn every_choice_of_engines_is_migrated_and_opened_with_a_bus_and_opened_again() {
    let tables = [Account::TABLE, Movement::TABLE];
    let noise = Group::new("noise", &[Noise::TOPIC]);
    for place in bus_places() {
        let engines = engines_of(&place);
        for opened in 1..=2 {
            let teller = Teller { group: "teller" };
            let groups = [teller.group(), noise];
            let (store, bus) = engines.open(&tables, &groups).await.unwrap();
            let context = WorkerContext::new(store.clone(), bus.clone());
            let mut worker = Worker::new(teller, context).unwrap();
            if opened == 1 {
                store_all(&store, &[Account::new(1, 0)]).await;
            }
            publish(&store, [deposit(&opened.to_string(), 1, 5)]).await;
            assert_eq!(drain(&mut worker).await, 1);
            assert_eq!(balance(&store, 1).await, 5 * opened);
            bus.close().await;
            assert_eq!(bus.unpublished().await, Ok(0));
        }
        let reading = move || {
            let mut balances = Vec::new();
            let snapshot = engines.snapshot().unwrap();
            snapshot
                .each(|it: Account| balances.push(it.balance))
                .unwrap();
            balances
        };
        assert_eq!(tokio::task::spawn_blocking(reading).await.unwrap(), [10]);
    }
}

#[test]
fn a_name_separates_the_programs_that_share_the_engines() {
    let Engines::Kafka(postgres, kafka) = Engines::kafka("url", "host:9092", "shop") else {
        unreachable!("it was chosen")
    };
    assert_eq!((&*postgres.url, &*postgres.schema), ("url", "shop"));
    assert_eq!((&*kafka.brokers, &*kafka.prefix), ("host:9092", "shop."));
}

/// A build without Kafka reads the store of a deployment over Kafka, and does not take its outbox for a log.
#[cfg(not(feature = "kafka"))]
#[tokio::test]
async fn without_the_feature_the_store_opens_and_the_bus_says_why_it_does_not() {
    let schema = common::postgres::Schema::new();
    let engines = Engines::Kafka(schema.settings.clone(), Box::default());
    engines.migrate(&common::tables()).await.unwrap();
    let metrics = messaging::Metrics::unregistered();
    let store = engines
        .open_store(&common::tables(), metrics)
        .await
        .unwrap();
    let log = messaging::Bus::Local(store.clone());
    assert!(log.subscribe("teller", &[]).is_err());
    let refused = engines.open_bus(&store, &[], &[], 0).await.err().unwrap();
    assert!(refused.to_string().contains("feature `kafka`"), "{refused}");
}

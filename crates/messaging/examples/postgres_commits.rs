//! How many commits a second one writer carries on PostgreSQL: `postgres_commits URL [callers] [seconds]`. Each
//! caller puts one record of its own, waits until that is durable, and puts it again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use messaging::{
    Commit, Metrics, Postgres, PostgresSettings, Store, Timestamp, lease::LeaseRecord,
};

#[tokio::main(worker_threads = 2)]
async fn main() {
    let mut words = std::env::args().skip(1);
    let url = words.next().expect("the URL of a server");
    let callers: u64 = words.next().map_or(64, |it| it.parse().expect("a number"));
    let secs: u64 = words.next().map_or(10, |it| it.parse().expect("a number"));
    let settings = PostgresSettings {
        url,
        schema: format!("bench_{}", std::process::id()),
        ..PostgresSettings::default()
    };
    let tables = messaging::TABLES;
    Postgres::migrate(&settings, tables)
        .await
        .expect("the schema can be made");
    let store = Store::open_postgres(&settings, tables, Metrics::unregistered())
        .await
        .expect("the store opens");
    let until = Instant::now() + Duration::from_secs(secs);
    let commits = Arc::new(AtomicU64::new(0));
    let mut running = Vec::new();
    for caller in 0..callers {
        let (store, commits) = (store.clone(), Arc::clone(&commits));
        running.push(tokio::spawn(async move {
            let mut record = LeaseRecord {
                name: format!("caller {caller}"),
                holder: "a holder of twenty".to_owned(),
                token: 0,
                expires_at: Timestamp::from_millis(0),
                version: 0,
            };
            while Instant::now() < until {
                let mut commit = Commit::new();
                commit.put(&record);
                store.commit(commit).await.expect("nobody else puts it");
                record.version += 1;
                commits.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    for caller in running {
        caller.await.expect("no caller breaks");
    }
    let commits = commits.load(Ordering::Relaxed);
    println!("{callers} callers: {} commits/s", commits / secs);
}

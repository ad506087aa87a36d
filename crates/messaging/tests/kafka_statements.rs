//! What a batch from Kafka costs PostgreSQL, counted by a proxy: one transaction, and as many statements for one message as
//! for a full batch.
#![cfg(feature = "kafka")]
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod common;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use common::{
    Account, Deposit, PATIENCE, context, deposit, kafka::Brokers, postgres, publish, start,
    store_all, teller, within,
};
use messaging::{Clock, Metrics, Payload, PostgresSettings, Store};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const FULL: usize = messaging::worker::BATCH_MESSAGES_MAX;

/// What the server was sent.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    statements: u64,
    transactions: u64,
}

/// A proxy of the server that counts statements.
struct CountingProxy {
    counts: Arc<Mutex<Counts>>,
    url: String,
}

impl CountingProxy {
    async fn start() -> Self {
        let counts = Arc::<Mutex<Counts>>::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let server: tokio_postgres::Config = postgres::url().parse().unwrap();
        let there = format!("127.0.0.1:{}", server.get_ports()[0]);
        let url = postgres::url().replace(&there, &here.to_string());
        assert_ne!(url, postgres::url(), "the proxy is not used");
        let counted = Arc::clone(&counts);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&there).await.unwrap();
                tokio::spawn(carry(client, server, Arc::clone(&counted)));
            }
        });
        Self { counts, url }
    }

    fn counts(&self) -> Counts {
        *self.counts.lock().unwrap()
    }
}

/// Forwards bytes both ways and counts requests, until either side closes.
async fn carry(client: TcpStream, server: TcpStream, counts: Arc<Mutex<Counts>>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let down = async { tokio::io::copy(&mut from_server, &mut to_client).await.ok() };
    let up = async {
        let (mut read, mut unread, mut has_begun) = (vec![0; 65_536], Vec::new(), false);
        while let Ok(some @ 1..) = from_client.read(&mut read).await {
            unread.extend_from_slice(&read[..some]);
            count(&mut unread, &mut has_begun, &counts);
            if to_server.write_all(&read[..some]).await.is_err() {
                break;
            }
        }
    };
    tokio::select! { _ = down => {}, () = up => {} }
}

/// Consumes whole messages of the frontend: type, length including itself, body. The first one has no type.
fn count(unread: &mut Vec<u8>, has_begun: &mut bool, counts: &Mutex<Counts>) {
    loop {
        let head = usize::from(*has_begun);
        let Some(length) = unread.get(head..head + 4) else {
            return;
        };
        let length = u32::from_be_bytes(length.try_into().unwrap()) as usize;
        if unread.len() < head + length {
            return;
        }
        let message: Vec<u8> = unread.drain(..head + length).collect();
        if !std::mem::replace(has_begun, true) {
            continue;
        }
        let mut counts = counts.lock().unwrap();
        // Execute, and Query, which is a statement of its own.
        counts.statements += u64::from(matches!(message[0], b'E' | b'Q'));
        counts.transactions += u64::from(message[0] == b'Q' && message[5..].starts_with(b"COMMIT"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_costs_one_transaction_and_the_same_statements_for_any_number_of_messages() {
    let brokers = Brokers::new();
    // Another process publishes, so that publishing is not counted.
    let publisher = brokers.open_silent().await;
    let publishing = brokers.connect(&publisher).await;
    let accounts: Vec<_> = (0..FULL as i64).map(|id| Account::new(id, 0)).collect();
    store_all(&publisher, &accounts).await;
    let proxy = CountingProxy::start().await;
    let settings = PostgresSettings {
        url: proxy.url.clone(),
        ..brokers.store_settings().clone()
    };
    let metrics = Metrics::unregistered();
    let store = Store::open_postgres(&settings, &common::tables(), Arc::clone(&metrics)).await;
    let store = store.unwrap();
    let consuming = brokers.connect(&store).await;
    let mut worker = teller(&context(&store, &metrics, &Clock::manual(start())));

    // The cost of a step by the number of its messages. The first steps also prepare statements.
    let mut costs = BTreeMap::<usize, Counts>::new();
    let (mut round, mut is_warm) = (0, false);
    let began = std::time::Instant::now();
    while !(costs.contains_key(&1) && costs.contains_key(&FULL)) {
        assert!(
            began.elapsed() < PATIENCE,
            "only batches of {:?} came",
            costs.keys()
        );
        round += 1;
        let size = if round % 2 == 0 { FULL as i64 } else { 1 };
        let messages = (0..size).map(|id| deposit(&format!("{round} {id}"), id, 1));
        publish(&publisher, messages).await;
        let Store::Postgres(outbox) = &publisher else {
            unreachable!("it was opened so")
        };
        common::eventually("the brokers have everything", async || {
            outbox.pending(1).await.unwrap().is_empty()
        })
        .await;
        // By the answer to a request that follows the sends, most messages have arrived.
        let bus = common::bus(&publisher);
        assert!(!bus.is_drained("teller", &[Deposit::TOPIC]).await.unwrap());
        let handling = async {
            let mut handled = 0;
            while handled < size as usize {
                let before = proxy.counts();
                let taken = worker.step().await.unwrap();
                let after = proxy.counts();
                if taken == 0 {
                    worker.changed().await;
                } else if is_warm {
                    let cost = Counts {
                        statements: after.statements - before.statements,
                        transactions: after.transactions - before.transactions,
                    };
                    costs.insert(taken, cost);
                }
                handled += taken;
            }
        };
        within("what was published is handled", handling).await;
        is_warm = round >= 4;
    }
    println!("statements and transactions by messages: {costs:?}");
    assert_eq!(costs[&1].transactions, 1);
    for (messages, cost) in &costs {
        assert_eq!(*cost, costs[&1], "a batch of {messages}");
    }
    within("a bus closes", publishing.close()).await;
    within("a bus closes", consuming.close()).await;
}

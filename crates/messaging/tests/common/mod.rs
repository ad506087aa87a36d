//! What every contract suite is told with: a small bank and the places of its store. State: none; each test gets places
//! of its own.
#![expect(dead_code, reason = "each suite uses a part of this")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod bank;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod line;
pub mod postgres;

use std::sync::Arc;

pub use bank::*;
use messaging::{
    Clock, Commit, Consumer, DeadLetterSettings, Decision, Group, Message, Metrics, Payload,
    Postgres, Random, Records, Ref, Rejection, Store, StoreError, Timestamp, Worker, WorkerContext,
    bus::Bus,
};

/// A place where a store is opened, closed and opened again.
pub enum Place {
    Folder(tempfile::TempDir),
    Schema(postgres::Schema),
    #[cfg(feature = "kafka")]
    Brokers(Box<kafka::Brokers>),
}

/// An empty place of every backend: a backend runs every suite as soon as it stands here.
pub fn places() -> Vec<Place> {
    let folder = tempfile::tempdir().unwrap();
    vec![
        Place::Folder(folder),
        Place::Schema(postgres::Schema::new()),
    ]
}

/// As [`places`], and with Kafka as the bus, where that is compiled in: for what a bus promises. Only what follows is
/// told over [`places`] alone, for it is about a log that is a table of the store:
///
/// - a number of statements for each step taken by hand: over Kafka nobody knows how much has arrived at which step
///   (`kafka_bus.rs` counts the statements of whole batches on the line to PostgreSQL);
/// - which rows of the log cleaning removes, whether their offsets come again, and marks that outlive their time because
///   the log still holds their message: topics are cleaned by the brokers, and offsets are theirs (`kafka_bus.rs` holds
///   cleaning to what it may not take from an outbox);
/// - the position of a group in a history (`equivalence.rs`): brokers keep it.
pub fn bus_places() -> Vec<Place> {
    #[cfg_attr(
        not(feature = "kafka"),
        expect(unused_mut, reason = "nothing is added")
    )]
    let mut places = places();
    #[cfg(feature = "kafka")]
    places.push(Place::Brokers(Box::new(kafka::Brokers::new())));
    places
}

impl Place {
    pub async fn open(&self) -> Store {
        self.open_with(Metrics::unregistered()).await
    }

    pub async fn open_with(&self, metrics: Arc<Metrics>) -> Store {
        self.try_open(metrics).await.unwrap()
    }

    pub async fn try_open(&self, metrics: Arc<Metrics>) -> Result<Store, StoreError> {
        match self {
            Self::Folder(folder) => Store::open_embedded(folder.path(), &tables(), metrics),
            Self::Schema(schema) => {
                Postgres::migrate(&schema.settings, &tables()).await?;
                Store::open_postgres(&schema.settings, &tables(), metrics).await
            }
            #[cfg(feature = "kafka")]
            Self::Brokers(brokers) => brokers.try_open(metrics).await,
        }
    }
}

/// The key of messages that the store refuses, once [`Place::refuse_messages`] says so.
pub const REFUSED_KEY: &str = "refused";

impl Place {
    /// Gives the table of messages a rule that breaks for those of [`REFUSED_KEY`], and for no other.
    pub fn refuse_messages(&self) {
        let schema = match self {
            Self::Folder(folder) => {
                let file = rusqlite::Connection::open(folder.path().join("messaging.db")).unwrap();
                let rule = format!(
                    "CREATE TRIGGER refusing BEFORE INSERT ON message WHEN new.key = '{REFUSED_KEY}'
                     BEGIN SELECT RAISE(ABORT, 'it is refused'); END"
                );
                return file.execute_batch(&rule).unwrap();
            }
            Self::Schema(schema) => schema,
            #[cfg(feature = "kafka")]
            Self::Brokers(brokers) => &brokers.schema,
        };
        let name = &schema.settings.schema;
        let rule = format!(
            "ALTER TABLE {name}.message ADD CONSTRAINT refusing CHECK (key <> '{REFUSED_KEY}') NOT VALID"
        );
        postgres::run(&schema.settings.url, rule);
    }

    /// What another program does to the store's own tables, in SQL that both engines know. `{}` is put before the name
    /// of a table.
    pub fn run_sql(&self, sql: &str) {
        let schema = match self {
            Self::Folder(folder) => {
                let file = rusqlite::Connection::open(folder.path().join("messaging.db")).unwrap();
                return file.execute_batch(&sql.replace("{}", "")).unwrap();
            }
            Self::Schema(schema) => schema,
            #[cfg(feature = "kafka")]
            Self::Brokers(brokers) => &brokers.schema,
        };
        let name = format!("{}.", schema.settings.schema);
        postgres::run(&schema.settings.url, sql.replace("{}", &name));
    }

    /// Takes that rule away again.
    pub fn take_messages(&self) {
        let schema = match self {
            Self::Folder(folder) => {
                let file = rusqlite::Connection::open(folder.path().join("messaging.db")).unwrap();
                return file.execute_batch("DROP TRIGGER refusing").unwrap();
            }
            Self::Schema(schema) => schema,
            #[cfg(feature = "kafka")]
            Self::Brokers(brokers) => &brokers.schema,
        };
        let name = &schema.settings.schema;
        let drop = format!("ALTER TABLE {name}.message DROP CONSTRAINT refusing");
        postgres::run(&schema.settings.url, drop);
    }
}

/// Text that no index can make smaller.
pub fn incompressible(length: usize) -> String {
    let random = Random::seeded(11);
    let letter = |_| char::from_u32(0x4e00 + random.below(0x5000) as u32).unwrap();
    (0..length).map(letter).collect()
}

/// The bus of a store that a place opened.
pub fn bus(store: &Store) -> Bus {
    #[cfg(feature = "kafka")]
    return kafka::bus(store);
    #[cfg(not(feature = "kafka"))]
    Bus::Local(store.clone())
}

/// What is outside the store, for tests: a context around it whose clock stands still.
pub fn context(store: &Store, metrics: &Arc<Metrics>, clock: &Clock) -> WorkerContext {
    WorkerContext {
        store: store.clone(),
        bus: bus(store),
        clock: clock.clone(),
        random: Random::seeded(7),
        metrics: Arc::clone(metrics),
        dead_letters: DeadLetterSettings::default(),
    }
}

/// Does what deposits ask: the account is put, a ledger line appended, a [`Noise`] published.
#[derive(Clone)]
pub struct Teller {
    pub group: &'static str,
}

impl Consumer for Teller {
    type Input = Deposit;
    type Prefetched = ();
    type Outcome = ();

    fn group(&self) -> Group {
        Group::new(self.group, &[Deposit::TOPIC])
    }

    fn read(&self, message: &Message) -> Result<Deposit, Rejection> {
        message.parse()
    }
    fn required_records(&self, deposit: &Deposit) -> Vec<Ref> {
        vec![Ref::to::<Account>(deposit.account)]
    }

    fn decide(
        &self,
        message: &Message,
        deposit: &Deposit,
        records: &Records,
        (): &(),
        _now: Timestamp,
    ) -> Result<Decision, Rejection> {
        let account = records
            .get::<Account>(deposit.account)?
            .ok_or_else(|| Rejection::new("there is no such account"))?;
        if account.frozen {
            return Err(Rejection::new("the account is frozen"));
        }
        let mut commit = Commit::new();
        commit
            .put(&account.with_balance(account.balance + deposit.amount))
            .append(&movement(
                &format!("{} {}", self.group, message.id),
                deposit.account,
                deposit.amount,
            ));
        Ok(commit.into())
    }
}

pub fn teller(context: &WorkerContext) -> Worker<Teller> {
    Worker::new(Teller { group: "teller" }, context.clone()).unwrap()
}

/// Between two looks whether anything is under way.
const LOOK: std::time::Duration = std::time::Duration::from_millis(20);

/// Longer than anything that is awaited here takes, also on a machine that has much else to do.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// Awaits something, and fails by what it was where it does not come.
pub async fn within<T>(awaited: &str, it: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, it).await {
        Ok(it) => it,
        Err(_) => panic!("awaited for {PATIENCE:?}: {awaited}"),
    }
}

/// Waits until a condition holds.
pub async fn eventually(awaited: &str, holds: impl AsyncFn() -> bool) {
    let waiting = async {
        let mut look = tokio::time::interval(LOOK);
        while !holds().await {
            look.tick().await;
        }
    };
    within(awaited, waiting).await;
}

/// Steps until nothing is left; returns how many messages were taken.
pub async fn drain<C: Consumer>(worker: &mut Worker<C>) -> usize {
    let draining = async {
        let mut taken = 0;
        loop {
            match worker.step().await.unwrap() {
                0 if worker.is_drained().await.unwrap() => return taken,
                0 => {
                    // What is under way comes, or it turns out that nothing is.
                    let _ = tokio::time::timeout(LOOK, worker.changed()).await;
                }
                some => taken += some,
            }
        }
    };
    within("a group has handled everything", draining).await
}

/// Everything on the bus for a group that reads `topics`, from its stored position.
pub async fn read_all(
    store: &Store,
    group: &'static str,
    topics: &'static [&'static str],
) -> Vec<Arc<Message>> {
    let bus = bus(store);
    let mut subscription = bus.subscribe(group, topics).unwrap();
    let mut all = Vec::new();
    let reading = async {
        loop {
            while let Some(batch) = subscription.try_next(100).await.unwrap() {
                all.extend(batch.messages.iter().cloned());
                subscription.acknowledge(&batch);
            }
            // A log has told everything; what brokers have may still be on its way.
            if matches!(bus, Bus::Local(_)) || bus.is_drained(group, topics).await.unwrap() {
                break;
            }
            let _ = tokio::time::timeout(LOOK, subscription.changed()).await;
        }
    };
    within("everything on the bus was read", reading).await;
    subscription.close().await;
    all
}

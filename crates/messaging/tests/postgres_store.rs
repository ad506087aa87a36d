//! A store whose server can fail: other processes, outages, recovery, a lost acknowledgement.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails where it stands"
)]

mod common;

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use common::line::{Cut, Line};
use common::{
    Account, account, balance, deposit, movement, movements, noise, postgres, start, store_all,
    tables,
};
use futures::FutureExt;
use messaging::{
    Bus, Clock, Commit, CommitError, Entry, Message, MessageTable, Metrics, Payload, Postgres,
    PostgresSettings, Random, Record, Snapshot, Store, StoreError, Submission, Table,
    store::Position, timers::Timers,
};

async fn open(settings: &PostgresSettings) -> Result<Store, StoreError> {
    Store::open_postgres(settings, &tables(), Metrics::unregistered()).await
}

async fn migrated() -> postgres::Schema {
    let schema = postgres::Schema::new();
    Postgres::migrate(&schema.settings, &tables())
        .await
        .unwrap();
    schema
}

fn outbox(schema: &postgres::Schema) -> PostgresSettings {
    PostgresSettings {
        messages: MessageTable::Outbox,
        ..schema.settings.clone()
    }
}

fn backend(store: &Store) -> Arc<Postgres> {
    match store {
        Store::Postgres(postgres) => Arc::clone(postgres),
        _ => unreachable!("these stores are opened on PostgreSQL"),
    }
}

fn put(account: &Account) -> Commit {
    let mut commit = Commit::new();
    commit.put(account);
    commit
}

// ---- the schema

#[tokio::test]
async fn concurrent_migrations_create_everything_once() {
    let schema = postgres::Schema::new();
    let together = (0..6).map(|_| {
        let settings = schema.settings.clone();
        tokio::spawn(async move { Postgres::migrate(&settings, &tables()).await.unwrap().len() })
    });
    let steps = futures::future::join_all(together).await;
    let taken: usize = steps.into_iter().map(|steps| steps.unwrap()).sum();
    let alone = postgres::Schema::new();
    let alone = Postgres::migrate(&alone.settings, &tables()).await.unwrap();
    assert_eq!(taken, alone.len());
    assert!(open(&schema.settings).await.is_ok());
}

#[tokio::test]
async fn a_schema_that_was_not_migrated_is_rejected_with_a_remedy() {
    let schema = postgres::Schema::new();
    let rejected = open(&schema.settings).await.err();
    assert!(
        matches!(&rejected, Some(StoreError::Unavailable(reason)) if reason.contains("Postgres::migrate")),
        "{rejected:?}"
    );
    Postgres::migrate(&schema.settings, messaging::TABLES)
        .await
        .unwrap();
    let rejected = open(&schema.settings).await.err();
    assert!(
        matches!(&rejected, Some(StoreError::Unavailable(reason)) if reason.contains("account")),
        "{rejected:?}"
    );
}

/// The accounts of a newer program.
const WIDER: &Table = &Table {
    name: "account",
    columns: &[
        messaging::Column::integer("id"),
        messaging::Column::text("owner"),
        messaging::Column::integer("balance"),
        messaging::Column::boolean("frozen"),
        messaging::Column::json("tags"),
        messaging::Column::text("note").null(),
        messaging::Column::integer("limit_won"),
        messaging::Column::VERSION,
    ],
    key: "id",
    constraints: &["UNIQUE (owner)", "CHECK (balance >= -1000)"],
    indexes: &["(balance, owner)"],
};

#[tokio::test]
async fn an_older_program_keeps_working_while_the_schema_is_migrated() {
    let schema = migrated().await;
    let store = open(&schema.settings).await.unwrap();
    store_all(&store, &[Account::new(1, 5)]).await;
    let newer = [messaging::TABLES, &[WIDER, common::Movement::TABLE]].concat();
    let steps = Postgres::migrate(&schema.settings, &newer).await.unwrap();
    assert_eq!(steps.len(), 1, "{steps:?}");

    // The older program writes rows under the new constraints, and its own migration changes nothing.
    let overdrawn = account(&store, 1).await.with_balance(-1000);
    store.commit(put(&overdrawn)).await.unwrap();
    store_all(&store, &[Account::new(2, 5)]).await;
    drop(store);
    assert_eq!(
        Postgres::migrate(&schema.settings, &tables())
            .await
            .unwrap(),
        [""; 0]
    );
    let store = open(&schema.settings).await.unwrap();
    let too_much = account(&store, 1).await.with_balance(-1001);
    let rejected = store.commit(put(&too_much)).await;
    assert!(
        matches!(&rejected, Err(CommitError::Constraint { .. })),
        "{rejected:?}"
    );
}

// ---- several processes

#[tokio::test]
async fn only_one_process_at_a_time_opens_the_log() {
    let schema = migrated().await;
    let first = open(&schema.settings).await.unwrap();
    let second = open(&schema.settings).await.err();
    assert!(
        matches!(&second, Some(StoreError::Unavailable(reason)) if reason.contains("another process")),
        "{second:?}"
    );
    drop(first);
    assert!(open(&schema.settings).await.is_ok());
}

#[tokio::test]
async fn a_process_whose_log_was_taken_over_cannot_write() {
    let schema = migrated().await;
    let store = open(&schema.settings).await.unwrap();
    store_all(&store, &[Account::new(1, 1)]).await;
    // A server without advisory locks lets this happen.
    let name = &schema.settings.schema;
    postgres::run(
        &schema.settings.url,
        format!("UPDATE {name}.writer SET epoch = epoch + 1"),
    );
    let fenced = store
        .commit(put(&account(&store, 1).await.with_balance(2)))
        .await;
    assert!(
        matches!(fenced, Err(CommitError::Store(StoreError::Poisoned(_)))),
        "{fenced:?}"
    );
    assert_eq!(balance(&store, 1).await, 1);
    assert!(!store.failed().await.is_empty());
}

#[tokio::test]
async fn processes_that_change_the_same_records_lose_no_change_and_do_not_deadlock() {
    let schema = migrated().await;
    let settings = outbox(&schema);
    let stores = [
        open(&settings).await.unwrap(),
        open(&settings).await.unwrap(),
    ];
    let accounts: Vec<_> = (0..6).map(|id| Account::new(id, 0)).collect();
    store_all(&stores[0], &accounts).await;
    // Each changes two accounts, in either order.
    let adders = (0_i64..16).map(|number| {
        let store = stores[usize::try_from(number % 2).unwrap()].clone();
        tokio::spawn(async move {
            let mut done = 0;
            while done < 10 {
                let (from, to) = (number % 6, (number * 5 + done + 1) % 6);
                if from == to {
                    done += 1;
                    continue;
                }
                let (one, other) = (account(&store, from).await, account(&store, to).await);
                let mut commit = Commit::new();
                commit
                    .put(&one.with_balance(one.balance + 1))
                    .put(&other.with_balance(other.balance + 1))
                    .append(&movement(&format!("{number} {done}"), from, 2))
                    .publish(deposit(&format!("{number} {done}"), from, 1));
                match store.commit(commit).await {
                    Ok(()) => done += 1,
                    Err(CommitError::Conflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        })
    });
    for adder in adders.collect::<Vec<_>>() {
        adder.await.unwrap();
    }
    let ledger: i64 = movements(&stores[0]).await.iter().map(|it| it.amount).sum();
    let mut balances = 0;
    for id in 0..6 {
        balances += balance(&stores[1], id).await;
    }
    assert_eq!(balances, ledger);
    let pending = backend(&stores[0]).pending(10_000).await.unwrap();
    assert_eq!(pending.len(), movements(&stores[0]).await.len());
}

#[tokio::test]
async fn processes_never_get_the_same_next_id() {
    let schema = migrated().await;
    let settings = outbox(&schema);
    let stores = [
        open(&settings).await.unwrap(),
        open(&settings).await.unwrap(),
    ];
    store_all(&stores[0], &[Account::new(40, 0)]).await;
    let given = (0..40).map(|turn| {
        let store = stores[turn % 2].clone();
        tokio::spawn(async move { store.next_id(Account::TABLE).await.unwrap() })
    });
    let given = futures::future::join_all(given).await;
    let mut ids: Vec<_> = given.into_iter().map(|id| id.unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (41..=80).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_outbox_keeps_unpublished_messages_and_is_no_bus() {
    let schema = migrated().await;
    let store = open(&outbox(&schema)).await.unwrap();
    let postgres = backend(&store);
    common::publish(&store, (0..5).map(noise)).await;
    let here = postgres.committed_here(0, 100).unwrap();
    let pending = postgres.pending(3).await.unwrap();
    assert_eq!((here.len(), pending.len()), (5, 3));
    assert_eq!(here[2].message.id, pending[2].message.id);
    assert_eq!(*postgres.head().borrow(), here[4].offset);
    let taken: Vec<_> = pending.iter().map(|stored| stored.offset).collect();
    assert_eq!(postgres.published(&taken).await, Ok(3));
    assert_eq!(postgres.published(&taken).await, Ok(0));
    let left = postgres.pending(10).await.unwrap();
    let left: Vec<_> = left
        .iter()
        .map(|stored| stored.message.id.as_str())
        .collect();
    assert_eq!(left, ["noise 3", "noise 4"]);
    assert!(Bus::Local(store).subscribe("teller", &["noise"]).is_err());
}

// ---- snapshots

#[tokio::test]
async fn a_snapshot_sees_one_moment_and_blocks_no_writer() {
    let schema = migrated().await;
    let store = open(&schema.settings).await.unwrap();
    store_all(&store, &[Account::new(1, 1), Account::new(2, 2)]).await;
    let mut commit = Commit::new();
    commit
        .append(&movement("a", 1, 5))
        .append(&movement("b", 1, 6))
        .publish(deposit("seen", 1, 1))
        .publish(deposit("unseen", 1, 1))
        .set_timer("due", start(), noise(1));
    commit.handled = Some(messaging::commit::Handled {
        group: "teller".to_owned(),
        message_id: "seen".to_owned(),
        key: "1".to_owned(),
        at: start(),
    });
    store.commit(commit).await.unwrap();
    let snapshot = Snapshot::open_postgres(&schema.settings).unwrap();
    store
        .commit(put(&account(&store, 1).await.with_balance(100)))
        .await
        .unwrap();
    store_all(&store, &[Account::new(3, 3)]).await;

    let mut balances = Vec::new();
    snapshot
        .each(|account: Account| balances.push(account.balance))
        .unwrap();
    assert_eq!(balances, [1, 2]);
    let sums = snapshot.sum_by("movement", "amount", "account").unwrap();
    assert_eq!(sums, [(1, 11)]);
    let pending = snapshot
        .pending("teller", &[common::Deposit::TOPIC])
        .unwrap();
    let pending: Vec<_> = pending.iter().map(|message| message.id.as_str()).collect();
    assert_eq!(pending, ["unseen"]);
    assert_eq!(snapshot.timers().unwrap().len(), 1);
}

// ---- outages

/// A server that a test may crash. It ends with this process.
struct OwnServer {
    folder: PathBuf,
    url: String,
    guard: Child,
}

impl OwnServer {
    fn start() -> Self {
        // The server does not run as root, and must be able to enter this folder.
        let name = format!(
            "boxoffice-test-{}-{}",
            std::process::id(),
            Random::System.below(u64::MAX)
        );
        let folder = std::env::temp_dir().join(name);
        let guard = Command::new(postgres::script())
            .args(["guard".as_ref(), folder.as_os_str()])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let url = order("start", &folder);
        Self { folder, url, guard }
    }

    fn crash(&self) {
        order("crash", &self.folder);
    }

    fn restart(&self) {
        order("start", &self.folder);
    }
}

fn order(what: &str, folder: &Path) -> String {
    let ordered = Command::new(postgres::script())
        .args([what.as_ref(), folder.as_os_str()])
        .output()
        .unwrap();
    assert!(ordered.status.success(), "{ordered:?}");
    String::from_utf8(ordered.stdout).unwrap().trim().to_owned()
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

#[tokio::test]
async fn commits_wait_for_a_crashed_server_and_each_is_applied_once() {
    let server = OwnServer::start();
    let schema = postgres::Schema::at(&server.url);
    Postgres::migrate(&schema.settings, &tables())
        .await
        .unwrap();
    let store = open(&schema.settings).await.unwrap();
    store_all(&store, &[Account::new(1, 0)]).await;

    let is_over = Arc::new(AtomicBool::new(false));
    let adder = tokio::spawn({
        let (store, is_over) = (store.clone(), Arc::clone(&is_over));
        async move {
            let mut record = account(&store, 1).await;
            while !is_over.load(Ordering::Relaxed) {
                let mut commit = put(&record.with_balance(record.balance + 1));
                commit.append(&movement(&record.version.to_string(), 1, 1));
                // A conflict would mean that an earlier outcome was not true.
                store.commit(commit).await.unwrap();
                record.version += 1;
                record.balance += 1;
            }
            record
        }
    });
    for _ in 0..3 {
        let mut committed = store.committed();
        for _ in 0..5 {
            committed.changed().await.unwrap();
        }
        server.crash();
        server.restart();
    }
    let mut committed = store.committed();
    committed.changed().await.unwrap();
    committed.changed().await.unwrap();
    is_over.store(true, Ordering::Relaxed);
    let told = adder.await.unwrap();
    assert_eq!(account(&store, 1).await, told);
    assert_eq!(movements(&store).await.len() as i64, told.balance);
    assert_eq!(store.check(), Ok(()));
}

#[tokio::test]
async fn commits_fail_while_the_server_is_unreachable_and_succeed_when_it_is_back() {
    let server = OwnServer::start();
    let schema = postgres::Schema::at(&server.url);
    Postgres::migrate(&schema.settings, &tables())
        .await
        .unwrap();
    let settings = PostgresSettings {
        wait_secs_max: 0,
        ..schema.settings.clone()
    };
    let store = open(&settings).await.unwrap();
    store_all(&store, &[Account::new(1, 0)]).await;
    let record = account(&store, 1).await;
    server.crash();
    let rejected = store.commit(put(&record.with_balance(1))).await;
    assert!(
        matches!(
            &rejected,
            Err(CommitError::Store(StoreError::Unavailable(_)))
        ),
        "{rejected:?}"
    );
    assert!(matches!(store.check(), Err(StoreError::Unavailable(_))));
    assert!(matches!(
        store.load::<Account>(1).await,
        Err(StoreError::Unavailable(_))
    ));
    server.restart();
    assert_eq!(store.commit(put(&record.with_balance(2))).await, Ok(()));
    assert_eq!(balance(&store, 1).await, 2);
    assert_eq!(store.check(), Ok(()));
}

// ---- a lost acknowledgement

/// On two threads: closing a store blocks its own, and the proxy must go on meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_acknowledgement_is_lost_gets_its_true_outcome() {
    for cut in [Cut::BehindCommit, Cut::BeforeCommit] {
        let schema = migrated().await;
        let line = Line::lay(postgres::url()).await;
        let settings = PostgresSettings {
            url: line.url.clone(),
            ..schema.settings.clone()
        };
        let store = open(&settings).await.unwrap();
        store_all(&store, &[Account::new(1, 0)]).await;
        let mut commit = put(&account(&store, 1).await.with_balance(5));
        commit
            .publish(deposit("m", 1, 5))
            .append(&movement("a", 1, 5));
        line.cut_next(cut);
        let position = Some(Position {
            group: "teller".to_owned(),
            offset: 1,
        });
        let handle = store.submit(Submission {
            commits: [commit].into(),
            position,
        });
        assert_eq!(handle.outcomes().await, [Ok(())], "{cut:?}");
        assert!(line.was_cut(), "the line was not cut");

        assert_eq!(account(&store, 1).await.version, 2);
        assert_eq!(movements(&store).await.len(), 1);
        // The log continues after the message, as after opening it again.
        common::publish(&store, [deposit("n", 1, 1)]).await;
        let log = common::read_all(&store, "late", &[common::Deposit::TOPIC]).await;
        let log: Vec<_> = log.iter().map(|message| message.id.as_str()).collect();
        assert_eq!(log, ["m", "n"]);
        let teller = Bus::Local(store.clone())
            .subscribe("teller", &["noise"])
            .unwrap();
        assert_eq!(teller.position().map(|it| it.offset), Some(1));
    }
}

/// The connection stays cut for longer than the store waits: the outcome is unknown until it is restored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unresolved_commit_is_reported_as_unknown_and_its_true_outcome_follows() {
    for (cut, is_there) in [(Cut::BehindCommit, true), (Cut::BeforeCommit, false)] {
        let schema = migrated().await;
        let line = Line::lay(postgres::url()).await;
        let settings = PostgresSettings {
            url: line.url.clone(),
            wait_secs_max: 0,
            ..schema.settings.clone()
        };
        let store = open(&settings).await.unwrap();
        store_all(&store, &[Account::new(1, 0)]).await;
        let rich = put(&account(&store, 1).await.with_balance(5));
        let mut stale = Commit::new();
        stale.put(&Account::new(1, 7));
        line.cut_for_long(cut);

        // The first caller returns early, and is settled later.
        let handle = store.submit(Submission {
            commits: [rich, stale].into(),
            position: None,
        });
        let (told, settled) = tokio::sync::oneshot::channel();
        let first = handle.settled(move |outcomes| told.send(outcomes.to_vec()).unwrap());
        let unknown = first.await;
        let is_unknown =
            |error: &CommitError| matches!(error, CommitError::Store(StoreError::Unknown(_)));
        let are_unknown = unknown
            .iter()
            .all(|outcome| outcome.as_ref().is_err_and(is_unknown));
        assert!(are_unknown && unknown.len() == 2, "{unknown:?}");
        assert!(
            unknown
                .iter()
                .flat_map(|it| it.as_ref().err())
                .all(CommitError::may_be_applied)
        );
        // A later commit was certainly not applied.
        let later = store.commit(put(&Account::new(2, 0))).await.unwrap_err();
        assert!(!later.may_be_applied(), "{later:?}");

        // Without a further commit, the writer resolves the batch by itself.
        line.mend();
        let [rich, stale] = &settled.await.unwrap()[..] else {
            panic!("one outcome for each commit");
        };
        assert_eq!(rich.is_ok(), is_there, "{rich:?}");
        let known = rich.as_ref().err();
        assert!(
            known.is_none_or(|error| !error.may_be_applied()),
            "{known:?}"
        );
        assert!(
            matches!(stale, Err(CommitError::Conflict { .. })),
            "{stale:?}"
        );
        assert_eq!(balance(&store, 1).await, if is_there { 5 } else { 0 });
        assert_eq!(store.check(), Ok(()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_caller_is_settled_with_the_true_outcome() {
    let schema = migrated().await;
    let store = open(&schema.settings).await.unwrap();
    let handle = store.submit(Submission {
        commits: [put(&Account::new(1, -1001))].into(),
        position: None,
    });
    let (told, settled) = tokio::sync::oneshot::channel();
    let waiting = handle.settled(move |outcomes| told.send(outcomes.to_vec()).unwrap());
    // Polled at most once, then dropped.
    let _ = waiting.now_or_never();
    let outcomes = settled.await.unwrap();
    assert!(
        matches!(outcomes[..], [Err(CommitError::Constraint { .. })]),
        "{outcomes:?}"
    );
}

// ---- encryption

#[tokio::test]
async fn the_connection_is_encrypted_and_verified_as_sslmode_says() {
    let server = OwnServer::start();
    let schema = postgres::Schema::at(&server.url);
    Postgres::migrate(&schema.settings, &tables())
        .await
        .unwrap();
    let asking = |mode: &str, host: &str| PostgresSettings {
        url: server
            .url
            .replace("127.0.0.1", host)
            .replace("sslmode=disable", &format!("sslmode={mode}")),
        ..schema.settings.clone()
    };
    let authority = server.folder.join("server.crt");
    let verify = format!("verify-full&sslrootcert={}", authority.display());
    for mode in ["prefer", "require", &verify] {
        let store = open(&asking(mode, "127.0.0.1")).await.unwrap();
        store_all(&store, &[Account::new(1, 1)]).await;
        let encrypted = "SELECT count(*) FROM pg_stat_ssl WHERE ssl AND pid <> pg_backend_pid()";
        assert!(postgres::count(&server.url, encrypted) >= 1, "{mode}");
        let mut gone = Commit::new();
        gone.delete(&account(&store, 1).await);
        store.commit(gone).await.unwrap();
    }
    // The certificate is self-signed, and for another name.
    let elsewhere = format!("{verify}&hostaddr=127.0.0.1");
    for (mode, host) in [
        ("verify-full", "127.0.0.1"),
        (elsewhere.as_str(), "elsewhere.example"),
    ] {
        let rejected = open(&asking(mode, host)).await.err();
        assert!(
            matches!(&rejected, Some(StoreError::Unavailable(reason)) if reason.contains("certificate")),
            "{rejected:?}"
        );
    }
    assert!(open(&asking("verify-ca", "127.0.0.1")).await.is_err());
}

#[tokio::test]
async fn an_outbox_writer_whose_registration_was_removed_continues() {
    let schema = migrated().await;
    let store = open(&outbox(&schema)).await.unwrap();
    let name = &schema.settings.schema;
    postgres::run(&schema.settings.url, format!("DELETE FROM {name}.writer"));
    store_all(&store, &[Account::new(1, 1)]).await;
    assert_eq!(balance(&store, 1).await, 1);
    assert_eq!(store.check(), Ok(()));
}

#[tokio::test]
async fn a_timer_whose_key_is_too_long_for_an_index_blocks_no_other() {
    let schema = migrated().await;
    let store = open(&outbox(&schema)).await.unwrap();
    let random = Random::seeded(7);
    let letter = |_| char::from(b'!' + u8::try_from(random.below(90)).unwrap());
    let long = Message {
        key: (0..4_000).map(letter).collect(),
        ..noise(1)
    };
    let mut commit = Commit::new();
    commit
        .set_timer("long", start(), long)
        .set_timer("plain", start(), noise(2));
    store.commit(commit).await.unwrap();
    let timers = Timers {
        store: store.clone(),
        clock: Clock::manual(start()),
        metrics: Metrics::unregistered(),
    };
    assert_eq!(timers.fire_due().await, Ok(1));
    assert_eq!(store.due_timers(start(), 10).await, Ok(Vec::new()));
}

/// A PgBouncer before the tests' server; it stops on drop.
struct Pooler {
    url: String,
    _process: Child,
}

fn pooler(mode: &str) -> Pooler {
    let script = postgres::script().with_file_name("pgbouncer");
    let mut process = Command::new(script)
        .args(["run", postgres::url(), mode])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("scripts/pgbouncer can be run");
    let mut url = String::new();
    let output = process.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut url).unwrap();
    assert!(url.starts_with("postgres://"), "PgBouncer does not start");
    Pooler {
        url: url.trim().to_owned(),
        _process: process,
    }
}

#[tokio::test]
async fn a_pooler_that_shares_connections_between_sessions_is_rejected_and_nothing_is_changed() {
    for mode in ["transaction", "statement"] {
        let pooler = pooler(mode);
        let schema = migrated().await;
        let through = PostgresSettings {
            url: pooler.url.clone(),
            ..schema.settings.clone()
        };
        let rejections = [
            open(&through).await.err(),
            Postgres::migrate(&through, &tables()).await.err(),
            Snapshot::open_postgres(&through).err(),
        ];
        for rejection in rejections {
            assert!(
                matches!(&rejection, Some(StoreError::Unavailable(reason)) if reason.contains("pool_mode = session")),
                "{mode}: {rejection:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_pooler_that_keeps_a_sessions_connection_works() {
    let pooler = pooler("session");
    let schema = migrated().await;
    let through = PostgresSettings {
        url: pooler.url.clone(),
        ..schema.settings.clone()
    };
    Postgres::migrate(&through, &tables()).await.unwrap();
    let store = open(&through).await.unwrap();
    store_all(&store, &[Account::new(1, 7)]).await;
    assert_eq!(balance(&store, 1).await, 7);
    // Its advisory lock excludes another process, through the pooler or not.
    assert!(open(&schema.settings).await.is_err());
    drop(store);
    let store = open(&schema.settings).await.unwrap();
    assert_eq!(balance(&store, 1).await, 7);
}

#[tokio::test]
async fn an_outbox_gives_offsets_after_rows_that_its_sequence_did_not_number() {
    let schema = migrated().await;
    let name = &schema.settings.schema;
    let rows = format!(
        "INSERT INTO {name}.message (\"offset\", id, topic, key, time, payload)
         SELECT n, 'restored ' || n, 'noise', 'k', 0, '{{}}' FROM generate_series(1, 500) AS n"
    );
    postgres::run(&schema.settings.url, rows);
    let (one, other) = (
        open(&outbox(&schema)).await.unwrap(),
        open(&outbox(&schema)).await.unwrap(),
    );
    common::publish(&one, [noise(1)]).await;
    common::publish(&other, [noise(2)]).await;
    let pending = backend(&one).pending(1_000).await.unwrap();
    let last: Vec<_> = pending[500..]
        .iter()
        .map(|row| (row.offset, row.message.id.as_str()))
        .collect();
    assert_eq!(last, [(501, "noise 1"), (502, "noise 2")]);
}

/// A load balancer sends no request to a process that is not ready: it must become ready without a commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_becomes_ready_without_a_commit_when_its_server_is_back() {
    let schema = migrated().await;
    let line = Line::lay(postgres::url()).await;
    let settings = PostgresSettings {
        url: line.url.clone(),
        wait_secs_max: 0,
        ..schema.settings.clone()
    };
    let store = open(&settings).await.unwrap();
    // Whether the outcome of a commit is unknown, or nothing was sent.
    for cut in [Cut::BeforeCommit, Cut::BeforeAnything] {
        line.cut_for_long(cut);
        assert!(store.commit(put(&Account::new(1, 1))).await.is_err());
        assert!(matches!(store.check(), Err(StoreError::Unavailable(_))));
        line.mend();
        common::eventually("the store is ready", async || store.check().is_ok()).await;
    }
}

/// A server that accepts connections and rejects every commit is not usable.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_whose_schema_is_unusable_is_not_ready_until_it_fails() {
    let schema = migrated().await;
    let settings = PostgresSettings {
        wait_secs_max: 2,
        ..schema.settings.clone()
    };
    let store = open(&settings).await.unwrap();
    postgres::run(
        postgres::url(),
        format!("DROP TABLE {}.movement", schema.settings.schema),
    );
    let mut commit = Commit::new();
    commit.append(&movement("a", 1, 1));
    let committing = tokio::spawn({
        let store = store.clone();
        async move { store.commit(commit).await }
    });
    common::eventually("the commit is rejected", async || store.check().is_err()).await;
    while !committing.is_finished() {
        assert!(store.check().is_err());
        tokio::task::yield_now().await;
    }
    let failed = committing.await.unwrap();
    assert!(
        matches!(failed, Err(CommitError::Store(StoreError::Poisoned(_)))),
        "{failed:?}"
    );
}

//! One contract for every lock backend: one holder at a time, in turn, told of its loss, and fenced.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use contract::Timestamp;
use futures::{FutureExt, future::join_all, poll};
use messaging::{
    Clock, CommitError, Fence, Metrics, Store,
    lease::{Error, Lease, LeaseManager, WAITERS_MAX},
};
use tempfile::TempDir;
use ticketing::{RedisSettings, redis_leases::RedisLeases, redis_server::RedisServer};

#[path = "common/protected.rs"]
mod protected;
#[path = "common/redis.rs"]
mod redis_place;

use protected::STOCK;

const LEASE_MILLIS: i64 = 9_000;
/// A wait longer than this is a wait for ever.
const PATIENCE: Duration = Duration::from_secs(20);

/// A place of one backend where leases are taken, closed and opened again.
struct Place {
    folder: TempDir,
    /// `None`: leases are in the store itself.
    redis: Option<RedisSettings>,
}

/// An empty place of every backend: a backend runs every test as soon as it stands here.
fn places() -> Vec<Place> {
    let place = |redis| Place {
        folder: TempDir::new().unwrap(),
        redis,
    };
    vec![place(None), place(Some(redis_place::settings()))]
}

impl Place {
    async fn open(&self) -> Deployment {
        let tables = [messaging::TABLES, ticketing::TABLES].concat();
        let opened = Store::open_embedded(self.folder.path(), &tables, Metrics::unregistered());
        let clock = Clock::manual(Timestamp::from_millis(1_800_000_000_000));
        Deployment {
            store: opened.unwrap(),
            clock,
            redis: self.redis.clone(),
        }
    }
}

/// What is protected, the clock on the wall, and processes that want the lock.
struct Deployment {
    store: Store,
    clock: Clock,
    redis: Option<RedisSettings>,
}

impl Deployment {
    async fn process(&self, holder: &str) -> LeaseManager {
        self.process_with_clock(holder, &self.clock).await
    }

    async fn process_with_clock(&self, holder: &str, clock: &Clock) -> LeaseManager {
        let (store, clock, holder) = (self.store.clone(), clock.clone(), holder.to_owned());
        let Some(redis) = &self.redis else {
            return LeaseManager::new(store, clock, holder, LEASE_MILLIS);
        };
        let server = RedisServer::connect(redis).await.unwrap();
        let ledger = RedisLeases::open(server, store).await.unwrap();
        LeaseManager::new(ledger, clock, holder, LEASE_MILLIS)
    }

    async fn resize(&self, quantity: i64, fence: Fence) -> Result<(), CommitError> {
        protected::resize(&self.store, quantity, fence).await
    }

    async fn quantity(&self) -> Option<i64> {
        protected::quantity(&self.store).await
    }
}

fn fenced() -> Result<(), CommitError> {
    Err(CommitError::Fenced {
        lease: STOCK.into(),
    })
}

fn lost() -> Result<(), Error> {
    Err(Error::Lost {
        lease: STOCK.into(),
    })
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("this should not take for ever")
}

async fn acquire(leases: &LeaseManager) -> Lease {
    soon(leases.acquire(STOCK)).await.unwrap()
}

type Waiting = Pin<Box<dyn Future<Output = Result<Lease, Error>> + Send>>;

/// Stands in the queue when this returns.
async fn queue_up(leases: &LeaseManager) -> Waiting {
    let leases = leases.clone();
    let mut waiting = async move { leases.acquire(STOCK).await }.boxed();
    assert!(poll!(&mut waiting).is_pending());
    waiting
}

/// Until the lease stands longer than it did.
async fn renewal(lease: &Lease, before: Option<Timestamp>) {
    soon(async {
        while lease.stands_until() == before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(lease.stands_until() > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_holder_at_a_time_among_fifty_tasks_of_two_processes() {
    for place in places() {
        let deployment = place.open().await;
        let processes = [deployment.process("a").await, deployment.process("b").await];
        let counter = Arc::new(AtomicI64::new(0));
        let tasks = (0..50).map(|task| {
            let (leases, counter) = (processes[task % 2].clone(), Arc::clone(&counter));
            tokio::spawn(async move {
                let lease = acquire(&leases).await;
                // Read, go away, write: lost updates, were two of them in here.
                let read = counter.load(Ordering::SeqCst);
                tokio::task::yield_now().await;
                counter.store(read + 1, Ordering::SeqCst);
                lease.release().await.unwrap();
            })
        });
        for task in join_all(tasks).await {
            task.unwrap();
        }
        assert_eq!(counter.load(Ordering::SeqCst), 50);
    }
}

#[tokio::test]
async fn who_asks_first_has_it_first() {
    for place in places() {
        let deployment = place.open().await;
        let leases = deployment.process("a").await;
        let holder = acquire(&leases).await;
        let mut queue = Vec::new();
        for number in 0..10 {
            queue.push((number, queue_up(&leases).await));
        }
        // Polled from the back, so that only the queue can keep the order.
        queue.reverse();
        let order = std::sync::Mutex::new(Vec::new());
        let served = join_all(queue.into_iter().map(async |(number, waiting)| {
            let lease = waiting.await.unwrap();
            order.lock().unwrap().push(number);
            lease.release().await.unwrap();
        }));
        holder.release().await.unwrap();
        soon(served).await;
        assert_eq!(order.into_inner().unwrap(), (0..10).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn trying_takes_what_is_free_and_waits_for_nobody() {
    for place in places() {
        let deployment = place.open().await;
        let (ours, theirs) = (deployment.process("a").await, deployment.process("b").await);
        let lease = ours.try_acquire(STOCK).await.unwrap().expect("it is free");
        for busy in [&ours, &theirs] {
            assert!(busy.try_acquire(STOCK).await.unwrap().is_none());
        }
        let other = ours.try_acquire("stock 2").await.unwrap();
        assert!(other.is_some(), "one name does not lock another");
        lease.release().await.unwrap();
        assert!(theirs.try_acquire(STOCK).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn renewal_keeps_a_lease_and_its_token_for_as_long_as_it_is_held() {
    for place in places() {
        let deployment = place.open().await;
        let lease = acquire(&deployment.process("a").await).await;
        let other = deployment.process("b").await;
        let token = lease.token();
        for _ in 0..10 {
            let before = lease.stands_until();
            deployment.clock.advance_millis(LEASE_MILLIS / 3);
            renewal(&lease, before).await;
        }
        assert!(!lease.is_lost());
        assert!(other.try_acquire(STOCK).await.unwrap().is_none());
        assert_eq!(lease.token(), token);
        assert_eq!(deployment.resize(10, lease.fence()).await, Ok(()));
        assert_eq!(lease.release().await, Ok(()));
    }
}

#[tokio::test]
async fn a_holder_is_told_when_its_time_passed_without_renewal() {
    for place in places() {
        let deployment = place.open().await;
        let leases = deployment.process("a").await;
        let lease = acquire(&leases).await;
        assert!(lease.lost().now_or_never().is_none());
        deployment.clock.advance_millis(LEASE_MILLIS - 1);
        assert!(!lease.is_lost());
        // Renewed or not at the last moment: nothing ran since, and so it was not.
        deployment.clock.advance_millis(1);
        assert!(lease.is_lost(), "without waiting for anybody to say so");
        soon(lease.lost()).await;
        assert_eq!(lease.stands_until(), None);
        // The next of the same process need not wait until the loser lets go.
        let next = acquire(&leases).await;
        assert!(next.token() > lease.token());
        assert_eq!(lease.release().await, lost());
        assert!(
            !next.is_lost(),
            "a loser's release takes nothing from others"
        );
        assert_eq!(deployment.resize(10, next.fence()).await, Ok(()));
    }
}

#[tokio::test]
async fn a_paused_holder_cannot_write_once_another_holds_the_lease() {
    for place in places() {
        let deployment = place.open().await;
        // Time stands still for a process that is paused.
        let paused_clock = Clock::manual(deployment.clock.now());
        let paused = acquire(&deployment.process_with_clock("a", &paused_clock).await).await;
        assert_eq!(deployment.resize(10, paused.fence()).await, Ok(()));

        deployment.clock.advance_millis(LEASE_MILLIS);
        let holder = acquire(&deployment.process("b").await).await;
        assert!(!paused.is_lost(), "it cannot know");
        assert_eq!(deployment.resize(20, paused.fence()).await, fenced());
        assert_eq!(deployment.quantity().await, Some(10));
        assert_eq!(deployment.resize(30, holder.fence()).await, Ok(()));
        assert_eq!(deployment.quantity().await, Some(30));

        // It runs again, and its next renewal tells it, long before its own time is over.
        paused_clock.advance_millis(LEASE_MILLIS / 3);
        soon(paused.lost()).await;
        assert_eq!(paused.release().await, lost());
        assert_eq!(deployment.resize(40, holder.fence()).await, Ok(()));
    }
}

#[tokio::test]
async fn a_released_lease_protects_nothing_though_nobody_took_it_since() {
    for place in places() {
        let deployment = place.open().await;
        let leases = deployment.process("a").await;
        let lease = acquire(&leases).await;
        let fence = lease.fence();
        lease.release().await.unwrap();
        assert_eq!(deployment.resize(10, fence.clone()).await, fenced());
        let _again = acquire(&leases).await;
        assert_eq!(deployment.resize(10, fence).await, fenced());
        assert_eq!(deployment.quantity().await, None);
    }
}

#[tokio::test]
async fn the_token_grows_with_every_holding_also_of_the_same_holder() {
    for place in places() {
        let deployment = place.open().await;
        let mut last = 0;
        for holder in ["a", "a", "b", "a"] {
            let lease = acquire(&deployment.process(holder).await).await;
            assert!(lease.token() > last);
            last = lease.token();
            lease.release().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_release_wakes_who_waits_in_another_process_while_the_clock_stands() {
    for place in places() {
        let deployment = place.open().await;
        let fast_clock = Clock::manual(deployment.clock.now().plus_millis(LEASE_MILLIS / 2));
        let lease = acquire(&deployment.process_with_clock("a", &fast_clock).await).await;
        let waiting = queue_up(&deployment.process("b").await).await;
        lease.release().await.unwrap();
        let next = soon(waiting).await.unwrap();
        assert!(!next.is_lost());
    }
}

#[tokio::test]
async fn a_dropped_lease_is_released() {
    for place in places() {
        let deployment = place.open().await;
        let (ours, theirs) = (deployment.process("a").await, deployment.process("b").await);
        let lease = acquire(&ours).await;
        let fence = lease.fence();
        let (here, there) = (queue_up(&ours).await, queue_up(&theirs).await);
        drop(lease);
        let release_both = join_all([here, there].map(async |waiting| {
            let lease = waiting.await.unwrap();
            lease.release().await.unwrap();
        }));
        soon(release_both).await;
        assert_eq!(deployment.resize(10, fence).await, fenced());
    }
}

#[tokio::test]
async fn who_goes_away_while_waiting_leaves_the_queue_as_it_was() {
    for place in places() {
        let deployment = place.open().await;
        let leases = deployment.process("a").await;
        let holder = acquire(&leases).await;
        let mut queue = Vec::new();
        for _ in 0..4 {
            queue.push(queue_up(&leases).await);
        }
        let last = queue.pop().unwrap();
        let middle = queue.remove(1);
        drop(middle);
        holder.release().await.unwrap();
        // The first is handed the turn, and goes away without using it.
        drop(queue.remove(0));
        let lease = soon(queue.remove(0)).await.unwrap();
        lease.release().await.unwrap();
        soon(last).await.unwrap().release().await.unwrap();
    }
}

#[tokio::test]
async fn who_goes_away_while_taking_the_lease_does_not_keep_it() {
    for place in places() {
        let deployment = place.open().await;
        let leases = deployment.process("a").await;
        // The lease is free: its commit is under way when the future goes.
        drop(queue_up(&leases).await);
        let lease = acquire(&leases).await;
        assert!(lease.token() > 1, "it was taken, and released, before");
        assert_eq!(deployment.resize(10, lease.fence()).await, Ok(()));
    }
}

#[tokio::test]
async fn a_crowd_is_refused_rather_than_queued_without_end() {
    for place in places() {
        let deployment = place.open().await;
        let leases = deployment.process("a").await;
        let holder = acquire(&leases).await;
        let mut queue = Vec::new();
        for _ in 0..WAITERS_MAX {
            queue.push(queue_up(&leases).await);
        }
        let refused = soon(leases.acquire(STOCK)).await;
        let lease = STOCK.to_owned();
        assert_eq!(refused.unwrap_err(), Error::Crowded { lease });
        drop(queue.pop());
        queue.push(queue_up(&leases).await);
        drop(queue);
        holder.release().await.unwrap();
    }
}

#[test]
fn the_lease_of_a_crashed_process_stands_until_it_runs_out() {
    for place in places() {
        let crashed = crash_while_holding(&place);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let deployment = place.open().await;
            deployment.clock.advance_millis(LEASE_MILLIS - 1);
            // Also for a process of the same name: it may be another that still runs.
            for hasty in ["a", "b"] {
                let taken = deployment
                    .process(hasty)
                    .await
                    .try_acquire(STOCK)
                    .await
                    .unwrap();
                assert!(taken.is_none());
            }
            let waiting = queue_up(&deployment.process("a").await).await;
            deployment.clock.advance_millis(1);
            let lease = soon(waiting).await.unwrap();
            assert!(lease.token() > crashed.token);
            assert_eq!(deployment.resize(10, crashed.clone()).await, fenced());
            assert_eq!(deployment.resize(10, lease.fence()).await, Ok(()));
        });
    }
}

#[tokio::test]
async fn a_lease_that_redis_lost_goes_to_the_next_and_its_holder_cannot_write() {
    let settings = redis_place::settings();
    let place = Place {
        folder: TempDir::new().unwrap(),
        redis: Some(settings.clone()),
    };
    let deployment = place.open().await;
    let holder = acquire(&deployment.process("a").await).await;
    redis_place::empty(&settings).await;

    let next = acquire(&deployment.process("b").await).await;
    assert!(next.token() > holder.token(), "the store has counted on");
    assert_eq!(deployment.resize(10, holder.fence()).await, fenced());
    assert_eq!(deployment.resize(20, next.fence()).await, Ok(()));

    deployment.clock.advance_millis(LEASE_MILLIS / 3);
    soon(holder.lost()).await;
    assert_eq!(holder.release().await, lost());
    assert!(
        !next.is_lost(),
        "a loser's release takes nothing from others"
    );
}

/// A process whose tasks end where they stand.
fn crash_while_holding(place: &Place) -> Fence {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let lease = runtime.block_on(async {
        let deployment = place.open().await;
        acquire(&deployment.process("a").await).await
    });
    drop(runtime);
    assert!(!lease.is_lost(), "by the clock it stands");
    assert_eq!(lease.lost().now_or_never(), Some(()), "nobody can renew it");
    lease.fence()
}

//! One contract for leases in every store: one holder at a time, which learns of its loss, and is fenced. And for leaders:
//! one process works, and another takes over.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use common::{
    Account, Place,
    line::{Cut, Line},
    places, postgres, start, tables, within,
};
use futures::{FutureExt, future::join_all, poll};
use messaging::{
    Clock, Commit, CommitError, Fence, Leader, LeaseManager, Metrics, Postgres, PostgresSettings,
    Shutdown, ShutdownSwitch, Store, Timestamp,
    lease::{Error, Lease, LeaseRecord},
    periodic,
};
use tokio::sync::mpsc;

const LEASE_MILLIS: i64 = 9_000;
/// Between two tries of a leader.
const RETRY_MILLIS: i64 = LEASE_MILLIS / 10;
const NAME: &str = "account 1";

/// What is protected, and the clock on the wall.
struct Deployment {
    store: Store,
    clock: Clock,
}

impl Deployment {
    async fn open(place: &Place) -> Self {
        Self {
            store: place.open().await,
            clock: Clock::manual(start()),
        }
    }

    fn process(&self, holder: &str) -> LeaseManager {
        self.process_with_clock(holder, &self.clock)
    }

    fn process_with_clock(&self, holder: &str, clock: &Clock) -> LeaseManager {
        let (store, clock) = (self.store.clone(), clock.clone());
        LeaseManager::new(store, clock, holder.to_owned(), LEASE_MILLIS)
    }

    /// What only the holder may do.
    async fn write(&self, balance: i64, fence: Fence) -> Result<(), CommitError> {
        let known: Option<Account> = self.store.load(1).await.unwrap();
        let account = known.unwrap_or_else(|| Account::new(1, 0));
        let mut commit = Commit::new();
        commit.put(&account.with_balance(balance)).fenced_by(fence);
        self.store.commit(commit).await
    }

    async fn balance(&self) -> Option<i64> {
        let known: Option<Account> = self.store.load(1).await.unwrap();
        known.map(|known| known.balance)
    }
}

fn fenced() -> Result<(), CommitError> {
    Err(CommitError::Fenced { lease: NAME.into() })
}

fn lost() -> Result<(), Error> {
    Err(Error::Lost { lease: NAME.into() })
}

/// Takes the lease when it is free.
async fn acquire(leases: &LeaseManager) -> Lease {
    let acquired = async {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        loop {
            if let Some(lease) = leases.try_acquire(NAME).await.unwrap() {
                return lease;
            }
            look.tick().await;
        }
    };
    within("a lease is taken", acquired).await
}

async fn is_free(leases: &LeaseManager) -> bool {
    leases.try_acquire(NAME).await.unwrap().is_some()
}

/// Until the lease stands longer than it did.
async fn renewal(lease: &Lease, before: Option<Timestamp>) {
    let renewed = async {
        while lease.stands_until() == before {
            tokio::task::yield_now().await;
        }
    };
    within("a lease is renewed", renewed).await;
    assert!(lease.stands_until() > before);
}

// ---- holders

#[tokio::test(flavor = "multi_thread")]
async fn one_holder_at_a_time_among_fifty_tasks_of_two_processes() {
    for place in places() {
        let deployment = Deployment::open(&place).await;
        let processes = [deployment.process("a"), deployment.process("b")];
        let counter = Arc::new(AtomicI64::new(0));
        let tasks = (0..50).map(|task| {
            let (leases, counter) = (processes[task % 2].clone(), Arc::clone(&counter));
            tokio::spawn(async move {
                let lease = acquire(&leases).await;
                // Two holders at once would lose updates here.
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
async fn a_lease_that_is_held_is_refused_and_one_that_is_free_is_taken() {
    for place in places() {
        let deployment = Deployment::open(&place).await;
        let (ours, theirs) = (deployment.process("a"), deployment.process("b"));
        let lease = acquire(&ours).await;
        assert!(!is_free(&ours).await && !is_free(&theirs).await);
        let other = ours.try_acquire("account 2").await.unwrap();
        assert!(other.is_some(), "one name does not lock another");
        lease.release().await.unwrap();
        assert!(is_free(&theirs).await);
    }
}

#[tokio::test]
async fn renewal_keeps_a_lease_and_its_token_for_as_long_as_it_is_held() {
    for place in places() {
        let deployment = Deployment::open(&place).await;
        let lease = acquire(&deployment.process("a")).await;
        let token = lease.token();
        for _ in 0..10 {
            let before = lease.stands_until();
            deployment.clock.advance_millis(LEASE_MILLIS / 3);
            renewal(&lease, before).await;
        }
        assert!(!lease.is_lost());
        assert!(!is_free(&deployment.process("b")).await);
        assert_eq!(lease.token(), token);
        assert_eq!(deployment.write(10, lease.fence()).await, Ok(()));
        assert_eq!(lease.release().await, Ok(()));
    }
}

#[tokio::test]
async fn a_holder_learns_that_its_time_passed_without_renewal() {
    for place in places() {
        let deployment = Deployment::open(&place).await;
        let leases = deployment.process("a");
        let lease = acquire(&leases).await;
        assert!(lease.lost().now_or_never().is_none());
        deployment.clock.advance_millis(LEASE_MILLIS - 1);
        assert!(!lease.is_lost());
        // No renewal is possible in between, because nothing ran.
        deployment.clock.advance_millis(1);
        assert!(lease.is_lost(), "by the clock alone");
        within("the loss is noticed", lease.lost()).await;
        assert_eq!(lease.stands_until(), None);
        let next = acquire(&leases).await;
        assert!(next.token() > lease.token());
        assert_eq!(lease.release().await, lost());
        assert!(
            !next.is_lost(),
            "a loser's release takes nothing from others"
        );
        assert_eq!(deployment.write(10, next.fence()).await, Ok(()));
    }
}

#[tokio::test]
async fn a_paused_holder_cannot_write_once_another_holds_the_lease() {
    for place in places() {
        let deployment = Deployment::open(&place).await;
        // Time stands still for a process that is paused.
        let paused_clock = Clock::manual(deployment.clock.now());
        let paused = acquire(&deployment.process_with_clock("a", &paused_clock)).await;
        assert_eq!(deployment.write(10, paused.fence()).await, Ok(()));

        deployment.clock.advance_millis(LEASE_MILLIS);
        let holder = acquire(&deployment.process("b")).await;
        assert!(!paused.is_lost(), "it cannot know");
        assert_eq!(deployment.write(20, paused.fence()).await, fenced());
        assert_eq!(deployment.balance().await, Some(10));
        assert_eq!(deployment.write(30, holder.fence()).await, Ok(()));
        assert_eq!(deployment.balance().await, Some(30));

        // It runs again, and its next renewal fails, long before its own time is over.
        paused_clock.advance_millis(LEASE_MILLIS / 3);
        within("the loss is noticed", paused.lost()).await;
        assert_eq!(paused.release().await, lost());
        assert_eq!(deployment.write(40, holder.fence()).await, Ok(()));
    }
}

#[tokio::test]
async fn a_released_lease_protects_nothing_though_nobody_took_it_since() {
    for place in places() {
        let deployment = Deployment::open(&place).await;
        let leases = deployment.process("a");
        let lease = acquire(&leases).await;
        let fence = lease.fence();
        lease.release().await.unwrap();
        assert_eq!(deployment.write(10, fence.clone()).await, fenced());
        let _again = acquire(&leases).await;
        assert_eq!(deployment.write(10, fence).await, fenced());
        assert_eq!(deployment.balance().await, None);
    }
}

#[tokio::test]
async fn the_token_grows_with_every_holding_also_of_the_same_holder() {
    for place in places() {
        let deployment = Deployment::open(&place).await;
        let mut last = 0;
        for holder in ["a", "a", "b", "a"] {
            let lease = acquire(&deployment.process(holder)).await;
            assert!(lease.token() > last);
            last = lease.token();
            lease.release().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_dropped_lease_is_released() {
    for place in places() {
        let deployment = Deployment::open(&place).await;
        let lease = acquire(&deployment.process("a")).await;
        let fence = lease.fence();
        drop(lease);
        // The clock stands still, so it does not expire.
        let next = acquire(&deployment.process("b")).await;
        assert_eq!(deployment.write(10, fence).await, fenced());
        assert_eq!(deployment.write(20, next.fence()).await, Ok(()));
    }
}

#[tokio::test]
async fn a_caller_that_is_dropped_while_it_takes_the_lease_does_not_keep_it() {
    for place in places() {
        let deployment = Deployment::open(&place).await;
        let leases = deployment.process("a");
        let mut committed = deployment.store.committed();
        {
            // Its task takes the lease after the future is dropped.
            let mut taking = leases.try_acquire(NAME).boxed();
            assert!(poll!(&mut taking).is_pending());
        }
        within("the lease is taken", committed.changed())
            .await
            .unwrap();
        let lease = acquire(&leases).await;
        assert!(lease.token() > 1, "it was taken before, and released");
        assert_eq!(deployment.write(10, lease.fence()).await, Ok(()));
    }
}

#[test]
fn the_lease_of_a_crashed_process_stands_until_it_expires() {
    for place in places() {
        let crashed = crash_while_holding(&place);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let deployment = Deployment::open(&place).await;
            deployment.clock.advance_millis(LEASE_MILLIS - 1);
            // Also for a process of the same name: it may be another that still runs.
            for hasty in ["a", "b"] {
                assert!(!is_free(&deployment.process(hasty)).await);
            }
            deployment.clock.advance_millis(1);
            let lease = acquire(&deployment.process("a")).await;
            assert!(lease.token() > crashed.token);
            assert_eq!(deployment.write(10, crashed.clone()).await, fenced());
            assert_eq!(deployment.write(10, lease.fence()).await, Ok(()));
        });
    }
}

/// A process whose tasks end where they stand.
fn crash_while_holding(place: &Place) -> Fence {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let lease = runtime.block_on(async {
        let deployment = Deployment::open(place).await;
        acquire(&deployment.process("a")).await
    });
    drop(runtime);
    assert!(!lease.is_lost(), "by the clock it stands");
    assert_eq!(lease.lost().now_or_never(), Some(()), "nobody can renew it");
    lease.fence()
}

#[tokio::test]
async fn a_lease_from_before_the_clock_was_set_back_is_taken_at_once() {
    for place in places() {
        let deployment = Deployment::open(&place).await;
        let fast_clock = Clock::manual(deployment.clock.now().plus_millis(1_200_000));
        let ahead = acquire(&deployment.process_with_clock("a", &fast_clock)).await;
        let holder = acquire(&deployment.process("b")).await;
        assert_eq!(deployment.write(10, ahead.fence()).await, fenced());
        assert_eq!(deployment.write(20, holder.fence()).await, Ok(()));
        fast_clock.advance_millis(LEASE_MILLIS / 3);
        within("the loss is noticed", ahead.lost()).await;
    }
}

#[tokio::test]
async fn a_lease_is_stored_as_the_program_of_before_writes_and_reads_it() {
    for place in places() {
        let deployment = Deployment::open(&place).await;
        let (store, clock) = (&deployment.store, &deployment.clock);
        let mut before = Commit::new();
        before.put(&LeaseRecord {
            name: NAME.to_owned(),
            holder: "process 1".to_owned(),
            token: 7,
            expires_at: start().plus_millis(LEASE_MILLIS),
            version: 0,
        });
        store.commit(before).await.unwrap();
        let ours = deployment.process("process 2");
        assert!(!is_free(&ours).await);

        clock.advance_millis(LEASE_MILLIS);
        let lease = acquire(&ours).await;
        let mut expected = LeaseRecord {
            name: NAME.to_owned(),
            holder: "process 2".to_owned(),
            token: 8,
            expires_at: clock.now().plus_millis(LEASE_MILLIS),
            version: 2,
        };
        let stored: Option<LeaseRecord> = store.load(NAME).await.unwrap();
        assert_eq!(stored.as_ref(), Some(&expected));
        lease.release().await.unwrap();
        let stored: Option<LeaseRecord> = store.load(NAME).await.unwrap();
        (expected.token, expected.version) = (9, 3);
        expected.expires_at = Timestamp::from_millis(0);
        assert_eq!(stored, Some(expected));
    }
}

// ---- leaders

#[derive(Debug, PartialEq, Eq)]
enum Event {
    Began(Fence),
    Ended,
}

/// A process that leads when it can.
struct Candidate {
    switch: ShutdownSwitch,
    running: tokio::task::JoinHandle<()>,
    events: mpsc::UnboundedReceiver<Event>,
}

impl Candidate {
    fn start(leases: LeaseManager, clock: &Clock) -> Self {
        let (switch, shutdown) = ShutdownSwitch::new();
        let (tell, events) = mpsc::unbounded_channel();
        let work = move |fence, mut stop: Shutdown| {
            let tell = tell.clone();
            async move {
                tell.send(Event::Began(fence)).unwrap();
                stop.requested().await;
                tell.send(Event::Ended).unwrap();
            }
        };
        let leader = Leader::new(leases, NAME, shutdown.clone(), work);
        let running = tokio::spawn(periodic::run(leader, clock.clone(), shutdown));
        Self {
            switch,
            running,
            events,
        }
    }

    async fn began(&mut self) -> Fence {
        match within("work begins", self.events.recv()).await.unwrap() {
            Event::Began(fence) => fence,
            Event::Ended => panic!("it has not begun"),
        }
    }

    async fn ended(&mut self) {
        let event = within("work ends", self.events.recv()).await;
        assert_eq!(event, Some(Event::Ended));
    }

    fn is_idle(&mut self) -> bool {
        self.events.try_recv().is_err()
    }

    async fn stop(self) {
        self.switch.stop();
        within("a process stops", self.running).await.unwrap();
    }
}

#[tokio::test]
async fn one_of_two_processes_works_and_the_other_takes_over_when_it_stops() {
    for place in places() {
        let deployment = Deployment::open(&place).await;
        let mut first = Candidate::start(deployment.process("a"), &deployment.clock);
        let fence = first.began().await;
        let mut second = Candidate::start(deployment.process("b"), &deployment.clock);
        for _ in 0..30 {
            deployment.clock.advance_millis(RETRY_MILLIS / 2);
            assert_eq!(deployment.write(10, fence.clone()).await, Ok(()));
            assert!(second.is_idle());
        }

        first.stop().await;
        assert_eq!(deployment.write(20, fence).await, fenced());
        deployment.clock.advance_millis(RETRY_MILLIS);
        let fence = second.began().await;
        assert_eq!(deployment.write(30, fence).await, Ok(()));
        second.stop().await;
    }
}

#[tokio::test]
async fn a_leader_that_dies_is_replaced_when_its_lease_expires() {
    for place in places() {
        let deployment = Deployment::open(&place).await;
        // The clock of a dead process stands still, and it renews nothing.
        let dead = Clock::manual(start());
        let lease = acquire(&deployment.process_with_clock("a", &dead)).await;
        let crashed = lease.fence();
        let mut second = Candidate::start(deployment.process("b"), &deployment.clock);
        while deployment.clock.now() < start().plus_millis(LEASE_MILLIS - 1) {
            assert!(second.is_idle());
            assert_eq!(deployment.write(10, crashed.clone()).await, Ok(()));
            deployment.clock.advance_millis(LEASE_MILLIS / 9 - 1);
        }
        deployment.clock.advance_millis(RETRY_MILLIS);
        second.began().await;
        assert_eq!(deployment.write(20, crashed).await, fenced());
        second.stop().await;
    }
}

#[tokio::test]
async fn a_leader_that_was_paused_past_its_lease_stops_its_work_and_waits_for_its_turn() {
    for place in places() {
        let deployment = Deployment::open(&place).await;
        let paused_clock = Clock::manual(deployment.clock.now());
        let paused = deployment.process_with_clock("a", &paused_clock);
        let mut paused = Candidate::start(paused, &paused_clock);
        let stale = paused.began().await;
        deployment.clock.advance_millis(LEASE_MILLIS);
        let mut second = Candidate::start(deployment.process("b"), &deployment.clock);
        let fence = second.began().await;
        assert_eq!(deployment.write(10, stale).await, fenced());

        paused_clock.advance_millis(LEASE_MILLIS);
        paused.ended().await;
        assert!(paused.is_idle());
        assert_eq!(deployment.write(20, fence).await, Ok(()));

        second.stop().await;
        paused_clock.advance_millis(RETRY_MILLIS);
        paused.began().await;
        paused.stop().await;
    }
}

#[tokio::test]
async fn a_leader_whose_clock_jumps_past_its_lease_leads_again_with_another_fence() {
    for place in places() {
        let deployment = Deployment::open(&place).await;
        let mut only = Candidate::start(deployment.process("a"), &deployment.clock);
        let stale = only.began().await;
        deployment.clock.advance_millis(3_600_000);
        only.ended().await;
        let fence = only.began().await;
        assert_eq!(deployment.write(10, stale).await, fenced());
        assert_eq!(deployment.write(20, fence).await, Ok(()));
        only.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_its_store_stops_its_work_in_time_and_leads_again_when_it_is_back() {
    let (schema, line) = (postgres::Schema::new(), Line::lay(postgres::url()).await);
    let tables = tables();
    Postgres::migrate(&schema.settings, &tables).await.unwrap();
    let settings = PostgresSettings {
        url: line.url.clone(),
        ..schema.settings.clone()
    };
    let opened = Store::open_postgres(&settings, &tables, Metrics::unregistered()).await;
    let (store, clock) = (opened.unwrap(), Clock::System);
    let leases = LeaseManager::new(store.clone(), clock.clone(), "a".to_owned(), 1_500);
    let mut only = Candidate::start(leases, &clock);
    let stale = only.began().await;
    // The next renewal does not arrive.
    line.cut_for_long(Cut::BeforeCommit);
    only.ended().await;
    assert!(line.was_cut());
    line.mend();
    let fence = only.began().await;
    assert!(fence.token > stale.token);
    let deployment = Deployment { store, clock };
    assert_eq!(deployment.write(10, stale).await, fenced());
    assert_eq!(deployment.write(20, fence).await, Ok(()));
    only.stop().await;
}

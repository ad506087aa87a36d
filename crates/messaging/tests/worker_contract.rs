//! What the worker promises on every store and bus; each test runs on every backend.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU32, Ordering},
};

use common::{
    Account, Deposit, Movement, Place, REFUSED_KEY, Teller, account, balance, bus_places, context,
    deposit, drain, eventually, movement, movements, noise, places, publish, read_all, start,
    store_all, teller,
};
use futures::future::BoxFuture;
use messaging::{
    Clock, Commit, Consumer, Decision, Entry, Group, Message, Metrics, Payload, Record, Records,
    Ref, Rejection, ShutdownSwitch, Store, StoreError, Submission, Timestamp, Worker,
    WorkerContext,
    dead_letters::DeadLetter,
    dead_letters::{self, DeadLetterConsumer, DeadLetterRecord, DeadLetterState},
    housekeeping::{CleaningSettings, Housekeeping, RowRetention},
    timers::Timers,
};

/// A store with a context around it.
struct Given {
    store: Store,
    context: WorkerContext,
    metrics: Arc<Metrics>,
    clock: Clock,
}

async fn given(place: &Place) -> Given {
    let metrics = Metrics::unregistered();
    let store = place.open_with(Arc::clone(&metrics)).await;
    let clock = Clock::manual(start());
    let context = context(&store, &metrics, &clock);
    Given {
        store,
        context,
        metrics,
        clock,
    }
}

impl Given {
    fn timers(&self) -> Timers {
        Timers {
            store: self.store.clone(),
            clock: self.clock.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }

    fn dead_letters(&self) -> Worker<DeadLetterConsumer> {
        Worker::new(DeadLetterConsumer::default(), self.context.clone()).unwrap()
    }

    fn housekeeping(&self, groups: Vec<&'static str>) -> Housekeeping {
        Housekeeping {
            store: self.store.clone(),
            clock: self.clock.clone(),
            groups,
            settings: CleaningSettings {
                inbox_retention_secs: 60,
            },
            retentions: Vec::new(),
        }
    }

    async fn letters(&self) -> Vec<DeadLetterRecord> {
        dead_letters::list(&self.store, None, None, 100)
            .await
            .unwrap()
    }

    /// Ten seconds pass: what is due is sent again and handled, and its outcome is written down.
    async fn next_reissue(&self, teller: &mut Worker<impl Consumer>) {
        self.clock.advance_millis(10_000);
        self.timers().fire_due().await.unwrap();
        drain(teller).await;
        drain(&mut self.dead_letters()).await;
    }
}

// ---- once

#[tokio::test]
async fn a_duplicate_is_dropped_in_a_batch_across_batches_and_after_opening_again() {
    for place in bus_places() {
        let given = given(&place).await;
        store_all(&given.store, &[Account::new(1, 0)]).await;
        let mut worker = teller(&given.context);
        publish(&given.store, [deposit("a", 1, 5), deposit("a", 1, 5)]).await;
        drain(&mut worker).await;
        publish(&given.store, [deposit("a", 1, 5)]).await;
        drain(&mut worker).await;
        assert_eq!(balance(&given.store, 1).await, 5);
        drop((worker, given));

        let given = self::given(&place).await;
        publish(&given.store, [deposit("a", 1, 5), deposit("b", 1, 2)]).await;
        drain(&mut teller(&given.context)).await;
        assert_eq!(balance(&given.store, 1).await, 7);
        assert_eq!(movements(&given.store).await.len(), 2);
    }
}

#[tokio::test]
async fn every_group_handles_every_message_once() {
    for place in bus_places() {
        let given = given(&place).await;
        store_all(&given.store, &[Account::new(1, 0)]).await;
        publish(
            &given.store,
            (0..300).map(|n| deposit(&n.to_string(), 1, 1)),
        )
        .await;
        for group in ["one", "two"] {
            let mut worker = Worker::new(Teller { group }, given.context.clone()).unwrap();
            assert_eq!(drain(&mut worker).await, 300);
        }
        assert_eq!(balance(&given.store, 1).await, 600);
    }
}

#[tokio::test]
async fn a_dropped_step_loses_and_doubles_nothing() {
    for place in bus_places() {
        let given = given(&place).await;
        store_all(&given.store, &[Account::new(1, 0)]).await;
        let mut worker = teller(&given.context);
        for number in 0..20 {
            publish(&given.store, [deposit(&number.to_string(), 1, 1)]).await;
            // Dropped where it waits for its commit, unless that is there already.
            let mut step = Box::pin(worker.step());
            let _ = futures::poll!(step.as_mut());
            drop(step);
        }
        drain(&mut worker).await;
        assert_eq!(balance(&given.store, 1).await, 20);
        assert_eq!(movements(&given.store).await.len(), 20);
    }
}

/// Cannot reach what it asks, twice.
struct Unlucky {
    failures: AtomicU32,
}

impl Consumer for Unlucky {
    type Input = Deposit;
    type Prefetched = ();
    type Outcome = ();
    fn group(&self) -> Group {
        Group::new("teller", &[Deposit::TOPIC])
    }
    fn read(&self, message: &Message) -> Result<Deposit, Rejection> {
        message.parse()
    }
    fn required_records(&self, deposit: &Deposit) -> Vec<Ref> {
        Teller { group: "teller" }.required_records(deposit)
    }
    fn prefetch<'a>(&'a self, _: Vec<&'a Deposit>) -> BoxFuture<'a, Result<(), StoreError>> {
        let fails = self.failures.fetch_add(1, Ordering::Relaxed) < 2;
        let answer = if fails {
            Err(StoreError::Unavailable("away".to_owned()))
        } else {
            Ok(())
        };
        Box::pin(async { answer })
    }
    fn decide(
        &self,
        message: &Message,
        deposit: &Deposit,
        records: &Records,
        prefetched: &(),
        now: Timestamp,
    ) -> Result<Decision, Rejection> {
        Teller { group: "teller" }.decide(message, deposit, records, prefetched, now)
    }
}

#[tokio::test]
async fn a_transient_failure_loses_and_doubles_nothing() {
    for place in bus_places() {
        let given = given(&place).await;
        store_all(&given.store, &[Account::new(1, 0)]).await;
        publish(&given.store, (0..10).map(|n| deposit(&n.to_string(), 1, 1))).await;
        let failures = AtomicU32::new(0);
        let mut worker = Worker::new(Unlucky { failures }, given.context.clone()).unwrap();
        assert_eq!(drain(&mut worker).await, 10);
        assert_eq!(balance(&given.store, 1).await, 10);
        assert_eq!(read_all(&given.store, "x", &[DeadLetter::TOPIC]).await, []);
    }
}

// ---- batches

#[tokio::test]
async fn the_number_of_statements_does_not_depend_on_the_number_of_messages() {
    for place in places() {
        let given = given(&place).await;
        let accounts: Vec<_> = (0..100).map(|id| Account::new(id, 0)).collect();
        store_all(&given.store, &accounts).await;
        let mut worker = teller(&given.context);
        let mut statements = Vec::new();
        for size in [1_i64, 100] {
            publish(
                &given.store,
                (0..size).map(|n| deposit(&format!("{size} {n}"), n, 1)),
            )
            .await;
            let before = given.metrics.store_statements.get();
            assert_eq!(worker.step().await, Ok(usize::try_from(size).unwrap()));
            statements.push(given.metrics.store_statements.get() - before);
        }
        assert_eq!(statements, [2, 2]);
    }
}

#[tokio::test]
async fn an_idle_group_has_no_lag() {
    for place in bus_places() {
        let given = given(&place).await;
        let mut worker = teller(&given.context);
        publish(&given.store, (0..5).map(noise)).await;
        assert_eq!(worker.step().await, Ok(0));
        let label = messaging::metrics::GroupLabel { group: "teller" };
        assert_eq!(given.metrics.lag.get_or_create(&label).get(), 0);
    }
}

// ---- conflicts

/// Lets another writer change the account between loading and committing, as often as it says.
struct Disturbed {
    store: Store,
    times: AtomicU32,
    /// How often it came through.
    disturbed: Arc<AtomicI64>,
}

fn disturbed(given: &Given, times: u32) -> (Worker<Disturbed>, Arc<AtomicI64>) {
    let disturbed = Arc::<AtomicI64>::default();
    let consumer = Disturbed {
        store: given.store.clone(),
        times: AtomicU32::new(times),
        disturbed: Arc::clone(&disturbed),
    };
    (
        Worker::new(consumer, given.context.clone()).unwrap(),
        disturbed,
    )
}

impl Consumer for Disturbed {
    type Input = Deposit;
    type Prefetched = ();
    type Outcome = ();
    fn group(&self) -> Group {
        Group::new("teller", &[Deposit::TOPIC])
    }
    fn read(&self, message: &Message) -> Result<Deposit, Rejection> {
        message.parse()
    }
    fn required_records(&self, deposit: &Deposit) -> Vec<Ref> {
        Teller { group: "teller" }.required_records(deposit)
    }
    fn prefetch<'a>(&'a self, _: Vec<&'a Deposit>) -> BoxFuture<'a, Result<(), StoreError>> {
        Box::pin(async {
            if self.times.load(Ordering::Relaxed) > 0 {
                self.times.fetch_sub(1, Ordering::Relaxed);
                let found = account(&self.store, 1).await;
                let mut commit = Commit::new();
                commit.put(&found.with_balance(found.balance + 1000));
                let outcome = self.store.commit(commit).await;
                self.disturbed
                    .fetch_add(i64::from(outcome.is_ok()), Ordering::Relaxed);
            }
            Ok(())
        })
    }
    fn decide(
        &self,
        message: &Message,
        deposit: &Deposit,
        records: &Records,
        prefetched: &(),
        now: Timestamp,
    ) -> Result<Decision, Rejection> {
        Teller { group: "teller" }.decide(message, deposit, records, prefetched, now)
    }
}

#[tokio::test]
async fn a_decision_upon_a_state_that_never_was_is_taken_again() {
    for place in bus_places() {
        let given = given(&place).await;
        store_all(&given.store, &[Account::new(1, 0), Account::new(2, 0)]).await;
        let messages = (0..30).map(|n| deposit(&n.to_string(), 1 + n % 2, 1));
        publish(&given.store, messages).await;
        let (mut worker, _) = disturbed(&given, 3);
        drain(&mut worker).await;
        assert_eq!(balance(&given.store, 1).await, 3015);
        assert_eq!(balance(&given.store, 2).await, 15);
        assert_eq!(movements(&given.store).await.len(), 30);
    }
}

/// Puts a record that it never looks at, so that its commit conflicts for ever.
struct Blind;

impl Consumer for Blind {
    type Input = Deposit;
    type Prefetched = ();
    type Outcome = ();
    fn group(&self) -> Group {
        Group::new("blind", &[Deposit::TOPIC])
    }
    fn read(&self, message: &Message) -> Result<Deposit, Rejection> {
        message.parse()
    }
    fn required_records(&self, _: &Deposit) -> Vec<Ref> {
        Vec::new()
    }
    fn decide(
        &self,
        _message: &Message,
        deposit: &Deposit,
        _: &Records,
        (): &(),
        _: Timestamp,
    ) -> Result<Decision, Rejection> {
        let mut commit = Commit::new();
        commit.put(&Account::new(deposit.account, deposit.amount));
        Ok(commit.into())
    }
}

#[tokio::test]
async fn a_message_that_would_conflict_for_ever_delays_no_other() {
    for place in bus_places() {
        let given = given(&place).await;
        store_all(&given.store, &[Account::new(1, 0)]).await;
        publish(&given.store, [deposit("a", 1, 5), deposit("b", 2, 5)]).await;
        let mut worker = Worker::new(Blind, given.context.clone()).unwrap();
        assert_eq!(drain(&mut worker).await, 2);
        assert_eq!(balance(&given.store, 1).await, 0);
        assert_eq!(balance(&given.store, 2).await, 5);
        drain(&mut given.dead_letters()).await;
        let letters = given.letters().await;
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].letter.message_id, "a");
    }
}

// ---- dead letters

#[tokio::test]
async fn a_poisoned_message_becomes_a_dead_letter_and_the_others_go_on() {
    for place in bus_places() {
        let given = given(&place).await;
        store_all(&given.store, &[Account::new(1, 10)]).await;
        let unreadable = Message {
            payload: "{".to_owned(),
            ..deposit("unreadable", 1, 1)
        };
        // "overdrawn" breaks the CHECK of its table; the one behind it has to be decided again.
        let overdrawn = deposit("overdrawn", 1, -100);
        let missing = deposit("missing", 9, 1);
        publish(
            &given.store,
            [
                unreadable,
                deposit("a", 1, 1),
                overdrawn,
                missing,
                deposit("b", 1, 2),
            ],
        )
        .await;
        assert_eq!(drain(&mut teller(&given.context)).await, 5);
        drain(&mut given.dead_letters()).await;
        assert_eq!(balance(&given.store, 1).await, 13);
        let mut buried: Vec<_> = given
            .letters()
            .await
            .into_iter()
            .map(|record| record.letter.message_id)
            .collect();
        buried.sort();
        assert_eq!(buried, ["missing", "overdrawn", "unreadable"]);
    }
}

#[tokio::test]
async fn a_timer_that_was_set_before_the_clock_was_set_back_fires_at_the_next_start() {
    for place in bus_places() {
        let given = given(&place).await;
        let mut commit = Commit::new();
        let minute = start().plus_secs(60);
        commit
            .set_timer("soon".to_owned(), minute, deposit("soon", 1, 5))
            .set_timer(
                "misdated".to_owned(),
                minute.plus_secs(1_200),
                deposit("misdated", 1, 5),
            );
        given.store.commit(commit).await.unwrap();
        assert_eq!(given.timers().fire_due().await, Ok(0));

        assert_eq!(given.timers().fire_misdated().await, Ok(1));
        assert_eq!(given.timers().fire_misdated().await, Ok(0));
        let published = read_all(&given.store, "another", &[Deposit::TOPIC]).await;
        let ids: Vec<_> = published.iter().map(|it| it.id.as_str()).collect();
        assert_eq!(ids, ["misdated"], "the other one waits for its time");
        let left = given.store.timers_beyond(start(), 10).await.unwrap();
        assert_eq!(left.len(), 1);
    }
}

#[tokio::test]
async fn a_dead_letter_goes_back_on_schedule_to_its_group_alone_and_is_resolved() {
    for place in bus_places() {
        let given = given(&place).await;
        store_all(&given.store, &[Account::new(2, 0)]).await;
        publish(&given.store, [deposit("a", 1, 5)]).await;
        let mut worker = teller(&given.context);
        drain(&mut worker).await;
        drain(&mut given.dead_letters()).await;
        given.clock.advance_millis(9_999);
        assert_eq!(given.timers().fire_due().await, Ok(0));

        store_all(&given.store, &[Account::new(1, 0)]).await;
        given.next_reissue(&mut worker).await;
        assert_eq!(balance(&given.store, 1).await, 5);
        assert_eq!(given.letters().await[0].state, DeadLetterState::Resolved);
        let seen_by_others = read_all(&given.store, "another", &[Deposit::TOPIC]).await;
        assert_eq!(seen_by_others.len(), 1);
        assert_eq!(seen_by_others[0].id, "a");
    }
}

#[tokio::test]
async fn a_dead_letter_is_parked_after_its_last_retry_and_replayed_by_a_person() {
    for place in bus_places() {
        let given = given(&place).await;
        publish(&given.store, [deposit("a", 1, 5)]).await;
        let mut worker = teller(&given.context);
        drain(&mut worker).await;
        drain(&mut given.dead_letters()).await;
        for retry in 1..=3 {
            assert_eq!(given.letters().await[0].state, DeadLetterState::Waiting);
            given.next_reissue(&mut worker).await;
            assert_eq!(given.letters().await[0].letter.retry_count, retry);
        }
        let parked = given.letters().await.remove(0);
        assert_eq!(parked.state, DeadLetterState::Parked);
        given.clock.advance_millis(100_000);
        assert_eq!(given.timers().fire_due().await, Ok(0));

        store_all(&given.store, &[Account::new(1, 0)]).await;
        // A person clicks twice.
        for _ in 0..2 {
            dead_letters::replay(&given.store, parked.id, start())
                .await
                .unwrap();
        }
        drain(&mut worker).await;
        drain(&mut given.dead_letters()).await;
        assert_eq!(balance(&given.store, 1).await, 5);
        assert_eq!(given.letters().await[0].state, DeadLetterState::Resolved);
        let again = dead_letters::replay(&given.store, parked.id, start()).await;
        assert!(matches!(again, Err(dead_letters::Error::WrongState { .. })));
    }
}

#[tokio::test]
async fn a_discarded_dead_letter_stays_discarded() {
    for place in bus_places() {
        let given = given(&place).await;
        publish(&given.store, [deposit("a", 1, 5)]).await;
        let mut worker = teller(&given.context);
        drain(&mut worker).await;
        drain(&mut given.dead_letters()).await;
        // It is on its way when the person decides.
        given.clock.advance_millis(10_000);
        assert_eq!(given.timers().fire_due().await, Ok(1));
        let id = given.letters().await[0].id;
        dead_letters::discard(&given.store, id, start())
            .await
            .unwrap();
        drain(&mut worker).await;
        drain(&mut given.dead_letters()).await;
        assert_eq!(given.letters().await[0].state, DeadLetterState::Discarded);
        given.clock.advance_millis(100_000);
        assert_eq!(given.timers().fire_due().await, Ok(0));
    }
}

// ---- timers

#[tokio::test]
async fn a_timer_is_replaced_cancelled_and_fires_once() {
    for place in bus_places() {
        let given = given(&place).await;
        let at = |millis| start().plus_millis(millis);
        let mut commit = Commit::new();
        commit
            .set_timer("replaced", at(10), noise(1))
            .set_timer("replaced", at(20), noise(2))
            .set_timer("cancelled", at(10), noise(3))
            .cancel_timer("cancelled");
        given.store.commit(commit).await.unwrap();
        given.clock.advance_millis(19);
        assert_eq!(given.timers().fire_due().await, Ok(0));
        given.clock.advance_millis(1);
        assert_eq!(given.timers().fire_due().await, Ok(1));
        assert_eq!(given.timers().fire_due().await, Ok(0));
        let fired = read_all(&given.store, "x", &["noise"]).await;
        assert_eq!(fired.len(), 1);
        assert_eq!((fired[0].id.as_str(), fired[0].time), ("noise 2", at(20)));
        assert_eq!(given.metrics.timers_fired.get(), 1);
    }
}

#[tokio::test]
async fn a_timer_replaced_for_the_same_instant_fires_as_what_it_is_now() {
    for place in bus_places() {
        let given = given(&place).await;
        let set = |number| {
            let mut commit = Commit::new();
            commit.set_timer("saga", start(), noise(number));
            commit
        };
        given.store.commit(set(1)).await.unwrap();
        let due = given.store.due_timers(start(), 10).await.unwrap().remove(0);
        given.store.commit(set(2)).await.unwrap();
        let mut fire = Commit::new();
        fire.timers.push(messaging::commit::TimerChange::Fire {
            id: due.id,
            due_at: due.due_at,
            message_id: due.message.id.clone(),
            message: due.message,
        });
        given.store.commit(fire).await.unwrap();
        given.timers().fire_due().await.unwrap();
        let fired = read_all(&given.store, "x", &["noise"]).await;
        assert_eq!(fired.len(), 1);
        assert_eq!(fired[0].id, "noise 2");
    }
}

/// A timer's message that the store refuses, among others.
async fn set_timers_with_one_refused(place: &Place, given: &Given) {
    let mut commit = Commit::new();
    for number in 0..3 {
        commit.set_timer(number.to_string(), start(), noise(number));
    }
    let refused = Message {
        key: REFUSED_KEY.to_owned(),
        ..noise(9)
    };
    commit.set_timer("broken", start(), refused);
    commit.set_timer("later", start().plus_millis(5), noise(4));
    given.store.commit(commit).await.unwrap();
    place.refuse_messages();
}

#[tokio::test]
async fn a_timer_that_cannot_be_published_holds_up_no_other_and_waits_for_a_person() {
    for place in bus_places() {
        let given = given(&place).await;
        set_timers_with_one_refused(&place, &given).await;
        // The others fire, and nothing comes back to be refused again.
        assert_eq!(given.timers().fire_due().await, Ok(3));
        given.clock.advance_millis(5);
        assert_eq!(given.timers().fire_due().await, Ok(1));
        assert_eq!(read_all(&given.store, "x", &["noise"]).await.len(), 4);
        assert_eq!(given.store.check(), Ok(()));
        // What was refused is before a person at once, whole.
        drain(&mut given.dead_letters()).await;
        let letter = given.letters().await.remove(0);
        assert_eq!(letter.state, DeadLetterState::Parked);
        assert_eq!(letter.letter.message_id, "noise 9");
        assert_eq!(letter.letter.reissued_key, REFUSED_KEY);
        assert_eq!(letter.letter.group, "");
        // Replayed too early it is refused once more, and says so.
        let refused = dead_letters::replay(&given.store, letter.id, start()).await;
        assert!(
            matches!(refused, Err(dead_letters::Error::Unpublishable { .. })),
            "{refused:?}"
        );
        // Replayed when it can be published, it is the message that was to come, and every group has it.
        place.take_messages();
        let replayed = dead_letters::replay(&given.store, letter.id, start())
            .await
            .unwrap();
        assert_eq!(replayed.state, DeadLetterState::Resolved);
        for group in ["x", "y"] {
            let came = read_all(&given.store, group, &["noise"]).await;
            let last = came.iter().find(|message| message.id == "noise 9");
            assert_eq!(last.unwrap().reissue, None, "{group}");
        }
    }
}

#[tokio::test]
async fn a_reissue_that_cannot_be_published_is_parked_as_the_dead_letter_that_it_was() {
    for place in bus_places() {
        let given = given(&place).await;
        let refused = Message {
            key: REFUSED_KEY.to_owned(),
            ..deposit("a", 1, 5)
        };
        publish(&given.store, [refused]).await;
        let mut worker = teller(&given.context);
        drain(&mut worker).await;
        drain(&mut given.dead_letters()).await;
        assert_eq!(given.letters().await[0].state, DeadLetterState::Waiting);

        place.refuse_messages();
        given.next_reissue(&mut worker).await;
        let letters = given.letters().await;
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].state, DeadLetterState::Parked);
        assert_eq!(letters[0].letter.group, "teller");

        place.take_messages();
        store_all(&given.store, &[Account::new(1, 0)]).await;
        dead_letters::replay(&given.store, letters[0].id, start())
            .await
            .unwrap();
        drain(&mut worker).await;
        drain(&mut given.dead_letters()).await;
        assert_eq!(balance(&given.store, 1).await, 5);
        assert_eq!(given.letters().await[0].state, DeadLetterState::Resolved);
    }
}

// ---- cleaning

#[tokio::test]
async fn cleaning_removes_what_all_have_passed_and_nothing_undelivered() {
    for place in places() {
        let given = given(&place).await;
        store_all(&given.store, &[Account::new(1, 0)]).await;
        publish(&given.store, (0..10).map(|n| deposit(&n.to_string(), 1, 1))).await;
        drain(&mut teller(&given.context)).await;
        // Nobody named has passed nothing; "late" has never read.
        for groups in [vec![], vec!["teller", "late"]] {
            assert_eq!(given.housekeeping(groups).clean().await, Ok(0));
        }
        assert_eq!(
            read_all(&given.store, "late", &[Deposit::TOPIC])
                .await
                .len(),
            10
        );
        assert_eq!(given.housekeeping(vec!["teller"]).clean().await, Ok(10));
        drop(given);
        let given = self::given(&place).await;
        assert_eq!(read_all(&given.store, "late", &[Deposit::TOPIC]).await, []);
    }
}

#[tokio::test]
async fn a_group_that_is_left_out_of_a_run_keeps_its_messages_until_it_is_retired() {
    for place in places() {
        let given = given(&place).await;
        store_all(&given.store, &[Account::new(1, 0)]).await;
        publish(&given.store, [deposit("0", 1, 1)]).await;
        let mut late = Worker::new(Teller { group: "late" }, given.context.clone()).unwrap();
        drain(&mut late).await;
        // "late" has handled the first message, and does not run while the others come and are cleaned.
        publish(&given.store, (1..10).map(|n| deposit(&n.to_string(), 1, 1))).await;
        drain(&mut teller(&given.context)).await;
        assert_eq!(given.housekeeping(vec!["teller"]).clean().await, Ok(1));
        assert_eq!(drain(&mut late).await, 9);
        assert_eq!(given.housekeeping(vec!["teller"]).clean().await, Ok(9));
        publish(&given.store, [deposit("10", 1, 1)]).await;
        drain(&mut teller(&given.context)).await;
        assert_eq!(given.housekeeping(vec!["teller"]).clean().await, Ok(0));
        given.store.retire_group("late").await.unwrap();
        assert_eq!(given.housekeeping(vec!["teller"]).clean().await, Ok(1));
    }
}

#[tokio::test]
async fn offsets_are_not_given_twice_after_cleaning_and_opening_again() {
    for place in places() {
        let given = given(&place).await;
        store_all(&given.store, &[Account::new(1, 0)]).await;
        publish(&given.store, (0..10).map(|n| deposit(&n.to_string(), 1, 1))).await;
        drain(&mut teller(&given.context)).await;
        given.housekeeping(vec!["teller"]).clean().await.unwrap();
        drop(given);
        let given = self::given(&place).await;
        publish(&given.store, [deposit("new", 1, 1)]).await;
        assert_eq!(drain(&mut teller(&given.context)).await, 1);
        assert_eq!(balance(&given.store, 1).await, 11);
    }
}

#[tokio::test]
async fn inbox_marks_go_after_their_retention_but_not_before_their_messages() {
    for place in places() {
        let given = given(&place).await;
        store_all(&given.store, &[Account::new(1, 0)]).await;
        publish(&given.store, [deposit("a", 1, 1)]).await;
        // Handled, but the position was not stored: so it is when a neighbour in the batch conflicts.
        let mut commit = Commit::new();
        commit.handled = Some(messaging::commit::Handled {
            group: "teller".into(),
            message_id: "a".into(),
            key: "a".into(),
            at: start(),
        });
        given.store.commit(commit).await.unwrap();
        given.clock.advance_millis(61_000);
        let housekeeping = given.housekeeping(vec!["teller"]);
        assert_eq!(housekeeping.clean().await, Ok(0));
        assert_eq!(drain(&mut teller(&given.context)).await, 1);
        assert_eq!(balance(&given.store, 1).await, 0);
        // The message has been passed: it goes, and with the next walk over the inbox so does the mark.
        let mut removed = 0;
        for _ in 0..3 {
            removed += housekeeping.clean().await.unwrap();
        }
        assert_eq!(removed, 2);
    }
}

/// Marks of a group, all of the same time.
async fn mark_as_handled(given: &Given, group: &str, marks: usize, at: Timestamp) {
    let mark = |number: usize| {
        let mut commit = Commit::new();
        commit.handled = Some(messaging::commit::Handled {
            group: group.to_owned(),
            message_id: format!("{number:06}"),
            key: number.to_string(),
            at,
        });
        commit
    };
    let submission = Submission {
        commits: (0..marks).map(mark).collect(),
        position: None,
    };
    let outcomes = given.store.submit(submission).outcomes().await;
    assert!(outcomes.iter().all(Result::is_ok));
}

async fn marks_left(given: &Given, group: &str, marks: usize) -> usize {
    let ids: Vec<_> = (0..marks).map(|number| format!("{number:06}")).collect();
    let ids: Vec<_> = ids.iter().map(String::as_str).collect();
    given.store.seen(group, &ids).await.unwrap().len()
}

#[tokio::test]
async fn old_marks_go_at_once_however_many_there_are_and_however_many_young_ones_stand_before_them()
{
    const MARKS: usize = 9_000;
    for place in places() {
        let given = given(&place).await;
        let young = start().plus_secs(8);
        mark_as_handled(&given, "0", 1, start().plus_secs(-100)).await;
        mark_as_handled(&given, "a", MARKS, young).await;
        mark_as_handled(&given, "b", MARKS, start()).await;
        let mut housekeeping = given.housekeeping(vec![]);
        // A round takes an eighth of this: one look.
        housekeeping.settings.inbox_retention_secs = 8;
        let (switch, shutdown) = ShutdownSwitch::new();
        let cleaning = tokio::spawn(housekeeping.run(shutdown));
        let gone = async |group| marks_left(&given, group, MARKS).await == 0;
        eventually("the first look is over", async || gone("0").await).await;
        // All that are old go within the next one: the clock stands still, so that none comes after it.
        given.clock.advance_millis(8_001);
        eventually("the old marks go", async || gone("b").await).await;
        assert_eq!(marks_left(&given, "a", MARKS).await, MARKS);
        switch.stop();
        cleaning.await.unwrap();
    }
}

#[tokio::test]
async fn old_rows_of_declared_tables_expire_where_the_predicate_holds() {
    for place in bus_places() {
        let given = given(&place).await;
        publish(&given.store, [deposit("a", 1, 5), deposit("b", 1, 5)]).await;
        drain(&mut teller(&given.context)).await;
        drain(&mut given.dead_letters()).await;
        let letters = given.letters().await;
        dead_letters::discard(&given.store, letters[0].id, start())
            .await
            .unwrap();
        let retention = RowRetention {
            table: DeadLetterRecord::TABLE,
            column: "updated_at",
            only: Some("state IN ('RESOLVED', 'DISCARDED')"),
            keep_secs: 60,
        };
        let housekeeping = Housekeeping {
            retentions: vec![retention],
            ..given.housekeeping(vec![])
        };
        given.clock.advance_millis(60_000);
        assert_eq!(housekeeping.clean().await, Ok(0));
        given.clock.advance_millis(1);
        housekeeping.clean().await.unwrap();
        assert_eq!(given.letters().await, letters[1..]);
    }
}

#[tokio::test]
async fn a_table_that_cannot_be_cleaned_holds_up_no_other() {
    const MARKS: usize = 9_000;
    for place in places() {
        let given = given(&place).await;
        // given a row that another table refers to, and old marks and movements
        let mut commit = Commit::new();
        commit
            .append(&movement("referred to", 1, 1))
            .append(&movement("old", 1, 1));
        given.store.commit(commit).await.unwrap();
        place.run_sql(
            "CREATE TABLE {}receipt (movement TEXT REFERENCES {}movement (id));
             INSERT INTO {}receipt VALUES ('referred to')",
        );
        mark_as_handled(&given, "a", MARKS, start()).await;
        let expiry = |only| RowRetention {
            table: Movement::TABLE,
            column: "at",
            only: Some(only),
            keep_secs: 60,
        };
        let housekeeping = Housekeeping {
            retentions: vec![expiry("id = 'referred to'"), expiry("id = 'old'")],
            ..given.housekeeping(vec![])
        };
        given.clock.advance_millis(60_001);
        assert!(housekeeping.clean().await.is_err());
        // then all else goes at the first look: the clock stands still, so that none comes after it
        let (switch, shutdown) = ShutdownSwitch::new();
        let cleaning = tokio::spawn(housekeeping.run(shutdown));
        eventually("the old marks go", async || {
            marks_left(&given, "a", MARKS).await == 0
        })
        .await;
        let left = movements(&given.store).await;
        assert_eq!(left, [movement("referred to", 1, 1)]);
        switch.stop();
        cleaning.await.unwrap();
    }
}

// ---- random interleavings

/// Two groups, whose steps interleave at random, and a third writer move money on shared accounts: each
/// deposit counts once for each group, and the ledger agrees.
async fn interleave(places: Vec<Place>, deposits: &[(i64, i64)], turns: &[u8]) {
    for place in places {
        let given = given(&place).await;
        store_all(&given.store, &[0, 1, 2].map(|id| Account::new(id, 0))).await;
        let (mut one, disturbances) = disturbed(&given, 2);
        let mut two = Worker::new(Teller { group: "two" }, given.context.clone()).unwrap();
        let mut left = deposits.iter().enumerate();
        for turn in turns.iter().chain(&[2; 40]) {
            match turn {
                0 => drop(futures::join!(one.step(), two.step())),
                1 => {
                    two.step().await.unwrap();
                }
                _ => {
                    if let Some((number, (id, amount))) = left.next() {
                        publish(&given.store, [deposit(&number.to_string(), *id, *amount)]).await;
                    }
                }
            }
        }
        let (first, second) = futures::join!(drain(&mut one), drain(&mut two));
        assert!(first + second <= 2 * deposits.len());
        let deposited: i64 = deposits.iter().map(|(_, amount)| amount).sum();
        let ledger: i64 = movements(&given.store)
            .await
            .iter()
            .map(|it| it.amount)
            .sum();
        let mut balances = 0;
        for id in 0..3 {
            balances += balance(&given.store, id).await;
        }
        assert_eq!(ledger, 2 * deposited);
        assert_eq!(
            balances,
            ledger + 1000 * disturbances.load(Ordering::Relaxed)
        );
    }
}

fn blocking(history: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.unwrap().block_on(history);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
    #[test]
    fn sums_are_kept_under_any_interleaving(
        deposits in proptest::collection::vec((0_i64..3, 1_i64..100), 1..40),
        turns in proptest::collection::vec(0_u8..3, 0..30),
    ) {
        blocking(interleave(places(), &deposits, &turns));
    }
}

#[cfg(feature = "kafka")]
proptest::proptest! {
    // Topics are made and groups are joined for each case: that takes a second, whatever the case is.
    #![proptest_config(proptest::prelude::ProptestConfig {
        cases: 8,
        max_shrink_iters: 20,
        ..proptest::prelude::ProptestConfig::default()
    })]
    #[test]
    fn sums_are_kept_under_any_interleaving_over_brokers(
        deposits in proptest::collection::vec((0_i64..3, 1_i64..100), 1..40),
        turns in proptest::collection::vec(0_u8..3, 0..30),
    ) {
        let brokers = Place::Brokers(Box::new(common::kafka::Brokers::new()));
        blocking(interleave(vec![brokers], &deposits, &turns));
    }
}

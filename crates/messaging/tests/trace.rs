//! A message carries the trace of the request that it goes back to, on every store and bus.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Arc;

use common::{
    Account, Deposit, Noise, account, bus_places, context, deposit, drain, places, publish,
    read_all, start, store_all, teller,
};
use messaging::{
    Clock, Commit, Consumer, Decision, Group, Message, Metrics, Payload, Random, Records, Ref,
    Rejection, Store, Timestamp, TraceContext, Worker,
    dead_letters::DeadLetter,
    dead_letters::{self, DeadLetterConsumer},
    timers::Timers,
    trace,
};

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn caller() -> TraceContext {
    TraceContext::parse(CALLER).unwrap()
}

/// Publishes as a request of this caller does.
async fn request(store: &Store, caller: Option<TraceContext>, message: Message) {
    let random = Random::seeded(5);
    let publishing = async { publish(store, [message]).await };
    trace::requested(caller, &random, publishing).await;
}

/// Answers every deposit with a noise at once, and another later.
struct Echo;

impl Consumer for Echo {
    type Input = Deposit;
    type Prefetched = ();
    type Outcome = ();

    fn group(&self) -> Group {
        Group::new("echo", &[Deposit::TOPIC])
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
        _deposit: &Deposit,
        _records: &Records,
        (): &(),
        now: Timestamp,
    ) -> Result<Decision, Rejection> {
        let noise =
            |when| Message::new(format!("{}:{when}", message.id), &Noise { number: 1 }, now);
        let mut commit = Commit::new();
        commit.publish(noise("now")).set_timer(
            format!("timer {}", message.id),
            now.plus_millis(1_000),
            noise("later"),
        );
        Ok(commit.into())
    }
}

fn timers(store: &Store, clock: &Clock) -> Timers {
    Timers {
        store: store.clone(),
        clock: clock.clone(),
        metrics: Metrics::unregistered(),
    }
}

#[tokio::test]
async fn what_follows_from_a_request_carries_its_trace_over_the_bus_and_through_timers() {
    for place in bus_places() {
        // Given a request with a trace, one without, and a process that acts by itself,
        let metrics = Metrics::unregistered();
        let store = place.open_with(Arc::clone(&metrics)).await;
        let clock = Clock::manual(start());
        let context = context(&store, &metrics, &clock);
        request(&store, Some(caller()), deposit("traced", 1, 1)).await;
        request(&store, None, deposit("begun", 1, 1)).await;
        publish(&store, [deposit("alone", 1, 1)]).await;

        // when everything is handled, and what was put off has come too,
        let mut echo = Worker::new(Echo, context).unwrap();
        drain(&mut echo).await;
        clock.advance_millis(1_000);
        assert_eq!(timers(&store, &clock).fire_due().await, Ok(3));

        // then each message is of the trace of its request, from the span in which it was published.
        let deposits = read_all(&store, "reader", &[Deposit::TOPIC]).await;
        let noises = read_all(&store, "listener", &[Noise::TOPIC]).await;
        assert_eq!((deposits.len(), noises.len()), (3, 6));
        let trace_of =
            |all: &[Arc<Message>], id: &str| all.iter().find(|it| it.id == id).unwrap().trace;
        for (id, wanted) in [("traced", Some(caller().trace_id())), ("begun", None)] {
            let asked = trace_of(&deposits, id).unwrap();
            let wanted = wanted.unwrap_or_else(|| asked.trace_id());
            for when in ["now", "later"] {
                let followed = trace_of(&noises, &format!("{id}:{when}")).unwrap();
                assert_eq!(followed, asked.handled_by("echo", id));
                assert_eq!(followed.trace_id(), wanted);
                assert_ne!(followed, asked);
            }
        }
        assert_ne!(trace_of(&deposits, "traced"), Some(caller()), "a new span");
        for alone in [trace_of(&deposits, "alone"), trace_of(&noises, "alone:now")] {
            assert_eq!(alone, None);
        }
    }
}

#[tokio::test]
async fn a_dead_letter_keeps_its_trace_and_so_does_what_is_sent_again() {
    for place in bus_places() {
        let metrics = Metrics::unregistered();
        let store = place.open_with(Arc::clone(&metrics)).await;
        let clock = Clock::manual(start());
        let context = context(&store, &metrics, &clock);
        request(&store, Some(caller()), deposit("poisoned", 1, 1)).await;
        let mut teller = teller(&context);
        drain(&mut teller).await;
        let mut letters = Worker::new(DeadLetterConsumer::default(), context).unwrap();
        drain(&mut letters).await;

        let known = dead_letters::list(&store, None, None, 10).await.unwrap();
        let text = known[0].letter.traceparent.clone().unwrap();
        let asked = TraceContext::parse(&text).unwrap();
        assert_eq!(asked.trace_id(), caller().trace_id());
        let told = read_all(&store, "reader", &[DeadLetter::TOPIC]).await;
        assert_eq!(told[0].trace, Some(asked.handled_by("teller", "poisoned")));

        // It is handled at last: sent again by the schedule, in the same trace.
        store_all(&store, &[Account::new(1, 0)]).await;
        clock.advance_millis(10_000);
        timers(&store, &clock).fire_due().await.unwrap();
        drain(&mut teller).await;
        assert_eq!(account(&store, 1).await.balance, 1);
        let sent = read_all(&store, "teller-too", &[Deposit::TOPIC]).await;
        let first = sent.iter().find(|it| it.id == "poisoned").unwrap();
        assert_eq!(first.trace, Some(asked));
        let again = Message::reissued(&known[0].letter, 1, clock.now());
        assert_eq!(again.trace, Some(asked));
    }
}

#[tokio::test]
async fn a_message_survives_with_its_trace_when_the_store_is_opened_again() {
    for place in places() {
        let store = place.open().await;
        request(&store, Some(caller()), deposit("traced", 1, 1)).await;
        drop(store);
        let store = place.open().await;
        let read = read_all(&store, "reader", &[Deposit::TOPIC]).await;
        assert_eq!(read[0].trace.unwrap().trace_id(), caller().trace_id());
    }
}

#[tokio::test]
async fn a_file_of_a_program_that_knew_no_traces_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let open = || {
        let metrics = Metrics::unregistered();
        Store::open_embedded(folder.path(), &common::tables(), metrics).unwrap()
    };
    let store = open();
    publish(&store, [deposit("old", 1, 1)]).await;
    drop(store);
    let file = rusqlite::Connection::open(folder.path().join("messaging.db")).unwrap();
    file.execute_batch(
        "ALTER TABLE message DROP COLUMN trace; ALTER TABLE timer DROP COLUMN trace;",
    )
    .unwrap();
    drop(file);

    // Twice: what was brought up to date stays so.
    for opening in 0..2 {
        let store = open();
        request(
            &store,
            Some(caller()),
            deposit(&format!("new {opening}"), 1, 1),
        )
        .await;
        let read = read_all(&store, "reader", &[Deposit::TOPIC]).await;
        let traces: Vec<_> = read
            .iter()
            .map(|it| it.trace.map(TraceContext::trace_id))
            .collect();
        let mut wanted = vec![Some(caller().trace_id()); opening + 2];
        wanted[0] = None;
        assert_eq!(traces, wanted);
    }
}

//! A saga on records, messages and timers: a trip that is booked step by step, and given back.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{bus_places, context, drain, read_all, start};
use messaging::{
    Clock, Commit, Consumer, Message, Metrics, Payload, Records, Ref, Rejection, SagaId, Store,
    Timestamp, TraceContext, Worker,
    coordinator::{Domain, NewSaga, SagaRecord, Send, advance, begin, timeout_input},
    timers::Timers,
    trace,
};
use saga::{Catalog, Definition, Direction, Input, Outcome, SagaState, Step};
use serde::{Deserialize, Serialize};

const TRIP: Definition = Definition {
    kind: "trip",
    version: 1,
    steps: &[
        Step::new("flight", "trip.request")
            .compensated_by("trip.cancel")
            .timeout_millis(1_000)
            .retry_limit(1),
        Step::new("hotel", "trip.request")
            .compensated_by("trip.cancel")
            .timeout_millis(1_000)
            .retry_limit(1),
    ],
};

struct Trips;

#[derive(Serialize, Deserialize)]
struct Answer {
    saga_id: SagaId,
    step: usize,
    undone: bool,
    yes: bool,
}

impl Payload for Answer {
    const TOPIC: &'static str = "trip.answer";
    fn key(&self) -> String {
        self.saga_id.to_string()
    }
}

/// Where the timers of trips are delivered.
const TRIP_TIMEOUT: &str = "trip.timeout";

impl Domain for Trips {
    const TIMEOUT_TOPIC: &'static str = TRIP_TIMEOUT;

    fn catalog(&self) -> Catalog {
        Catalog(&[&TRIP])
    }
    fn request(
        &self,
        saga: &SagaRecord,
        send: &Send,
        now: Timestamp,
    ) -> Result<Message, Rejection> {
        Ok(Message {
            id: send.message_id.clone(),
            topic: send.topic.to_owned(),
            key: saga.saga_id.to_string(),
            subject: None,
            time: now,
            payload: send.step.to_string(),
            reissue: None,
            trace: None,
        })
    }
}

impl Consumer for Trips {
    type Prefetched = ();
    fn group(&self) -> &'static str {
        "trips"
    }
    fn topics(&self) -> &'static [&'static str] {
        &[Answer::TOPIC, TRIP_TIMEOUT]
    }
    fn required_records(&self, message: &Message) -> Result<Vec<Ref>, Rejection> {
        Ok(vec![Ref::to::<SagaRecord>(message.key.as_str())])
    }
    fn decide(
        &self,
        message: &Message,
        records: &Records,
        (): &(),
        now: Timestamp,
    ) -> Result<Commit, Rejection> {
        let record = records
            .get::<SagaRecord>(message.key.as_str())?
            .ok_or_else(|| Rejection::new("there is no such trip"))?;
        let input = if message.topic == TRIP_TIMEOUT {
            timeout_input(&message.parse()?)
        } else {
            input(message.parse()?)
        };
        let progress = advance(self, record, input, now)?;
        Ok(progress.map_or_else(Commit::new, |progress| progress.commit))
    }
}

fn input(answer: Answer) -> Input {
    let direction = if answer.undone {
        Direction::Compensation
    } else {
        Direction::Request
    };
    let outcome = if answer.yes {
        Outcome::Proceed
    } else {
        let reason = "full".to_owned();
        Outcome::Refuse { reason }
    };
    Input::Reply {
        step: answer.step,
        direction,
        outcome,
    }
}

struct Trip {
    store: Store,
    clock: Clock,
    worker: Worker<Trips>,
    id: SagaId,
}

async fn begun(store: Store) -> Trip {
    let metrics = Metrics::unregistered();
    let clock = Clock::manual(start());
    let id = SagaId(messaging::Random::seeded(1).uuid(start()));
    let beginning = NewSaga {
        saga_id: id,
        reference_id: "trip 1".into(),
        payload: serde_json::json!({ "to": "Busan" }),
    };
    let progress = begin(&Trips, &TRIP, beginning, start()).unwrap();
    store.commit(progress.commit).await.unwrap();
    let worker = Worker::new(Trips, context(&store, &metrics, &clock)).unwrap();
    Trip {
        store,
        clock,
        worker,
        id,
    }
}

impl Trip {
    async fn answer(&mut self, step: usize, undone: bool, yes: bool) {
        let answer = Answer {
            saga_id: self.id,
            step,
            undone,
            yes,
        };
        let id = format!("{step} {undone} {yes}");
        common::publish(&self.store, [Message::new(id, &answer, start())]).await;
        drain(&mut self.worker).await;
    }

    /// A second without an answer.
    async fn silence(&mut self) {
        self.clock.advance_millis(1_000);
        let timers = Timers {
            store: self.store.clone(),
            clock: self.clock.clone(),
            metrics: Metrics::unregistered(),
        };
        timers.fire_due().await.unwrap();
        drain(&mut self.worker).await;
    }

    async fn sent(&self) -> Vec<String> {
        // Each topic by itself: a bus keeps the order of one topic's key.
        let mut sent = read_all(&self.store, "airline", &["trip.request"]).await;
        sent.extend(read_all(&self.store, "refunds", &["trip.cancel"]).await);
        sent.iter()
            .map(|message| format!("{} {}", message.topic, message.payload))
            .collect()
    }

    async fn state(&self) -> SagaState {
        self.store
            .load::<SagaRecord>(self.id)
            .await
            .unwrap()
            .unwrap()
            .state
    }
}

#[tokio::test]
async fn a_saga_runs_to_its_end_and_leaves_no_timer() {
    for place in bus_places() {
        let mut trip = begun(place.open().await).await;
        trip.answer(0, false, true).await;
        trip.answer(1, false, true).await;
        // The same answer once more, and a timer's time, change nothing.
        trip.answer(1, false, true).await;
        trip.silence().await;
        assert_eq!(trip.state().await, SagaState::Completed);
        assert_eq!(trip.sent().await, ["trip.request 0", "trip.request 1"]);
        let last = Timestamp::from_millis(i64::MAX);
        assert_eq!(trip.store.due_timers(last, 10).await, Ok(Vec::new()));
    }
}

#[tokio::test]
async fn a_refusal_gives_back_what_was_taken() {
    for place in bus_places() {
        let mut trip = begun(place.open().await).await;
        trip.answer(0, false, true).await;
        trip.answer(1, false, false).await;
        trip.answer(0, true, true).await;
        assert_eq!(trip.state().await, SagaState::Compensated);
        assert_eq!(
            trip.sent().await,
            ["trip.request 0", "trip.request 1", "trip.cancel 0"]
        );
    }
}

#[tokio::test]
async fn silence_is_asked_again_and_then_undone_as_if_it_had_happened() {
    for place in bus_places() {
        let mut trip = begun(place.open().await).await;
        trip.silence().await;
        trip.silence().await;
        assert_eq!(trip.state().await, SagaState::Compensating);
        trip.answer(0, true, true).await;
        assert_eq!(trip.state().await, SagaState::Compensated);
        assert_eq!(
            trip.sent().await,
            ["trip.request 0", "trip.request 0", "trip.cancel 0"]
        );
    }
}

#[tokio::test]
async fn a_stored_saga_goes_on_after_opening_again() {
    for place in bus_places() {
        let trip = begun(place.open().await).await;
        let id = trip.id;
        drop(trip);
        let store = place.open().await;
        let (metrics, clock) = (Metrics::unregistered(), Clock::manual(start()));
        let worker = Worker::new(Trips, context(&store, &metrics, &clock)).unwrap();
        let mut trip = Trip {
            store,
            clock,
            worker,
            id,
        };
        trip.answer(0, false, true).await;
        trip.answer(1, false, true).await;
        assert_eq!(trip.state().await, SagaState::Completed);
    }
}

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_saga_goes_on_in_its_trace_where_an_answer_names_none() {
    let id = SagaId(messaging::Random::seeded(1).uuid(start()));
    let beginning = NewSaga {
        saga_id: id,
        reference_id: "trip 1".into(),
        payload: serde_json::Value::Null,
    };
    let answer = |trace| {
        let answer = Answer {
            saga_id: id,
            step: 0,
            undone: false,
            yes: true,
        };
        let mut message = Message::new("answer", &answer, start());
        message.trace = trace;
        message
    };
    let caller = TraceContext::parse(CALLER);
    let begun = trace::handling(&answer(caller), "trips", || {
        begin(&Trips, &TRIP, beginning, start()).unwrap()
    });
    let ids = |commit: &Commit| -> Vec<_> {
        let sent = commit.messages.iter().map(|it| it.trace);
        sent.map(|it| it.map(TraceContext::trace_id)).collect()
    };
    let of_caller = caller.map(TraceContext::trace_id);
    assert_eq!(ids(&begun.commit), std::slice::from_ref(&of_caller));

    let yes = || Input::Reply {
        step: 0,
        direction: Direction::Request,
        outcome: Outcome::Proceed,
    };
    let go_on = |trace| {
        trace::handling(&answer(trace), "trips", || {
            let progress = advance(&Trips, begun.record.clone(), yes(), start());
            progress.unwrap().unwrap().commit
        })
    };
    assert_eq!(ids(&go_on(None)), [of_caller]);
    assert_eq!(go_on(None).messages, go_on(None).messages);
    let other = TraceContext::begin(&messaging::Random::seeded(2));
    assert_eq!(ids(&go_on(Some(other))), [Some(other.trace_id())]);
}

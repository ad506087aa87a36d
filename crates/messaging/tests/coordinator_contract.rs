//! A saga on records, messages and timers: a trip that is booked step by step, and given back.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::sync::Arc;

use common::{Account, bus_places, context, drain, read_all, start};
use messaging::{
    Clock, Commit, Group, Message, Metrics, Rejection, SagaId, Store, Timestamp, TraceContext,
    Worker,
    coordinator::{
        BeginError, Coordinator, Domain, InvalidDomain, NewSaga, Progress, Reply, SagaRecord,
        StepRequest, advance, begin, begin_once, check,
    },
    timers::Timers,
    trace,
};
use saga::{Catalog, Definition, Direction, Input, Outcome, SagaState, Step};

const FLIGHT: Step = Step::new("flight", "flight.book.request")
    .compensated_by("flight.cancel.request")
    .timeout_millis(1_000)
    .retry_limit(1);

const HOTEL: Step = Step::new("hotel", "hotel.book.request")
    .compensated_by("hotel.cancel.request")
    .timeout_millis(1_000)
    .retry_limit(1);

const TRIP: Definition = Definition {
    kind: "trip",
    version: 1,
    steps: &[FLIGHT, HOTEL],
};

/// The newest version, under which none of these sagas began.
const TRIP_2: Definition = Definition {
    kind: "trip",
    version: 2,
    steps: &[HOTEL, FLIGHT],
};

const REQUESTS: [&[&str]; 4] = [
    &["flight.book.request"],
    &["hotel.book.request"],
    &["flight.cancel.request"],
    &["hotel.cancel.request"],
];

struct Trips;

impl Domain for Trips {
    const GROUP: Group = Group {
        name: "trips",
        topics: &[
            "flight.book.response",
            "flight.cancel.response",
            "hotel.book.response",
            "hotel.cancel.response",
            Self::TIMEOUT_TOPIC,
        ],
    };
    const TIMEOUT_TOPIC: &'static str = "trip.timeout";
    const CATALOG: Catalog = Catalog(&[&TRIP, &TRIP_2]);

    fn request(&self, _: &SagaRecord, step: &StepRequest) -> Result<Message, Rejection> {
        Ok(step.message_untyped(&step.step))
    }

    /// A booking, or that there is none.
    fn read_reply(&self, message: &Message) -> Result<Reply, Rejection> {
        let saga_id = message.key.parse().map_err(Rejection::new)?;
        let booking: Option<i64> = message.parse()?;
        let reply = Reply::new(saga_id, booking.is_some(), "full");
        Ok(reply.learning("booking", booking))
    }
}

struct Trip {
    store: Store,
    clock: Clock,
    worker: Worker<Coordinator<Trips>>,
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
    let worker = worker(&store, &metrics, &clock);
    Trip {
        store,
        clock,
        worker,
        id,
    }
}

fn worker(store: &Store, metrics: &Arc<Metrics>, clock: &Clock) -> Worker<Coordinator<Trips>> {
    let coordinator = Coordinator::new(Trips).unwrap();
    Worker::new(coordinator, context(store, metrics, clock)).unwrap()
}

impl Trip {
    async fn answer(&mut self, step: usize, undone: bool, yes: bool) {
        let id = format!("{step} {undone} {yes}");
        let reply = reply(
            self.id,
            REQUESTS[step + 2 * usize::from(undone)][0],
            &id,
            yes,
        );
        common::publish(&self.store, [reply]).await;
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
        let mut sent = Vec::new();
        // Each topic by itself: a bus keeps the order of one topic's key.
        for topic in REQUESTS {
            sent.extend(read_all(&self.store, topic[0], topic).await);
        }
        sent.iter()
            .map(|message| format!("{} {}", message.topic, message.payload))
            .collect()
    }

    async fn record(&self) -> SagaRecord {
        self.store.load(self.id).await.unwrap().unwrap()
    }

    async fn state(&self) -> SagaState {
        self.record().await.state
    }
}

/// The reply to a request on this topic.
fn reply(saga_id: SagaId, request: &str, id: &str, yes: bool) -> Message {
    let request = Message::on(request, saga_id.to_string(), id, &(), start());
    request.reply_untyped(&yes.then_some(7), start())
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
        assert_eq!(
            trip.sent().await,
            ["flight.book.request 0", "hotel.book.request 1"]
        );
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
            [
                "flight.book.request 0",
                "hotel.book.request 1",
                "flight.cancel.request 0"
            ]
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
            [
                "flight.book.request 0",
                "flight.book.request 0",
                "flight.cancel.request 0"
            ]
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
        let worker = worker(&store, &metrics, &clock);
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

#[tokio::test]
async fn what_a_reply_tells_is_stored_once_also_if_the_saga_does_not_wait_for_it() {
    for place in bus_places() {
        let mut trip = begun(place.open().await).await;
        trip.silence().await;
        trip.silence().await;
        assert_eq!(
            trip.record().await.payload["booking"],
            serde_json::Value::Null
        );
        trip.answer(0, false, true).await;
        let record = trip.record().await;
        assert_eq!(record.state, SagaState::Compensating);
        assert_eq!(
            record.payload,
            serde_json::json!({ "to": "Busan", "booking": 7 })
        );

        let compensated = record.version + 1;
        trip.answer(0, true, true).await;
        trip.answer(1, false, true).await;
        assert_eq!(trip.record().await.version, compensated);
    }
}

/// Trips that say nothing of their own about requests and replies.
struct Plain;

impl Domain for Plain {
    const GROUP: Group = Trips::GROUP;
    const TIMEOUT_TOPIC: &'static str = Trips::TIMEOUT_TOPIC;
    const CATALOG: Catalog = Trips::CATALOG;
}

#[tokio::test]
async fn by_default_a_request_has_the_payload_of_the_saga_and_a_reply_is_yes_or_no() {
    for place in bus_places() {
        let store = place.open().await;
        let trip = NewSaga::new("trip 1", serde_json::json!({ "to": "Busan" }));
        let id = trip.saga_id;
        let mut commit = begin(&Plain, &TRIP, trip, start()).unwrap().commit;
        let request = commit.messages[0].clone();
        assert_eq!(request.payload, r#"{"to":"Busan"}"#);
        commit.publish(request.reply_untyped(&false, start()));
        store.commit(commit).await.unwrap();
        let context = context(&store, &Metrics::unregistered(), &Clock::manual(start()));
        drain(&mut Worker::new(Coordinator::new(Plain).unwrap(), context).unwrap()).await;
        let record = store.load::<SagaRecord>(id).await.unwrap().unwrap();
        assert_eq!(record.state, SagaState::Compensated);
        let failure = record.failure.unwrap();
        assert!(
            failure.contains("flight.book.response is false"),
            "{failure}"
        );
    }
}

/// Trips that leave a note when they begin.
struct Noted;

impl Domain for Noted {
    const GROUP: Group = Trips::GROUP;
    const TIMEOUT_TOPIC: &'static str = Trips::TIMEOUT_TOPIC;
    const CATALOG: Catalog = Trips::CATALOG;

    fn commit(&self, progress: Progress, _: Timestamp) -> Commit {
        let mut commit = progress.commit;
        commit.put(&Account::new(1, 0));
        commit
    }
}

#[tokio::test]
async fn a_saga_begins_once_and_a_conflict_on_another_record_is_an_error() {
    for place in bus_places() {
        let store = place.open().await;
        let trip = |reference: &str| NewSaga::new(reference, serde_json::json!({}));
        let begun = begin_once(&store, &Noted, &TRIP, trip("trip 1"), start()).await;
        assert_eq!(begun, Ok(true));
        common::account(&store, 1).await;
        // Both the saga and the note conflict.
        let again = begin_once(&store, &Noted, &TRIP, trip("trip 1"), start()).await;
        assert_eq!(again, Ok(false));
        let other = begin_once(&store, &Noted, &TRIP, trip("trip 2"), start()).await;
        assert!(matches!(other, Err(BeginError::Commit(_))), "{other:?}");
        let saga_id = trip("trip 2").saga_id;
        assert_eq!(store.load::<SagaRecord>(saga_id).await, Ok(None));
    }
}

/// Trips that do not hear whether a hotel was booked.
struct Deaf;

impl Domain for Deaf {
    const GROUP: Group = Group {
        name: Trips::GROUP.name,
        topics: &["flight.book.response", "flight.cancel.response"],
    };
    const TIMEOUT_TOPIC: &'static str = "flight.book.response";
    const CATALOG: Catalog = Trips::CATALOG;
    fn request(&self, saga: &SagaRecord, step: &StepRequest) -> Result<Message, Rejection> {
        Trips.request(saga, step)
    }
    fn read_reply(&self, message: &Message) -> Result<Reply, Rejection> {
        Trips.read_reply(message)
    }
}

#[test]
fn a_domain_that_does_not_consume_a_reply_is_refused_at_the_start() {
    assert_eq!(check::<Trips>(), Ok(()));
    let topic = "hotel.book.response".to_owned();
    assert_eq!(check::<Deaf>(), Err(InvalidDomain::NotConsumed { topic }));
    assert!(Coordinator::new(Deaf).is_err());
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
    let answer = |trace| Message {
        trace,
        ..reply(id, "flight.book.request", "answer", true)
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

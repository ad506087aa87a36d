//! A flood of messages that a consumer rejects is a few lines of the log.

mod common;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use common::{context, deposit, drain, places, publish, start, teller};
use messaging::{Clock, Message, Metrics, metrics::GroupLabel};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

const REJECTED: u64 = 200;
/// The lines of one period of the limit.
const LINES_MAX: u64 = 10;

/// Counts the lines about rejected messages.
#[derive(Clone, Default)]
struct Lines(Arc<AtomicU64>);

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Event<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

impl Visit for Lines {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" && format!("{value:?}") == "a message was rejected" {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test]
async fn a_flood_of_rejected_messages_is_a_few_lines_and_all_are_counted() {
    for place in places() {
        let metrics = Metrics::unregistered();
        let store = place.open_with(Arc::clone(&metrics)).await;
        let context = context(&store, &metrics, &Clock::manual(start()));
        let unreadable = |number| Message {
            payload: "{".to_owned(),
            ..deposit(&format!("m{number}"), 1, 1)
        };
        publish(&store, (0..REJECTED).map(unreadable)).await;

        let lines = Lines::default();
        let logged = tracing::subscriber::set_default(lines.clone());
        drain(&mut teller(&context)).await;
        drop(logged);

        let rejected = metrics
            .messages_rejected
            .get_or_create(&GroupLabel { group: "teller" })
            .get();
        assert_eq!(rejected, REJECTED);
        let lines = lines.0.load(Ordering::Relaxed);
        assert!((1..=LINES_MAX).contains(&lines), "{lines} lines");
    }
}

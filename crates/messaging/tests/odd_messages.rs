//! Messages that nobody here would write: ids and payloads of any length and with any character. None of them may
//! delay what stands behind it, on any store or bus.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{
    Account, Place, balance, bus_places, context, deposit, drain, incompressible, places, postgres,
    publish, start, store_all, teller,
};
use messaging::{
    Clock, Message, Metrics, Payload, Store, Worker,
    dead_letters::{
        self, DeadLetter, DeadLetterConsumer, DeadLetterRecord, DeadLetterState,
        PUBLISHED_PAYLOAD_BYTES_MAX,
    },
    message::REASON_CHARS_MAX,
    timers::Timers,
};

async fn letters(store: &Store) -> Vec<DeadLetterRecord> {
    dead_letters::list(store, None, None, 100).await.unwrap()
}

#[tokio::test]
async fn a_message_whose_id_no_index_takes_is_handled_once_and_delays_no_other() {
    for place in bus_places() {
        let metrics = Metrics::unregistered();
        let store = place.open_with(metrics.clone()).await;
        let context = context(&store, &metrics, &Clock::manual(start()));
        store_all(&store, &[Account::new(1, 0)]).await;
        let long = incompressible(4_000);
        // given the same message twice, one whose id differs at its end only, and one that is rejected
        let other = format!("{long}.");
        let rejected = deposit(&incompressible(5_000), 9, 1);
        publish(&store, [deposit(&long, 1, 5), deposit(&long, 1, 5)]).await;
        publish(
            &store,
            [deposit(&other, 1, 20), rejected, deposit("b", 1, 100)],
        )
        .await;
        // then each is handled once
        drain(&mut teller(&context)).await;
        assert_eq!(balance(&store, 1).await, 125);
        publish(&store, [deposit(&long, 1, 5)]).await;
        drain(&mut teller(&context)).await;
        assert_eq!(balance(&store, 1).await, 125);
        drain(&mut Worker::new(DeadLetterConsumer::default(), context.clone()).unwrap()).await;
        assert_eq!(letters(&store).await.len(), 1);
    }
}

/// A deposit whose payload has so many bytes.
fn padded(id: &str, account: i64, bytes: usize) -> Message {
    let message = deposit(id, account, 5);
    let pad = "\\\"".repeat(bytes / 2);
    let payload = message.payload.trim_end_matches('}');
    Message {
        payload: format!("{payload},\"pad\":\"{pad}\"}}"),
        ..message
    }
}

#[tokio::test]
async fn a_rejected_message_of_any_length_is_kept_whole_and_goes_back_on_schedule() {
    for place in bus_places() {
        let metrics = Metrics::unregistered();
        let store = place.open_with(metrics.clone()).await;
        let clock = Clock::manual(start());
        let context = context(&store, &metrics, &clock);
        let timers = Timers {
            store: store.clone(),
            clock: clock.clone(),
            metrics,
        };
        // given a message whose dead letter no broker would take, rejected twice
        let large = padded("large", 1, 700_000);
        let medium = padded("medium", 1, PUBLISHED_PAYLOAD_BYTES_MAX - 100);
        publish(&store, [large.clone(), medium]).await;
        let mut worker = teller(&context);
        let mut undertaker = Worker::new(DeadLetterConsumer::default(), context.clone()).unwrap();
        for reissues in [1, 2] {
            drain(&mut worker).await;
            drain(&mut undertaker).await;
            let letters = letters(&store).await;
            assert_eq!(letters.len(), 2);
            for record in letters {
                let payload = &record.letter.reissued_payload;
                assert_eq!(record.state, DeadLetterState::Waiting);
                assert_eq!(record.reissues, reissues);
                assert!(record.letter.message_id != "large" || *payload == large.payload);
            }
            clock.advance_millis(10_000);
            timers.fire_due().await.unwrap();
        }
        // then it is handled as soon as it can be
        store_all(&store, &[Account::new(1, 0)]).await;
        drain(&mut worker).await;
        drain(&mut undertaker).await;
        assert_eq!(balance(&store, 1).await, 10);
        let states = letters(&store).await.into_iter().map(|it| it.state);
        assert!(states.eq([DeadLetterState::Resolved; 2]));
    }
}

#[tokio::test]
async fn a_record_that_is_no_dead_letter_on_the_dead_letters_topic_is_parked_after_its_retries() {
    for place in bus_places() {
        let metrics = Metrics::unregistered();
        let store = place.open_with(metrics.clone()).await;
        let clock = Clock::manual(start());
        let context = context(&store, &metrics, &clock);
        let timers = Timers {
            store: store.clone(),
            clock: clock.clone(),
            metrics,
        };
        let foreign = Message {
            topic: DeadLetter::TOPIC.to_owned(),
            ..deposit("foreign", 1, 5)
        };
        publish(&store, [foreign]).await;
        let mut undertaker = Worker::new(DeadLetterConsumer::default(), context.clone()).unwrap();
        for _ in 0..=context.dead_letters.max_retry_count {
            // The rejection, and then the dead letter about it.
            drain(&mut undertaker).await;
            drain(&mut undertaker).await;
            clock.advance_millis(10_000);
            timers.fire_due().await.unwrap();
        }
        let states = letters(&store).await.into_iter().map(|it| it.state);
        assert!(states.eq([DeadLetterState::Parked]));
    }
}

#[tokio::test]
async fn a_reason_that_quotes_the_payload_is_cut_and_a_text_with_nul_is_rejected_everywhere() {
    for place in places() {
        let metrics = Metrics::unregistered();
        let store = place.open_with(metrics.clone()).await;
        let context = context(&store, &metrics, &Clock::manual(start()));
        let quoted = Message {
            payload: format!("{{\"account\":\"{}\",\"amount\":1}}", "x".repeat(100_000)),
            ..deposit("quoted", 1, 1)
        };
        let nul = Message {
            payload: r#"{"account":1,"amount":1,"note":"\u0000"}"#.to_owned(),
            ..deposit("nul", 1, 1)
        };
        publish(&store, [quoted, nul]).await;
        drain(&mut teller(&context)).await;
        drain(&mut Worker::new(DeadLetterConsumer::default(), context.clone()).unwrap()).await;
        let letters = letters(&store).await;
        assert_eq!(letters.len(), 2);
        for record in letters {
            let reason = record.letter.reason;
            assert!(reason.chars().count() <= REASON_CHARS_MAX + 1);
            assert!(
                record.letter.message_id != "nul" || reason.contains("U+0000"),
                "{reason}"
            );
        }
    }
}

#[tokio::test]
async fn a_message_whose_dead_letter_the_store_refuses_is_parked_with_what_it_takes() {
    for place in places() {
        let Place::Schema(schema) = &place else {
            continue;
        };
        let metrics = Metrics::unregistered();
        let store = place.open_with(metrics.clone()).await;
        let context = context(&store, &metrics, &Clock::manual(start()));
        store_all(&store, &[Account::new(1, 0)]).await;
        // given a table that refuses the dead letter of a message that it took
        let name = &schema.settings.schema;
        let rule = format!("ALTER TABLE {name}.message ADD CHECK (length(payload) <= 4000)");
        postgres::run(&schema.settings.url, rule);
        let unreadable = Message {
            payload: "{".repeat(4_000),
            ..deposit("unreadable", 1, 1)
        };
        publish(&store, [unreadable, deposit("b", 1, 2)]).await;
        // then what is behind it is handled, and it waits for a person
        drain(&mut teller(&context)).await;
        assert_eq!(balance(&store, 1).await, 2);
        drain(&mut Worker::new(DeadLetterConsumer::default(), context.clone()).unwrap()).await;
        let letters = letters(&store).await;
        assert_eq!(letters.len(), 1);
        assert_eq!(letters[0].state, DeadLetterState::Parked);
        let letter = &letters[0].letter;
        assert_eq!(letter.message_id, "unreadable");
        assert!(
            letter.reason.contains("only the beginning"),
            "{}",
            letter.reason
        );
        assert_eq!(letter.reissued_payload, "{".repeat(1_000));
    }
}

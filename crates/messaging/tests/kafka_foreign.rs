//! Records of foreign producers, with anything that a client can send; and what foreign consumers see.
#![cfg(feature = "kafka")]

mod common;

use common::{
    Account, Deposit, Noise, balance, context, deposit, drain, eventually, incompressible,
    kafka::Brokers, publish, start, store_all, teller, within,
};
use messaging::{
    Clock, Message, MessageIdentity, Metrics, Payload, PayloadRules, Timestamp, Worker,
    dead_letters::{self, DeadLetterConsumer, DeadLetterState},
    timers::Timers,
};
use rdkafka::{
    admin::{AdminOptions, NewTopic, TopicReplication},
    message::{Headers, Message as _},
};

const HOUR_MILLIS: i64 = 3_600_000;

#[tokio::test]
async fn foreign_records_with_ids_that_no_store_accepts_delay_nothing() {
    let brokers = Brokers::new();
    let store = brokers.open_silent().await;
    let kafka = brokers.connect(&store).await;
    let metrics = Metrics::unregistered();
    let context = context(&store, &metrics, &Clock::manual(start()));
    store_all(&store, &[Account::new(1, 0)]).await;
    let good: &[u8] = br#"{"account":1,"amount":1}"#;
    let long: String = (0..5_000)
        .map(|n| char::from(33 + (n * n % 89) as u8))
        .collect();
    // given records whose id, key, reissue and payload contain what no store accepts, each sent twice
    for _ in 0..2 {
        for (id, key, payload) in [
            (Some(&b"a\0b"[..]), &b"1"[..], good),
            (Some(b"\0"), b"1", good),
            (Some(long.as_bytes()), b"1", good),
            (Some(b"key"), b"k\0", good),
            (Some(b"long key"), long.as_bytes(), good),
            (Some(b"not utf-8 \xff"), b"1", good),
            (Some(b""), b"1", good),
            (None, b"1", good),
            (Some(b"raw nul"), b"1", b"{\"account\":1,\0\"amount\":1}"),
            (
                Some(b"escaped nul"),
                b"1",
                br#"{"account":1,"amount":1,"x":"\u0000"}"#,
            ),
            (Some(b"no text"), b"\xff\xfe", b"\xff\xfe"),
        ] {
            let headers = id.map(|id| ("ce_id", id));
            brokers
                .send(Deposit::TOPIC, key, headers.as_slice(), payload)
                .await;
        }
    }
    let reissue = br#"{"group":"teller","dead_letter":"0192f0c1-2f00-7abc-8def-0123456789ab","count":1,"message_id":"\u0000"}"#;
    let headers = [("ce_id", &b"reissued"[..]), ("ce_reissue", reissue)];
    brokers.send(Deposit::TOPIC, b"1", &headers, b"{").await;
    // then each readable one is handled once by its id (without an id, by its position), and the others are parked
    drain(&mut teller(&context)).await;
    let by_id = 5;
    let by_position = 2 * 3;
    assert_eq!(balance(&store, 1).await, by_id + by_position);
    drain(&mut Worker::new(DeadLetterConsumer::default(), context.clone()).unwrap()).await;
    let letters = dead_letters::list(&store, None, None, 100).await.unwrap();
    let mut ids: Vec<_> = letters
        .iter()
        .map(|it| it.letter.message_id.as_str())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids[..3], ["escaped nul", "no text", "raw nul"]);
    assert!(ids[3].starts_with("sha256:") && ids.len() == 4, "{ids:?}");
    within("a bus closes", kafka.close()).await;
}

#[tokio::test]
async fn a_rejected_record_whose_key_no_index_takes_goes_back_on_schedule() {
    let brokers = Brokers::new();
    let store = brokers.open_silent().await;
    let kafka = brokers.connect(&store).await;
    let (clock, metrics) = (Clock::manual(start()), Metrics::unregistered());
    let context = context(&store, &metrics, &clock);
    let timers = Timers {
        store: store.clone(),
        clock: clock.clone(),
        metrics,
    };
    // given a record that is rejected
    let (key, headers) = (incompressible(4_000), [("ce_id", &b"a"[..])]);
    let payload = br#"{"account":9,"amount":1}"#;
    brokers
        .send(Deposit::TOPIC, key.as_bytes(), &headers, payload)
        .await;
    let mut worker = teller(&context);
    let mut undertaker = Worker::new(DeadLetterConsumer::default(), context.clone()).unwrap();
    drain(&mut worker).await;
    drain(&mut undertaker).await;
    let letters = dead_letters::list(&store, None, None, 100).await.unwrap();
    let states: Vec<_> = letters.iter().map(|it| it.state).collect();
    assert_eq!(states, [DeadLetterState::Waiting]);
    // then it is handled as soon as it can be
    store_all(&store, &[Account::new(9, 0)]).await;
    clock.advance_millis(10_000);
    assert_eq!(timers.fire_due().await, Ok(1));
    drain(&mut worker).await;
    assert_eq!(balance(&store, 9).await, 1);
    within("a bus closes", kafka.close()).await;
}

#[tokio::test]
async fn a_record_is_stamped_when_it_is_sent_and_its_message_keeps_its_own_time() {
    let brokers = Brokers::new();
    let store = brokers.open_silent().await;
    // given a foreign topic with the sender's timestamps, and topics created here
    let name = format!("{}{}", brokers.settings.prefix, Deposit::TOPIC);
    let theirs = NewTopic::new(&name, 2, TopicReplication::Fixed(1))
        .set("message.timestamp.type", "CreateTime")
        .set("retention.ms", "3600000")
        .set("segment.ms", "900000");
    let admin = brokers.admin();
    admin
        .create_topics([&theirs], &AdminOptions::new())
        .await
        .unwrap();
    let kafka = brokers.connect(&store).await;
    eventually(
        "the broker knows a topic that was created here",
        async || {
            let stamped = brokers
                .configured(Noise::TOPIC, "message.timestamp.type")
                .await;
            stamped.as_deref() == Some("LogAppendTime")
        },
    )
    .await;
    // when a message older than the topic's retention is published
    let before = Clock::System.now();
    let message_time = before.plus_millis(-5 * HOUR_MILLIS);
    let old = |message: Message| Message {
        time: message_time,
        ..message
    };
    publish(&store, [old(deposit("a", 1, 1)), old(common::noise(1))]).await;
    for topic in [Deposit::TOPIC, Noise::TOPIC] {
        let record = brokers.first_record(topic).await;
        // then its full retention is ahead, and consumers see the message's time
        let stamp = Timestamp::from_millis(record.timestamp().to_millis().unwrap());
        assert!(stamp.millis_since(before) > -HOUR_MILLIS, "{stamp}");
        let headers = record.headers().unwrap();
        let time = headers.iter().find(|it| it.key == "ce_time").unwrap().value;
        assert_eq!(time.unwrap(), message_time.to_string().as_bytes());
    }
    within("a bus closes", kafka.close()).await;
}

#[tokio::test]
async fn a_record_that_waits_for_a_quarter_of_its_retention_is_stamped_again() {
    let mut brokers = Brokers::new();
    brokers.settings.retention_secs = 4;
    let store = brokers.open_silent().await;
    let kafka = brokers.connect(&store).await;
    // given a message whose topic is away
    brokers.delete_topic(Deposit::TOPIC).await;
    let before = Clock::System.now();
    publish(&store, [deposit("a", 1, 1)]).await;
    eventually("more than a quarter has passed", async || {
        Clock::System.now().millis_since(before) > 3_000
    })
    .await;
    // when the topic is back, with the sender's timestamps
    let name = format!("{}{}", brokers.settings.prefix, Deposit::TOPIC);
    let topic = NewTopic::new(&name, 2, TopicReplication::Fixed(1))
        .set("message.timestamp.type", "CreateTime");
    let admin = brokers.admin();
    let made = admin.create_topics([&topic], &AdminOptions::new()).await;
    assert!(matches!(made.unwrap()[..], [Ok(_)]));
    // then the record's stamp is not that of the first send
    let record = brokers.first_record(Deposit::TOPIC).await;
    let stamp = Timestamp::from_millis(record.timestamp().to_millis().unwrap());
    assert!(stamp.millis_since(before) >= 1_000, "{stamp}");
    within("a bus closes", kafka.close()).await;
}

#[tokio::test]
async fn a_record_names_its_message_by_uuid_for_consumers_that_read_no_headers() {
    let mut brokers = Brokers::new();
    brokers.settings.message_identity = MessageIdentity::Uuid;
    brokers.settings.payload_rules = PayloadRules {
        request_reply_topics: &[Deposit::TOPIC],
        identified_topics: &[Noise::TOPIC],
        time_fields: &[],
    };
    let store = brokers.open_silent().await;
    let kafka = brokers.connect(&store).await;
    let event = Message {
        payload: r#"{"eventId":"noise:1","number":1}"#.to_owned(),
        ..common::noise(1)
    };
    publish(&store, [deposit("a", 1, 1), event]).await;

    let request = brokers.first_record(Deposit::TOPIC).await;
    assert_eq!(uuid_of(request.key()), Some(messaging::id::digest("a")));
    let event = brokers.first_record(Noise::TOPIC).await;
    assert_eq!(event.key(), Some(&b"1"[..]), "events keep their order");
    let value: serde_json::Value = serde_json::from_slice(event.payload().unwrap()).unwrap();
    let named = value["eventId"].as_str().map(str::as_bytes);
    let id = messaging::id::digest(&common::noise(1).id);
    assert_eq!(uuid_of(named), Some(id));
    within("a bus closes", kafka.close()).await;
}

fn uuid_of(text: Option<&[u8]>) -> Option<uuid::Uuid> {
    std::str::from_utf8(text?).ok()?.parse().ok()
}

#[tokio::test]
async fn a_time_without_a_zone_is_read_in_the_configured_zone() {
    let mut brokers = Brokers::new();
    brokers.settings.zone = "+09:00".to_owned();
    brokers.settings.payload_rules = PayloadRules {
        time_fields: &["at"],
        ..PayloadRules::default()
    };
    let store = brokers.open_silent().await;
    let kafka = brokers.connect(&store).await;
    let payload = br#"{"account":1,"amount":1,"at":"2026-11-30T23:30:29.123456789"}"#;
    brokers.send(Deposit::TOPIC, b"1", &[], payload).await;

    let read = common::read_all(&store, "zones", &[Deposit::TOPIC]).await;
    let value: serde_json::Value = serde_json::from_str(&read[0].payload).unwrap();
    let at: Timestamp = serde_json::from_value(value["at"].clone()).unwrap();
    assert_eq!(at.to_string(), "2026-11-30T14:30:29.123Z");
    within("a bus closes", kafka.close()).await;
}

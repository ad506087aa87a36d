//! Records of foreign producers, with anything that a client can send; and what foreign consumers see.
#![cfg(feature = "kafka")]

mod common;

use common::{
    Account, Deposit, balance, context, deposit, drain, eventually, kafka::Brokers, publish, start,
    store_all, teller, within,
};
use messaging::{
    Clock, Message, Metrics, Payload, Timestamp, Worker,
    dead_letters::{self, DeadLetterConsumer},
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
                .configured(common::Noise::TOPIC, "message.timestamp.type")
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
    for topic in [Deposit::TOPIC, common::Noise::TOPIC] {
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

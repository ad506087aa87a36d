//! Faults of the machinery: marks, acknowledgements, sends, ids.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use messaging::{Commit, Message};
use serde_json::Value;
use ticketing::ReservationsBackend;

use crate::{
    desk::{entries, stock},
    house::{House, PATIENCE, play},
    refusing::Refusing,
};

/// Lets this thread, and so this test's system, die the `nth` time that it comes to the place.
fn die_at(place: &str, nth: usize) {
    let (this, count) = (thread::current().id(), Arc::new(AtomicUsize::new(0)));
    let come_by = move || {
        if thread::current().id() == this && count.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            panic!("the test lets it die here");
        }
    };
    fail::cfg_callback(place, come_by).unwrap();
}

#[tokio::test]
async fn a_mark_is_never_there_without_its_work_nor_the_work_without_its_mark() {
    play(async |house: &mut House| {
        let event = house.event(100).await;
        let mut sold = 0;
        for place in ["worker.before_submit", "worker.after_commit"] {
            for nth in 1..=9 {
                // Given a worker that dies while the purchase is under way.
                let user = house.user(300).await;
                let ticket = house.reserved(event, user).await;
                house.rest().await;
                die_at(place, nth);
                house.process(&ticket, event, user, 300).await.ok(202);
                let died = house.app.as_mut().unwrap().failed();
                let died = tokio::time::timeout(PATIENCE, died).await.unwrap();
                assert!(died.ends_with("task has ended"), "{died}");
                fail::remove(place);

                // Then the next one does what was not done, without being asked again, and nothing twice.
                house.restart().await;
                let purchase = house.processed_already(&ticket).await;
                assert_eq!(
                    house.ledger(user).await,
                    entries(&[("GRANTED", 300, 300), ("RESERVED", -300, 0)]),
                    "{place} {nth}"
                );
                assert_eq!(
                    house.payment_history(&purchase).await,
                    ["CREATED"],
                    "{place} {nth}"
                );
                house.paid(&purchase, &format!("card-{place}-{nth}")).await;
                // Brokers that were not told of the work deliver its message again, and then it is dropped.
                if house.site().is_folder() {
                    let duplicates = counted(house, "messages_duplicate_total", "").await;
                    assert_eq!(duplicates, 0, "{place} {nth}");
                }
                assert_ne!(counted(house, "messages_handled_total", "").await, 0);
                sold += 1;
                assert_eq!(house.stock(event).await, stock(100, 0, sold, 100 - sold));
            }
        }
        let said: Vec<String> = house.all_said().await.into_iter().map(|it| it.id).collect();
        let ids: BTreeSet<&String> = said.iter().collect();
        assert_eq!(ids.len(), said.len(), "something was sent twice: {said:?}");
    })
    .await;
}

#[tokio::test]
async fn a_message_is_not_acknowledged_while_its_dead_letter_cannot_be_written() {
    play(async |house: &mut House| {
        // Given a store that takes no dead letter.
        let refusing = Refusing::messages(house, "common.dlt").await;
        let mut commit = Commit::new();
        commit.publish(Message {
            id: "poison".to_owned(),
            topic: "payment.create.request".to_owned(),
            key: "poison".to_owned(),
            subject: None,
            time: house.clock.now(),
            payload: "{ not json".to_owned(),
            reissue: None,
            trace: None,
        });
        house.app().store().commit(commit).await.unwrap();

        // When it has been tried more often than in one go, then the message is still there.
        let tried =
            async { while counted(house, "messages_rejected_total", "payment").await < 20 {} };
        tokio::time::timeout(PATIENCE, tried)
            .await
            .expect("it was given up");
        assert_ne!(house.under_way().await, [] as [String; 0]);
        assert_eq!(house.dead_letters("WAITING").await, [] as [Value; 0]);

        // And becomes a dead letter when one can be written.
        refusing.end(house).await;
        let letter = house.dead_letter("WAITING").await;
        assert_eq!(letter["letter"]["messageId"], "poison");
        house.dead_letters_left = 1;
    })
    .await;
}

/// How often this was counted since the last start, by groups whose label has this text.
async fn counted(house: &House, name: &str, group: &str) -> u64 {
    let url = house.app().url() + "/metrics";
    let response = house.client.get(url).send().await.unwrap();
    let text = response.text().await.unwrap();
    text.lines()
        .filter(|line| !line.starts_with('#') && line.contains(name) && line.contains(group))
        .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
        .sum()
}

#[tokio::test]
async fn nothing_is_answered_as_done_whose_message_could_not_be_sent() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);

        // A reservation that cannot be written is none, and its ticket is free. In Redis it needs no row.
        if house.config.ticketing.reservations == ReservationsBackend::Local {
            let refusing = Refusing::rows(house, "reservation", "true").await;
            let answer = house.reserve(event, user).await;
            assert!(answer.status >= 500, "{answer:?}");
            assert_eq!(house.stock(event).await, stock(1, 0, 0, 1));
            refusing.end(house).await;
        }
        let ticket = house.reserved(event, user).await;

        // A purchase that cannot be sent has not begun, and can be begun again.
        let refusing = Refusing::messages(house, "ticketing.process").await;
        let answer = house.process(&ticket, event, user, 300).await;
        assert!(answer.status >= 500, "{answer:?}");
        let progress = house.get(&format!("/ticketing/process/{ticket}")).await;
        progress.refused(404, "PROCESS_NOT_FOUND");
        refusing.end(house).await;
        let purchase = house.processed(&ticket, event, user, 300).await;

        // A payment whose outcome cannot be sent is not told as made, and is settled later.
        let refusing = Refusing::messages(house, "payment.confirmed.request").await;
        let pending = house.pay(&purchase, "card-1").await.ok(202);
        assert_eq!(pending["status"], "CONFIRMING");
        refusing.end(house).await;
        house.payment_becomes_in_time(&purchase, "SUCCEEDED").await;
        house.stock_becomes(event, stock(1, 0, 1, 0)).await;
    })
    .await;
}

#[tokio::test]
async fn every_message_has_the_id_that_follows_from_what_it_is_about() {
    play(async |house: &mut House| {
        let (event, user) = (house.event(1).await, house.user(300).await);
        let purchase = house.purchase(event, user, 300).await;
        house.paid(&purchase, "card-1").await;
        house.rest().await;

        let (ticket, saga, payment) = (&purchase.ticket, &purchase.saga, &purchase.payment);
        let request = |step: usize| format!("{saga}:{step}:REQUEST:1");
        let mut expected = BTreeSet::from([
            format!("event:{event}:1"),
            format!("{ticket}:process"),
            format!("{payment}:confirmed:1:card-1"),
            format!("ticket:{ticket}:1"),
            format!("{saga}:check.active:response:{}", request(0)),
            format!("{saga}:reserve.point:response:{}", request(1)),
            format!("{saga}:check.fraud:response:{}", request(2)),
            format!("{}:response", request(3)),
        ]);
        expected.extend((0..4).map(request));
        expected.extend((1..=3).map(|version| format!("payment:{payment}:{version}")));

        let said = house.all_said().await;
        let ids: Vec<String> = said.into_iter().map(|message| message.id).collect();
        assert_eq!(ids.len(), expected.len(), "{ids:?}");
        assert_eq!(ids.into_iter().collect::<BTreeSet<_>>(), expected);
    })
    .await;
}
